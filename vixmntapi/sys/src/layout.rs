//! The layouts of the structures as a table, to be compared with those of other declarations.

use std::{
    ffi::c_char,
    mem::{offset_of, size_of},
};

pub use vixdisklib_sys::layout::{Layout, Version};

use crate::types::*;

/// The structures that are passed between caller and library.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        name: "VixOsInfo",
        ours: "OsInfo",
        versions: &[Version {
            size: size_of::<OsInfo>(),
            offsets: &[
                offset_of!(OsInfo, family),
                offset_of!(OsInfo, major_version),
                offset_of!(OsInfo, minor_version),
                offset_of!(OsInfo, os_is_64_bit),
                offset_of!(OsInfo, vendor),
                offset_of!(OsInfo, edition),
                offset_of!(OsInfo, os_folder),
            ],
        }],
    },
    Layout {
        name: "VixVolumeInfo",
        ours: "VolumeInfo",
        versions: &[Version {
            // Declared with one pointer in it.
            size: size_of::<VolumeInfo>() + size_of::<*mut c_char>(),
            offsets: &[
                offset_of!(VolumeInfo, volume_type),
                offset_of!(VolumeInfo, is_mounted),
                offset_of!(VolumeInfo, symbolic_link),
                offset_of!(VolumeInfo, num_guest_mount_points),
                offset_of!(VolumeInfo, in_guest_mount_points),
            ],
        }],
    },
    Layout {
        name: "VixDiskSetInfo",
        ours: "DiskSetInfo",
        versions: &[Version {
            size: size_of::<DiskSetInfo>(),
            offsets: &[offset_of!(DiskSetInfo, open_flags), offset_of!(DiskSetInfo, mount_path)],
        }],
    },
];
