//! Releases of the host: what each understands of the way to a session.

/// Which release the server is.
///
/// | release | banner | 43 | 36 announces 51 | 51 | 54, 55 | 52 | known from |
/// |-|-|-|-|-|-|-|-|
/// | [`Esxi60`](Self::Esxi60) | | ends | no | ends | end | ends | gates from captures |
/// | [`Esxi65`](Self::Esxi65) | | ends | yes (unknown) | 0 | end (unknown) | ends (unknown) | inferred |
/// | [`Esxi67`](Self::Esxi67) | | ends | yes | 2 | end (unknown) | yes | gates from captures |
/// | [`Esxi70`](Self::Esxi70) | | ends | yes | 7 | yes | yes | gates from captures |
/// | [`Esxi80`](Self::Esxi80) | SHA256 | yes | yes | 11 | yes | yes | captured |
/// | [`Esxi90`](Self::Esxi90) | SHA256 | yes | yes | 12 (made up) | yes | yes | inferred |
/// | [`Apache2015`](Self::Apache2015) | | ends | no | ends | end | ends | VMware's Java client |
///
/// "ends" is message 4 and the end of the connection. Every column is a field of [`Gates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HostVersion {
    /// ESXi 6.0: no version message, no asynchronous layer, no `NfcGetServerNfcLibVersion`.
    Esxi60,
    /// ESXi 6.5: library version 0, no asynchronous layer.
    Esxi65,
    /// ESXi 6.7: library version 2, the asynchronous layer without messages 54 and 55.
    Esxi67,
    /// ESXi 7.0: library version 7, no `THUMBPRINT_SHA2`, no message 43.
    Esxi70,
    /// ESXi 8.0: library version 11.
    #[default]
    Esxi80,
    /// ESXi 9.0, taken to be like 8.0 with a later library.
    Esxi90,
    /// What VMware's Apache-licensed Java client of 2015 needs: the classic layer only.
    Apache2015,
}

/// What a release understands of the way to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gates {
    /// The banner says `SHA256 supported`, the daemon knows `THUMBPRINT_SHA2`, and message 43 may
    /// follow it.
    pub thumbprint_sha2: bool,
    /// Reply 36 announces the version message, 51.
    pub announces_version: bool,
    /// The version in message 51, and of `NfcGetServerNfcLibVersion`; `None` where both are missing.
    pub library_version: Option<u32>,
    /// Message 54 is understood.
    pub connection_data: bool,
    /// Message 55 is understood.
    pub features: bool,
    /// Message 52 leads to the asynchronous layer.
    pub asynchronous: bool,
}

impl HostVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::Apache2015, Self::Esxi60, Self::Esxi65, Self::Esxi67, Self::Esxi70, Self::Esxi80, Self::Esxi90];

    /// What the release understands.
    pub fn gates(self) -> Gates {
        let oldest = Gates {
            thumbprint_sha2: false,
            announces_version: false,
            library_version: None,
            connection_data: false,
            features: false,
            asynchronous: false,
        };
        let versioned = Gates { announces_version: true, ..oldest };
        let modern = Gates { connection_data: true, features: true, asynchronous: true, ..versioned };
        match self {
            Self::Apache2015 | Self::Esxi60 => oldest,
            Self::Esxi65 => Gates { library_version: Some(0), ..versioned },
            Self::Esxi67 => Gates { library_version: Some(2), asynchronous: true, ..versioned },
            Self::Esxi70 => Gates { library_version: Some(7), ..modern },
            Self::Esxi80 => Gates { library_version: Some(11), thumbprint_sha2: true, ..modern },
            Self::Esxi90 => Gates { library_version: Some(12), thumbprint_sha2: true, ..modern },
        }
    }
}

impl Gates {
    /// The daemon's first line, without its end.
    pub fn banner(&self) -> String {
        let sha256 = if self.thumbprint_sha2 { ", SHA256 supported" } else { "" };
        format!("{BANNER}{sha256}")
    }
}

/// The first line that ESXi 8 was seen to send, up to what older ones lack.
const BANNER: &str = "220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, \
                      MKSDisplayProtocol:VNC , VMXARGS supported, NFCSSL supported/t";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_with_thumbprint_sha2_says_so_in_its_first_line() {
        for version in HostVersion::ALL {
            let gates = version.gates();
            assert_eq!(gates.banner().contains("SHA256 supported"), gates.thumbprint_sha2, "{version:?}");
        }
    }

    #[test]
    fn library_versions_rise_with_the_releases() {
        let versions: Vec<_> = HostVersion::ALL.iter().map(|version| version.gates().library_version).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert_eq!(HostVersion::default().gates().library_version, Some(11));
    }
}
