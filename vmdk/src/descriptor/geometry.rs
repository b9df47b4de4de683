//! Adapter type and the disk geometry that goes with it.

use std::fmt;

use super::{Descriptor, vocabulary::vocabulary};
use crate::{SECTOR, error::Result};

vocabulary! {
    /// `ddb.adapterType`: the virtual controller that the geometry is made for.
    AdapterType {
        /// IDE.
        Ide = "ide",
        /// BusLogic parallel SCSI.
        BusLogic = "buslogic",
        /// LSI Logic, also written for newer SCSI and for NVMe controllers.
        LsiLogic = "lsilogic",
        /// ESX before 3.
        LegacyEsx = "legacyESX",
    }
}

/// Cylinders, heads and sectors, as written to the disk data base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of cylinders.
    pub cylinders: u64,
    /// Heads of a cylinder.
    pub heads: u32,
    /// Sectors of a track.
    pub sectors: u32,
}

impl Geometry {
    /// The geometry that QEMU and VMware give to a new disk of `capacity` bytes: 16 heads and at most 16383
    /// cylinders for IDE, 255 heads otherwise, 63 sectors.
    pub fn for_disk(capacity: u64, adapter: &AdapterType) -> Self {
        const SECTORS: u32 = 63;
        let (heads, limit) = match adapter {
            AdapterType::Ide => (16, 16383),
            _ => (255, u64::MAX),
        };
        let cylinders = (capacity / SECTOR / u64::from(heads * SECTORS)).clamp(1, limit);
        Self { cylinders, heads, sectors: SECTORS }
    }

    /// Reads the geometry of a descriptor; `None` when it is incomplete.
    pub fn of(descriptor: &Descriptor) -> Option<Self> {
        let number = |key| descriptor.ddb_get(key)?.trim().parse::<u64>().ok();
        Some(Self {
            cylinders: number("geometry.cylinders")?,
            heads: u32::try_from(number("geometry.heads")?).ok()?,
            sectors: u32::try_from(number("geometry.sectors")?).ok()?,
        })
    }

    /// Writes the geometry into a descriptor.
    ///
    /// # Errors
    /// Never for a descriptor that could be parsed.
    pub fn store(&self, descriptor: &mut Descriptor) -> Result<()> {
        descriptor.ddb_set("geometry.cylinders", &self.cylinders.to_string())?;
        descriptor.ddb_set("geometry.heads", &self.heads.to_string())?;
        descriptor.ddb_set("geometry.sectors", &self.sectors.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_follows_the_adapter() {
        let geometry = |capacity, adapter| {
            let found = Geometry::for_disk(capacity, &adapter);
            (found.cylinders, found.heads, found.sectors)
        };
        assert_eq!(geometry(1 << 30, AdapterType::LsiLogic), (130, 255, 63));
        assert_eq!(geometry(1 << 30, AdapterType::Ide), (2080, 16, 63));
        assert_eq!(geometry(62 << 40, AdapterType::Ide), (16383, 16, 63));
        assert_eq!(geometry(512, AdapterType::BusLogic), (1, 255, 63));
    }
}
