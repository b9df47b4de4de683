//! What the library tells, out of its memory.

use std::{ffi::c_char, path::PathBuf};

use super::{
    error::{Error, Result},
    limits::Proxy,
    text::from_c,
};
use crate::{
    OpenFlags,
    constants::{OsFamily, VolumeType},
    types::{self, Bool},
};

/// Facts about an open set.
#[doc(alias = "VixDiskSetInfo")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetInfo {
    /// How it was opened.
    pub open_flags: OpenFlags,
    /// On Linux, the folder in which the disk is a file.
    pub mount_path: Option<PathBuf>,
}

/// Facts about a volume.
#[doc(alias = "VixVolumeInfo")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// How it is made.
    pub volume_type: VolumeType,
    /// Whether it is mounted.
    pub is_mounted: bool,
    /// Its path on the proxy while it is mounted: a folder on Linux, a device on Windows.
    #[doc(alias = "symbolicLink")]
    pub symbolic_link: Option<PathBuf>,
    /// Where the guest mounts it, as far as the library tells; never on Linux.
    #[doc(alias = "inGuestMountPoints")]
    pub guest_mount_points: Vec<Vec<u8>>,
}

/// What is installed on a set of disks.
#[doc(alias = "VixOsInfo")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OsInfo {
    /// Of which family the system is.
    pub family: OsFamily,
    /// The first two numbers of its version.
    pub version: (u32, u32),
    /// Whether it has 64 bits.
    pub is_64_bit: bool,
    /// Who makes it.
    pub vendor: Option<String>,
    /// Its edition.
    pub edition: Option<String>,
    /// Its directory in the guest.
    #[doc(alias = "osFolder")]
    pub directory: Option<Vec<u8>>,
}

impl SetInfo {
    /// # Safety
    /// `info` points to what `GetDiskSetInfo` gave, not freed yet.
    pub(super) unsafe fn copy(info: *const types::DiskSetInfo) -> Self {
        // SAFETY: the library's structure, of one layout in all versions.
        let info = unsafe { info.read() };
        // SAFETY: the structure's text, not freed yet.
        let mount_path = unsafe { from_c(info.mount_path) };
        Self { open_flags: OpenFlags(info.open_flags), mount_path: mount_path.and_then(path) }
    }
}

impl VolumeInfo {
    /// # Errors
    /// [`Error::Answer`] when there are more mount points than any guest has.
    ///
    /// # Safety
    /// `info` points to what `GetVolumeInfo` of a library for that system gave, not freed yet.
    pub(super) unsafe fn copy(info: *const types::VolumeInfo, proxy: Proxy) -> Result<Self> {
        // The pointers lie behind the head: no reference is made of what is only the head.
        // SAFETY: the library's structure, of one layout in all versions; only the address of its last field is taken.
        let points: *const *mut c_char = unsafe { &raw const (*info).in_guest_mount_points }.cast();
        // SAFETY: as above; the head is read in place and copied.
        let head = unsafe { info.read() };
        // SAFETY: the structure's text, not freed yet.
        let link = unsafe { from_c(head.symbolic_link) };
        let count = if proxy.tells_guest_mount_points() { head.num_guest_mount_points } else { 0 };
        if count > MOST_MOUNT_POINTS {
            let what = format!("{count} mount points of one volume");
            return Err(Error::Answer { function: "VixMntapi_GetVolumeInfo", what });
        }
        let guest_mount_points = (0..count).filter_map(|number| {
            // SAFETY: the library says that so many pointers follow the head, each aligned as the structure is.
            let point = unsafe { points.wrapping_add(number).read_unaligned() };
            // SAFETY: null, or a text of the structure, not freed yet.
            unsafe { from_c(point) }
        });
        Ok(Self {
            volume_type: head.volume_type,
            is_mounted: is_true(head.is_mounted),
            symbolic_link: link.and_then(path),
            guest_mount_points: guest_mount_points.collect(),
        })
    }
}

impl OsInfo {
    /// # Safety
    /// `info` points to what `GetOsInfo` gave, not freed yet.
    pub(super) unsafe fn copy(info: *const types::OsInfo) -> Self {
        // SAFETY: the library's structure, of one layout in all versions.
        let info = unsafe { info.read() };
        // SAFETY: the structure's text, not freed yet.
        let vendor = unsafe { from_c(info.vendor) };
        // SAFETY: as above.
        let edition = unsafe { from_c(info.edition) };
        // SAFETY: as above.
        let directory = unsafe { from_c(info.os_folder) };
        let lossy = |text: Vec<u8>| String::from_utf8_lossy(&text).into_owned();
        Self {
            family: info.family,
            version: (info.major_version, info.minor_version),
            is_64_bit: is_true(info.os_is_64_bit),
            vendor: vendor.map(lossy),
            edition: edition.map(lossy),
            directory,
        }
    }
}

fn is_true(value: Bool) -> bool {
    value != 0
}

/// A path of this machine; an empty one is none.
fn path(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes))).filter(|path| !path.as_os_str().is_empty())
}

/// A volume has a drive letter and some folders; more than this is no answer.
const MOST_MOUNT_POINTS: usize = 4096;
