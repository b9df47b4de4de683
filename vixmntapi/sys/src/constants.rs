//! Kinds of volumes, families of operating systems, and the version of the interface.
//!
//! They are numbers with names, not enums: a library may answer with one that is not known here.

use vixdisklib_sys::named_numbers;

named_numbers! {
    /// The family of a guest's operating system.
    #[doc(alias = "VixOsFamily")]
    OsFamily(i32) {
        /// None was found.
        NO_OS = 0,
        /// Windows.
        WINDOWS = 1,
        /// Another.
        OTHER = 255,
    }
}

named_numbers! {
    /// How a volume is made.
    #[doc(alias = "VixVolumeType")]
    VolumeType(i32) {
        /// It is not known.
        UNKNOWN_VOLTYPE = 0,
        /// A partition of an MBR.
        BASIC_PARTITION = 1,
        /// A partition of a GPT.
        GPT_PARTITION = 2,
        /// A volume of Windows' dynamic disks.
        DYNAMIC_VOLUME = 3,
        /// A logical volume of LVM.
        LVM_VOLUME = 4,
    }
}

/// The version of the interface, major and minor, that `Init` is called with.
#[doc(alias = "VIXMNTAPI_MAJOR_VERSION")]
#[doc(alias = "VIXMNTAPI_MINOR_VERSION")]
pub const VERSION: (u32, u32) = (1, 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_unknown_ones_stay_numbers() {
        assert_eq!(format!("{:?} {:?}", VolumeType::DYNAMIC_VOLUME, VolumeType(9)), "DYNAMIC_VOLUME VolumeType(9)");
        assert_eq!((OsFamily::KNOWN.len(), OsFamily(255).name()), (3, Some("OTHER")));
    }
}
