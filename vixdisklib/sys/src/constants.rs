//! Kinds of disks, adapters and credentials, and the flags of opening.
//!
//! They are numbers with names, not enums: a library may answer with one that is not known here.

/// Declares a C enumeration as a number with named values. Also for VMware's other libraries.
#[doc(hidden)]
#[macro_export]
macro_rules! named_numbers {
    ($(#[$doc:meta])* $type:ident($repr:ty) { $($(#[$value_doc:meta])* $name:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub $repr);

        impl $type {
            $($(#[$value_doc])* pub const $name: Self = Self($value);)*

            /// The values that have a name, in ascending order.
            pub const KNOWN: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)*];

            /// The name of the value, without VMware's prefix; `None` for a number that has none here.
            pub fn name(self) -> Option<&'static str> {
                Self::KNOWN.iter().find(|(value, _)| *value == self).map(|(_, name)| *name)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name}"),
                    None => write!(f, "{}({})", stringify!($type), self.0),
                }
            }
        }
    };
}

named_numbers! {
    /// Which credentials a [`ConnectParams`](crate::ConnectParams) has.
    #[doc(alias = "VixDiskLibCredType")]
    CredType(u32) {
        /// User and password.
        UID = 1,
        /// The cookie of a session.
        SESSIONID = 2,
        /// A ticket; of VMware's own products.
        TICKETID = 3,
        /// The logged-in user of Windows.
        SSPI = 4,
        /// None of these.
        UNKNOWN = 256,
    }
}

named_numbers! {
    /// What a [`ConnectParams`](crate::ConnectParams) connects to.
    #[doc(alias = "VixDiskLibSpecType")]
    SpecType(u32) {
        /// A virtual machine, by `vmx_spec`.
        VMX = 0,
        /// A first class disk.
        VSTORAGE_OBJECT = 1,
        /// A folder of a datastore, since 8.0.1. Before, the number meant "unknown".
        DATASTORE = 2,
    }
}

named_numbers! {
    /// How a disk is stored.
    #[doc(alias = "VixDiskLibDiskType")]
    DiskType(u32) {
        /// One file that grows.
        MONOLITHIC_SPARSE = 1,
        /// One descriptor and one file of full size.
        MONOLITHIC_FLAT = 2,
        /// Files of 2 GiB that grow.
        SPLIT_SPARSE = 3,
        /// Files of 2 GiB of full size.
        SPLIT_FLAT = 4,
        /// On an ESXi host: full size.
        VMFS_FLAT = 5,
        /// Compressed, written once from front to back.
        STREAM_OPTIMIZED = 6,
        /// On an ESXi host: grows.
        VMFS_THIN = 7,
        /// On an ESXi host: the difference to a parent.
        VMFS_SPARSE = 8,
        /// None of these.
        UNKNOWN = 256,
    }
}

named_numbers! {
    /// The controller that a disk is for.
    #[doc(alias = "VixDiskLibAdapterType")]
    AdapterType(u32) {
        /// IDE.
        IDE = 1,
        /// SCSI, as a BusLogic controller.
        SCSI_BUSLOGIC = 2,
        /// SCSI, as an LSI Logic controller.
        SCSI_LSILOGIC = 3,
        /// None of these.
        UNKNOWN = 256,
    }
}

named_numbers! {
    /// The virtual hardware that has to understand a disk.
    #[doc(alias = "VIXDISKLIB_HWVERSION")]
    HwVersion(u16) {
        /// Workstation 4.
        WORKSTATION_4 = 3,
        /// Workstation 5, ESX 3.0.
        WORKSTATION_5 = 4,
        /// Workstation 6.
        WORKSTATION_6 = 6,
        /// ESX 4.
        ESX4X = 7,
        /// ESXi 5.0.
        ESX50 = 8,
        /// ESXi 5.1.
        ESX51 = 9,
        /// ESXi 5.5.
        ESX55 = 10,
        /// ESXi 6.0.
        ESX60 = 11,
        /// ESXi 6.5.
        ESX65 = 13,
    }
}

named_numbers! {
    /// How to open a disk: bits that may be combined with `|`.
    #[doc(alias = "VIXDISKLIB_FLAG_OPEN")]
    OpenFlags(u32) {
        /// No bits: reading and writing, buffered, the whole chain.
        NONE = 0,
        /// Past the cache of this machine.
        UNBUFFERED = 1,
        /// The named file alone, not its parents.
        SINGLE_LINK = 2,
        /// For reading.
        READ_ONLY = 4,
        /// Over NFC: compressed with zlib.
        COMPRESSION_ZLIB = 16,
        /// Over NFC: compressed with FastLZ.
        COMPRESSION_FASTLZ = 32,
        /// Over NFC: compressed with SkipZ.
        COMPRESSION_SKIPZ = 64,
        /// All bits that say how to compress.
        COMPRESSION_MASK = 0x3F0,
    }
}

impl OpenFlags {
    /// True when all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_unknown_ones_stay_numbers() {
        assert_eq!(format!("{:?} {:?}", DiskType::VMFS_THIN, DiskType(99)), "VMFS_THIN DiskType(99)");
        assert_eq!(DiskType::KNOWN.len(), 9);
        assert!(DiskType::KNOWN.is_sorted() && AdapterType::KNOWN.is_sorted() && HwVersion::KNOWN.is_sorted());
    }

    #[test]
    fn flags_combine() {
        let flags = OpenFlags::READ_ONLY | OpenFlags::COMPRESSION_SKIPZ;
        assert!(flags.contains(OpenFlags::READ_ONLY) && !flags.contains(OpenFlags::SINGLE_LINK));
        assert_eq!(flags.0 & OpenFlags::COMPRESSION_MASK.0, 64);
    }
}
