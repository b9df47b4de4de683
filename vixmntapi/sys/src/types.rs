//! Handles and structures, laid out as in C.
//!
//! On Windows, VMware's headers pack structures to four bytes; elsewhere alignment is natural. Both were compared with
//! what a C compiler makes of them, on Linux for x86-64 only. That compares them with our own reading of the public
//! documentation: VMware's headers were not at hand.

use std::ffi::c_char;

use vixdisklib_sys::shape::{HasShape, Shape};
pub use vixdisklib_sys::{Bool, ConnectionHandle, DiskHandle, LogFunc, VaList};

use crate::constants::{OsFamily, VolumeType};

/// What the handle of a set of disks points to. Never seen, only pointed to.
#[doc(alias = "VixDiskSetHandle")]
#[repr(C)]
pub struct DiskSetObject {
    _opaque: [u8; 0],
}

/// What the handle of a volume points to. Never seen, only pointed to.
#[doc(alias = "VixVolumeHandle")]
#[repr(C)]
pub struct VolumeObject {
    _opaque: [u8; 0],
}

/// An open set of disks.
#[doc(alias = "VixDiskSetHandle")]
pub type DiskSetHandle = *mut DiskSetObject;

/// A volume of a set.
#[doc(alias = "VixVolumeHandle")]
pub type VolumeHandle = *mut VolumeObject;

/// Declares the structures in one of the two alignments.
macro_rules! structures {
    ($($repr:tt)*) => {
        /// What is installed on a set of disks. Guests with Windows only.
        #[doc(alias = "VixOsInfo")]
        #[repr($($repr)*)]
        #[derive(Debug, Clone, Copy)]
        pub struct OsInfo {
            /// Of which family the system is.
            pub family: OsFamily,
            /// The first number of its version.
            pub major_version: u32,
            /// The second.
            pub minor_version: u32,
            /// Whether it has 64 bits.
            pub os_is_64_bit: Bool,
            /// Who makes it; or null.
            pub vendor: *mut c_char,
            /// Its edition; or null.
            pub edition: *mut c_char,
            /// Its directory in the guest; or null.
            pub os_folder: *mut c_char,
        }

        /// Facts about a volume; they mean something once it is mounted. The head of a structure that
        /// [`num_guest_mount_points`](Self::num_guest_mount_points) pointers follow.
        #[doc(alias = "VixVolumeInfo")]
        #[repr($($repr)*)]
        #[derive(Debug)]
        pub struct VolumeInfo {
            /// How it is made.
            pub volume_type: VolumeType,
            /// Whether it is mounted.
            pub is_mounted: Bool,
            /// Its path on the proxy: a folder on Linux, a device on Windows; or null.
            pub symbolic_link: *mut c_char,
            /// How many mount points follow. Not implemented on Linux.
            pub num_guest_mount_points: usize,
            /// Where the guest mounts it. The type says one, or none; the memory says how many.
            pub in_guest_mount_points: [*mut c_char; 0],
        }

        /// Facts about an open set.
        #[doc(alias = "VixDiskSetInfo")]
        #[repr($($repr)*)]
        #[derive(Debug, Clone, Copy)]
        pub struct DiskSetInfo {
            /// How it was opened; the bits of [`OpenFlags`](crate::OpenFlags).
            pub open_flags: u32,
            /// The folder with the disk as a file, on Linux; or null.
            pub mount_path: *mut c_char,
        }
    };
}

#[cfg(not(windows))]
structures!(C);
#[cfg(windows)]
structures!(C, packed(4));

impl HasShape for DiskSetObject {
    const SHAPE: Shape = Shape::Struct("DiskSetObject");
}

impl HasShape for VolumeObject {
    const SHAPE: Shape = Shape::Struct("VolumeObject");
}

impl HasShape for OsInfo {
    const SHAPE: Shape = Shape::Struct("OsInfo");
}

impl HasShape for VolumeInfo {
    const SHAPE: Shape = Shape::Struct("VolumeInfo");
}

