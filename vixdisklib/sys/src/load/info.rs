//! What a disk says about itself, out of the library's memory.

use super::text;
use crate::{
    constants::AdapterType,
    types::{Geometry, Info, InfoBase, Sectors},
};

/// Facts about a disk.
#[doc(alias = "VixDiskLibInfo")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// What the guest's BIOS is told.
    pub bios_geometry: Geometry,
    /// The physical geometry.
    pub physical_geometry: Geometry,
    /// The disk's size in sectors of 512 bytes.
    pub capacity: Sectors,
    /// The controller.
    pub adapter_type: AdapterType,
    /// Files of the chain.
    pub links: i32,
    /// Where the parent was when the disk was made.
    pub parent_hint: Option<String>,
    /// The disk's id.
    pub uuid: Option<String>,
    /// Bytes of a logical and a physical sector. `None` before 7.0.
    pub sector_sizes: Option<(u32, u32)>,
}

impl DiskInfo {
    /// Copies what a library of that generation gives.
    ///
    /// # Safety
    /// `info` points to what `GetInfo` of a library of that generation gave, not freed yet.
    pub(super) unsafe fn copy(info: *const Info, generation: u32) -> Self {
        // SAFETY: every generation gives at least the base, which lies at the beginning. It is read in place and
        // copied; nothing beyond it is touched.
        let base = unsafe { info.cast::<InfoBase>().read() };
        let sizes = (generation >= FIRST_WITH_SECTOR_SIZES).then(|| {
            // SAFETY: from 7.0 on the whole structure is there.
            let whole = unsafe { info.read() };
            (whole.logical_sector_size, whole.physical_sector_size)
        });
        // SAFETY: texts of the structure, which is not freed yet.
        let parent_hint = unsafe { text::from_c(base.parent_file_name_hint) };
        // SAFETY: as above.
        let uuid = unsafe { text::from_c(base.uuid) };
        Self {
            bios_geometry: base.bios_geometry,
            physical_geometry: base.physical_geometry,
            capacity: base.capacity,
            adapter_type: base.adapter_type,
            links: base.num_links,
            parent_hint,
            uuid,
            sector_sizes: sizes,
        }
    }
}

/// The first generation whose structure has sector sizes.
const FIRST_WITH_SECTOR_SIZES: u32 = 7;
