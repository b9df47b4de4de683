//! The transports by name.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// A way to a disk's bytes.
#[doc(alias = "VixDiskLib_GetTransportMode")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportMode {
    /// Files of this machine.
    File,
    /// NFC over port 902 with the data in clear. The login is encrypted all the same.
    Nbd,
    /// NFC over port 902 inside TLS.
    NbdSsl,
    /// The datastore browser of the server over HTTPS.
    Https,
    /// The storage area network: this machine sees the datastore's LUNs.
    San,
    /// This machine is a VM, and the disk is attached to it.
    HotAdd,
    /// None of the transports: a disk of the caller's own ([`Disk::from_backend`](crate::Disk::from_backend)).
    Custom,
}

impl TransportMode {
    /// All modes that can stand in a list.
    pub const ALL: [Self; 6] = [Self::File, Self::Nbd, Self::NbdSsl, Self::Https, Self::San, Self::HotAdd];

    /// The modes that this version can use.
    #[doc(alias = "VixDiskLib_ListTransportModes")]
    pub const OFFERED: [Self; 4] = [Self::File, Self::NbdSsl, Self::Nbd, Self::Https];

    /// VMware's name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Nbd => "nbd",
            Self::NbdSsl => "nbdssl",
            Self::Https => "https",
            Self::San => "san",
            Self::HotAdd => "hotadd",
            Self::Custom => "custom",
        }
    }

    /// Why this version cannot use the mode; `None` when it can.
    pub(crate) fn not_offered(self) -> Option<&'static str> {
        match self {
            Self::File | Self::Nbd | Self::NbdSsl | Self::Https => None,
            Self::Custom => Some("it is no transport"),
            Self::San | Self::HotAdd => {
                Some("it needs VMware's own disk library: feature `vddk` and ConnectionOptions::vddk")
            }
        }
    }
}

impl fmt::Display for TransportMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TransportMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let same = |mode: &Self| mode.name().eq_ignore_ascii_case(name.trim());
        Self::ALL.into_iter().find(same).ok_or_else(|| Error::UnknownTransport { name: name.trim().to_owned() })
    }
}

/// Transports in the order of preference: `nbdssl:nbd:file`.
///
/// ```
/// use vixdisklib::{TransportList, TransportMode};
/// let list: TransportList = "nbdssl:file".parse()?;
/// assert_eq!(list.modes(), [TransportMode::NbdSsl, TransportMode::File]);
/// assert!("nbdssl:nfs".parse::<TransportList>().is_err());
/// # Ok::<(), vixdisklib::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransportList {
    modes: Vec<TransportMode>,
}

impl TransportList {
    /// The modes, the preferred one first. Never empty, each at most once.
    pub fn modes(&self) -> &[TransportMode] {
        &self.modes
    }
}

impl Default for TransportList {
    /// All that this version can use, in VMware's order: the nearest to the storage first, and clear text only after
    /// what is encrypted.
    fn default() -> Self {
        Self { modes: DEFAULT_ORDER.into_iter().filter(|mode| mode.not_offered().is_none()).collect() }
    }
}

impl From<TransportMode> for TransportList {
    fn from(mode: TransportMode) -> Self {
        Self { modes: vec![mode] }
    }
}

impl FromStr for TransportList {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self, Error> {
        let mut modes = Vec::new();
        for name in list.split(':') {
            let mode = name.parse()?;
            if !modes.contains(&mode) {
                modes.push(mode);
            }
        }
        Ok(Self { modes })
    }
}

impl fmt::Display for TransportList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mode) in self.modes.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{mode}")?;
        }
        Ok(())
    }
}

/// VMware's default is `file:san:hotadd:nbdssl:nbd`; `https` is ours and reads less.
const DEFAULT_ORDER: [TransportMode; 6] = [
    TransportMode::File,
    TransportMode::San,
    TransportMode::HotAdd,
    TransportMode::NbdSsl,
    TransportMode::Nbd,
    TransportMode::Https,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_name_each_mode_once() {
        let list: TransportList = "hotadd: NBDSSL:nbd:nbdssl".parse().unwrap();
        assert_eq!(list.to_string(), "hotadd:nbdssl:nbd");
    }

    #[test]
    fn unknown_and_missing_names_are_errors() {
        for (list, bad) in [("nbdssl:nfs", "nfs"), ("", ""), ("file:", ""), ("nbd ssl", "nbd ssl")] {
            let error = list.parse::<TransportList>().unwrap_err();
            assert!(matches!(error, Error::UnknownTransport { name } if name == bad), "{list:?}");
        }
    }

    #[test]
    fn offered_modes_are_those_without_a_reason() {
        for mode in TransportMode::ALL {
            assert_eq!(TransportMode::OFFERED.contains(&mode), mode.not_offered().is_none(), "{mode}");
        }
    }
}
