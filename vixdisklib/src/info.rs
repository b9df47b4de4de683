//! What a disk says about itself.

/// Facts about an open disk.
#[doc(alias = "VixDiskLibInfo")]
#[doc(alias = "VixDiskLib_FreeInfo")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// Size in bytes.
    pub capacity: u64,
    /// Bytes of a logical sector.
    pub logical_sector_size: u32,
    /// Bytes of a physical sector, as the guest is told. The logical size where the disk does not say otherwise.
    pub physical_sector_size: u32,
    /// The physical geometry.
    pub geometry: Geometry,
    /// The geometry that the guest's BIOS is told, where it differs and is known.
    pub bios_geometry: Option<Geometry>,
    /// The controller that the geometry was made for: `ide`, `buslogic`, `lsilogic`. `None` when the disk does not say.
    pub adapter_type: Option<String>,
    /// The disk's own id, as written in its data base.
    pub uuid: Option<String>,
    /// Files that make up the chain, the disk itself included. `None` when the transport cannot tell.
    pub links: Option<usize>,
    /// The parent's name as the disk has it written; `None` for a disk without a parent, and where it cannot be told.
    #[doc(alias = "parentFileNameHint")]
    pub parent_hint: Option<String>,
}

/// Cylinders, heads and sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of cylinders.
    pub cylinders: u64,
    /// Heads of a cylinder.
    pub heads: u32,
    /// Sectors of a track.
    pub sectors: u32,
}

/// The keys of the disk data base behind [`DiskInfo`].
pub(crate) mod key {
    pub(crate) const ADAPTER_TYPE: &str = "adapterType";
    pub(crate) const UUID: &str = "uuid";
    /// What VMware's programs write; asked for one by one where keys cannot be listed.
    pub(crate) const KNOWN: [&str; 20] = [
        ADAPTER_TYPE,
        "geometry.cylinders",
        "geometry.heads",
        "geometry.sectors",
        BIOS[0],
        BIOS[1],
        BIOS[2],
        UUID,
        "longContentID",
        "virtualHWVersion",
        "toolsVersion",
        "toolsInstallType",
        "thinProvisioned",
        "encoding",
        "deletable",
        "comment",
        "objectParentUri",
        "nativeParentHint",
        "nativeParentCID",
        "sidecars",
    ];
    pub(crate) const BIOS: [&str; 3] = ["geometry.biosCylinders", "geometry.biosHeads", "geometry.biosSectors"];
}

impl DiskInfo {
    /// What the files of a disk say. `ddb` looks a key up in the data bases of the chain.
    pub(crate) fn of_image(
        capacity: u64,
        descriptor: Option<&vmdk::Descriptor>,
        links: usize,
        ddb: impl Fn(&str) -> Option<String>,
    ) -> vmdk::Result<Self> {
        let adapter = ddb(key::ADAPTER_TYPE);
        let usual = vmdk::AdapterType::from_name(adapter.as_deref().unwrap_or("lsilogic"));
        let written = descriptor.and_then(vmdk::descriptor::Geometry::of);
        let geometry = written.unwrap_or_else(|| vmdk::descriptor::Geometry::for_disk(capacity, &usual));
        let hint = descriptor.map(|own| own.parent_file_name_hint().map(|hint| hint.map(Into::into)));
        Ok(Self {
            capacity,
            logical_sector_size: SECTOR,
            physical_sector_size: SECTOR,
            geometry: Geometry { cylinders: geometry.cylinders, heads: geometry.heads, sectors: geometry.sectors },
            bios_geometry: Geometry::from_texts(key::BIOS.map(&ddb)),
            adapter_type: adapter,
            uuid: ddb(key::UUID),
            links: Some(links),
            parent_hint: hint.transpose()?.flatten(),
        })
    }
}

impl Geometry {
    /// From the texts of a disk data base; `None` when one is missing or not a number.
    pub(crate) fn from_texts([cylinders, heads, sectors]: [Option<String>; 3]) -> Option<Self> {
        Some(Self {
            cylinders: cylinders?.trim().parse().ok()?,
            heads: heads?.trim().parse().ok()?,
            sectors: sectors?.trim().parse().ok()?,
        })
    }
}

/// Images have sectors of 512 bytes.
const SECTOR: u32 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_geometry_is_complete_or_none() {
        let texts = |all: [&str; 3]| all.map(|text| (!text.is_empty()).then(|| text.to_owned()));
        let whole = Geometry { cylinders: 1024, heads: 255, sectors: 63 };
        assert_eq!(Geometry::from_texts(texts(["1024", "255", " 63"])), Some(whole));
        assert_eq!(Geometry::from_texts(texts(["1024", "", "63"])), None);
        assert_eq!(Geometry::from_texts(texts(["1024", "-1", "63"])), None);
    }
}
