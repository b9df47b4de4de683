//! The enumerations of the descriptor. Unknown words are values, not failures.

use std::fmt;

/// Declares an enumeration of words that are compared without case, open at the end.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A word that this crate does not know, as written.
            Other(String),
        }

        impl $name {
            /// Reads a word.
            pub fn from_name(word: &str) -> Self {
                $(if [$word $(, $alias)*].iter().any(|name| word.eq_ignore_ascii_case(name)) {
                    return Self::$variant;
                })*
                Self::Other(word.to_owned())
            }

            /// The word as VMware writes it.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(super) use vocabulary;

vocabulary! {
    /// `createType`: how a disk was made.
    CreateType {
        /// Any mix of extents.
        Custom = "custom",
        /// One hosted sparse file.
        MonolithicSparse = "monolithicSparse",
        /// A descriptor and one flat file.
        MonolithicFlat = "monolithicFlat",
        /// Hosted sparse files of up to 2 GiB.
        TwoGbMaxExtentSparse = "twoGbMaxExtentSparse" | "2GbMaxExtentSparse",
        /// Flat files of up to 2 GiB.
        TwoGbMaxExtentFlat = "twoGbMaxExtentFlat" | "2GbMaxExtentFlat",
        /// A whole device of the host.
        FullDevice = "fullDevice",
        /// Partitions of a device of the host.
        PartitionedDevice = "partitionedDevice",
        /// Compressed, made to be streamed.
        StreamOptimized = "streamOptimized",
        /// ESXi, thick and thin.
        Vmfs = "vmfs",
        /// ESXi, thin (old).
        VmfsThin = "vmfsThin",
        /// ESXi, thick (old).
        VmfsThick = "vmfsThick",
        /// ESXi, space reserved.
        VmfsPreallocated = "vmfsPreallocated",
        /// ESXi, zeroed in advance.
        VmfsEagerZeroedThick = "vmfsEagerZeroedThick",
        /// ESXi redo log (COWD).
        VmfsSparse = "vmfsSparse",
        /// ESXi space-efficient sparse.
        SeSparse = "seSparse" | "vmfsSeSparse",
        /// vSAN snapshot.
        VsanSparse = "vsanSparse",
        /// ESXi raw device.
        VmfsRaw = "vmfsRaw",
        /// Raw device mapping in virtual mode.
        VmfsRawDeviceMap = "vmfsRawDeviceMap" | "vmfsRDM",
        /// Raw device mapping in physical mode.
        VmfsPassthroughRawDeviceMap = "vmfsPassthroughRawDeviceMap" | "vmfsRDMP",
    }
}

impl CreateType {
    /// Which device holds the bytes, where no file does.
    pub fn device(&self) -> Option<Device> {
        match self {
            Self::FullDevice | Self::PartitionedDevice | Self::VmfsRaw => Some(Device::OfHost),
            Self::VmfsRawDeviceMap => Some(Device::VirtualMapping),
            Self::VmfsPassthroughRawDeviceMap => Some(Device::PhysicalMapping),
            _ => None,
        }
    }
}

/// A device under a virtual disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// A device of the host, or partitions of one.
    OfHost,
    /// A raw device mapping in virtual mode.
    VirtualMapping,
    /// A raw device mapping in physical mode.
    PhysicalMapping,
}

impl Device {
    /// Whether a host can take a snapshot of such a disk, and track its changed blocks: of mappings in virtual
    /// mode only. The others are left out of a backup of the machine, which must say so.
    pub fn has_snapshots(self) -> bool {
        self == Self::VirtualMapping
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OfHost => "a device of the host",
            Self::VirtualMapping => "a raw device mapping in virtual mode",
            Self::PhysicalMapping => "a raw device mapping in physical mode",
        })
    }
}

vocabulary! {
    /// How the bytes of an extent are kept.
    ExtentType {
        /// Raw bytes in a file of a host.
        Flat = "FLAT",
        /// Hosted sparse (KDMV).
        Sparse = "SPARSE",
        /// No bytes at all: reads as zero.
        Zero = "ZERO",
        /// Raw bytes in a file of a datastore.
        Vmfs = "VMFS",
        /// ESXi redo log (COWD).
        VmfsSparse = "VMFSSPARSE",
        /// Raw device mapping.
        VmfsRdm = "VMFSRDM",
        /// Raw device.
        VmfsRaw = "VMFSRAW",
        /// Space-efficient sparse.
        SeSparse = "SESPARSE",
        /// vSAN sparse.
        VsanSparse = "VSANSPARSE",
    }
}

/// What may be done with an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentAccess {
    /// `RW`.
    ReadWrite,
    /// `RDONLY`.
    ReadOnly,
    /// `NOACCESS`: neither read nor written.
    NoAccess,
}

impl ExtentAccess {
    pub(super) fn from_name(word: &str) -> Option<Self> {
        [Self::ReadWrite, Self::ReadOnly, Self::NoAccess]
            .into_iter()
            .find(|access| word.eq_ignore_ascii_case(access.name()))
    }

    /// The word of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "RW",
            Self::ReadOnly => "RDONLY",
            Self::NoAccess => "NOACCESS",
        }
    }
}

impl fmt::Display for ExtentAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_and_any_case_mean_the_same() {
        assert_eq!(CreateType::from_name("2gbmaxextentflat"), CreateType::TwoGbMaxExtentFlat);
        assert_eq!(CreateType::from_name("vmfsSeSparse").name(), "seSparse");
        assert_eq!(CreateType::from_name("Next").name(), "Next");
    }

    #[test]
    fn only_mappings_in_virtual_mode_have_snapshots() {
        let device = |name| CreateType::from_name(name).device();
        assert_eq!(device("vmfs"), None);
        assert!(device("vmfsRDM").is_some_and(Device::has_snapshots));
        for name in ["vmfsRDMP", "vmfsPassthroughRawDeviceMap", "fullDevice", "partitionedDevice", "vmfsRaw"] {
            assert!(device(name).is_some_and(|device| !device.has_snapshots()), "{name}");
        }
    }
}
