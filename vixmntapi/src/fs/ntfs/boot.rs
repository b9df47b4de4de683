//! The boot sector: where everything else lies.

use std::sync::Arc;

use crate::{
    bytes::{le_u16, le_u32, le_u64},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// A volume: the device and how it is cut up.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) device: Arc<dyn Device>,
    /// Bytes of a cluster.
    pub(super) cluster: u64,
    /// Clusters of the volume; no run leads past them.
    pub(super) clusters: u64,
    /// In bytes.
    pub(super) total: u64,
    /// First cluster of the MFT.
    pub(super) mft: u64,
    /// First cluster of the copy of the MFT's first records.
    pub(super) mirror: u64,
    /// Bytes of an MFT record.
    pub(super) record: usize,
    pub(super) serial: u64,
}

impl Volume {
    /// Reads the boot sector; `None` when it is none of NTFS nor of what looks like it.
    pub(super) fn open(device: &Arc<dyn Device>) -> Result<Option<Self>> {
        if device.size() < BOOT_BYTES as u64 {
            return Ok(None);
        }
        let boot = device.read_array::<BOOT_BYTES>(0)?;
        match (boot.get(3..11), le_u16(&boot, 510)) {
            (Some(NTFS), Some(BOOT_SIGNATURE)) => Self::parse(device, &boot).map(Some),
            (Some(BITLOCKER), Some(BOOT_SIGNATURE)) => {
                Err(Error::Encrypted { what: device.name(), scheme: "BitLocker" })
            }
            // It has no boot code and no signature of it.
            (Some(REFS), _) if boot.get(16..20) == Some(REFS_STRUCTURE) => {
                Err(Error::unsupported(device.name(), "it holds ReFS, which is not read"))
            }
            _ => Ok(None),
        }
    }

    fn parse(device: &Arc<dyn Device>, boot: &[u8]) -> Result<Self> {
        let damaged = |problem: String| Error::damaged("the boot sector of NTFS", problem);
        let short = || damaged("it is too short".into());
        let sector = u64::from(le_u16(boot, 0x0b).ok_or_else(short)?);
        if !(256..=4096).contains(&sector) || !sector.is_power_of_two() {
            return Err(damaged(format!("a sector of {sector} bytes")));
        }
        let per_cluster = *boot.get(0x0d).ok_or_else(short)?;
        // More sectors than fit a byte are written as a negative power of two.
        let per_cluster = match per_cluster {
            1..=128 => u64::from(per_cluster),
            0x81.. if 256 - u32::from(per_cluster) <= 13 => 1 << (256 - u32::from(per_cluster)),
            _ => return Err(damaged(format!("{per_cluster} sectors per cluster"))),
        };
        let cluster = sector * per_cluster;
        if !cluster.is_power_of_two() || cluster > LARGEST_CLUSTER {
            return Err(damaged(format!("a cluster of {cluster} bytes")));
        }
        let total = le_u64(boot, 0x28)
            .and_then(|sectors| sectors.checked_mul(sector))
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or_else(|| damaged("more sectors than can be".into()))?;
        let clusters = total / cluster;
        let record = record_bytes(le_u32(boot, 0x40).ok_or_else(short)? as u8 as i8, cluster)
            .ok_or_else(|| damaged(format!("MFT records of code {:#x}", boot.get(0x40).copied().unwrap_or(0))))?;
        let mft = le_u64(boot, 0x30).ok_or_else(short)?;
        let mirror = le_u64(boot, 0x38).ok_or_else(short)?;
        if mft >= clusters {
            return Err(damaged(format!("the MFT at cluster {mft} of {clusters}")));
        }
        let serial = le_u64(boot, 0x48).ok_or_else(short)?;
        Ok(Self { device: device.clone(), cluster, clusters, total, mft, mirror, record, serial })
    }
}

/// Bytes of a record: so many clusters, or two to the power of the negative.
fn record_bytes(code: i8, cluster: u64) -> Option<usize> {
    let bytes = match code {
        1.. => cluster.checked_mul(code as u64)?,
        -16..=-9 => 1 << -i32::from(code),
        _ => return None,
    };
    (bytes.is_power_of_two() && (512..=LARGEST_RECORD).contains(&bytes)).then_some(bytes as usize)
}

const BOOT_BYTES: usize = 512;
const BOOT_SIGNATURE: u16 = 0xaa55;
/// Who formatted the volume.
const NTFS: &[u8] = b"NTFS    ";
const BITLOCKER: &[u8] = b"-FVE-FS-";
const REFS: &[u8] = b"ReFS\0\0\0\0";
const REFS_STRUCTURE: &[u8] = b"FSRS";
/// Windows 10 1709 and later make clusters of up to 2 MiB.
const LARGEST_CLUSTER: u64 = 2 << 20;
/// Windows makes 1 KiB and, on 4Kn disks, 4 KiB.
const LARGEST_RECORD: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_record_is_in_clusters_or_a_power_of_two() {
        assert_eq!(record_bytes(-10, 4096), Some(1024));
        assert_eq!(record_bytes(2, 512), Some(1024));
        assert_eq!(record_bytes(1, 4096), Some(4096));
        for bad in [0, -1, -8, -17, i8::MIN, 3] {
            assert_eq!(record_bytes(bad, 4096), None, "{bad}");
        }
        assert_eq!(record_bytes(1, 2 << 20), None);
    }
}