impl HasShape for DiskSetInfo {
    const SHAPE: Shape = Shape::Struct("DiskSetInfo");
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use std::{
        io::Write as _,
        mem::{offset_of, size_of},
        process::{Command, Stdio},
    };

    use super::*;

    /// The structures as they are on Windows.
    #[allow(unreachable_pub)]
    mod packed {
        use super::*;
        structures!(C, packed(4));
    }

    macro_rules! numbers {
        ($module:ident) => {
            [
                offset_of!($module::OsInfo, family),
                offset_of!($module::OsInfo, major_version),
                offset_of!($module::OsInfo, minor_version),
                offset_of!($module::OsInfo, os_is_64_bit),
                offset_of!($module::OsInfo, vendor),
                offset_of!($module::OsInfo, edition),
                offset_of!($module::OsInfo, os_folder),
                size_of::<$module::OsInfo>(),
                offset_of!($module::VolumeInfo, volume_type),
                offset_of!($module::VolumeInfo, is_mounted),
                offset_of!($module::VolumeInfo, symbolic_link),
                offset_of!($module::VolumeInfo, num_guest_mount_points),
                offset_of!($module::VolumeInfo, in_guest_mount_points),
                // Declared with one pointer in it.
                size_of::<$module::VolumeInfo>() + size_of::<*mut c_char>(),
                offset_of!($module::DiskSetInfo, open_flags),
                offset_of!($module::DiskSetInfo, mount_path),
                size_of::<$module::DiskSetInfo>(),
            ]
        };
    }

    const NATURAL: [usize; 17] = [0, 4, 8, 12, 16, 24, 32, 40, 0, 4, 8, 16, 24, 32, 0, 8, 16];
    /// The pointer after a lone number is where packing shows.
    const PACKED: [usize; 17] = [0, 4, 8, 12, 16, 24, 32, 40, 0, 4, 8, 16, 24, 32, 0, 4, 12];

    #[test]
    fn structures_are_laid_out_as_documented_in_both_alignments() {
        use crate::types as natural;
        assert_eq!(numbers!(natural), NATURAL);
        assert_eq!(numbers!(packed), PACKED);
        assert_eq!((size_of::<OsFamily>(), size_of::<VolumeType>(), size_of::<Bool>()), (4, 4, 1));
    }

    #[test]
    fn a_c_compiler_lays_them_out_alike() {
        for (pack, expected) in [("", NATURAL), ("#pragma pack(4)\n", PACKED)] {
            let folder = tempfile::tempdir().unwrap();
            let program = folder.path().join("layout");
            let mut compiler = Command::new("cc");
            compiler.arg("-o").arg(&program).args(["-x", "c", "-"]);
            let mut compiler = compiler.stdin(Stdio::piped()).spawn().expect("a C compiler is there");
            compiler.stdin.take().unwrap().write_all([pack, SOURCE].concat().as_bytes()).unwrap();
            assert!(compiler.wait().unwrap().success());
            let told = Command::new(program).output().unwrap().stdout;
            let told = String::from_utf8(told).unwrap();
            let told: Vec<usize> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
            assert_eq!(told, expected, "{pack}");
        }
    }

    /// The structures in C, by our names, and where their fields are.
    const SOURCE: &str = "
        #include <stddef.h>
        #include <stdint.h>
        #include <stdio.h>
        typedef struct { int32_t family; uint32_t major, minor; char is64; char *vendor, *edition, *folder; } Os;
        typedef struct { int32_t type; char mounted; char *link; size_t count; char *points[1]; } Volume;
        typedef struct { uint32_t flags; char *path; } Set;
        #define AT(type, field) printf(\"%zu \", offsetof(type, field))
        int main(void) {
            AT(Os, family); AT(Os, major); AT(Os, minor); AT(Os, is64); AT(Os, vendor); AT(Os, edition); AT(Os, folder);
            printf(\"%zu \", sizeof(Os));
            AT(Volume, type); AT(Volume, mounted); AT(Volume, link); AT(Volume, count); AT(Volume, points);
            printf(\"%zu \", sizeof(Volume));
            AT(Set, flags); AT(Set, path);
            printf(\"%zu\", sizeof(Set));
        }";
}
