//! The head of a dynamic disk: which disk of which group it is, where its data and its database are.

use crate::{
    bytes::{be_u64, slice, until_nul},
    device::{Device, DeviceExt},
    error::{Error, Result},
    part::{Role, Table},
};

/// What the head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PrivHead {
    /// The disk's id: digits without hyphens, in lower case.
    pub(super) disk: String,
    /// The group's id.
    pub(super) group: String,
    /// Bytes of a sector.
    pub(super) sector: u64,
    /// Where the data begins, in bytes.
    pub(super) data: u64,
    /// Where the database begins, in bytes.
    pub(super) config: u64,
    /// Bytes of the database.
    pub(super) config_len: u64,
}

impl PrivHead {
    /// Reads the head of a disk, or one of its copies.
    pub(super) fn read(device: &dyn Device, table: &Table) -> Result<Self> {
        let sector = u64::from(table.sector_size);
        let last = device.size().saturating_sub(sector);
        let metadata = table.partitions.iter().find(|partition| partition.kind.role() == Role::LdmMetadata);
        let places = match metadata {
            // In a GPT the database has a partition of its own; the head is in its last sector.
            Some(partition) => {
                let (start, end) = (partition.range.start, partition.range.end);
                [end.saturating_sub(sector), start.saturating_add(COPY * sector)]
            }
            // Else it is in front of the first partition, and the database takes the end of the disk.
            None => [FIRST * sector, last],
        };
        let mut problem = None;
        for place in places {
            match Self::parse(&device.read_vec(place, LEN)?, sector, device) {
                Ok(head) => return Ok(head),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        let nothing = || Error::damaged(format!("the head of dynamic {}", device.name()), "there is none");
        Err(problem.unwrap_or_else(nothing))
    }

    fn parse(bytes: &[u8], sector: u64, device: &dyn Device) -> Result<Self> {
        let damaged = |problem: String| Error::damaged(format!("the head of dynamic {}", device.name()), problem);
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it is none".into()));
        }
        let number = |at: usize, what: &str| {
            let sectors = be_u64(bytes, at).unwrap_or(u64::MAX);
            let bytes = sectors.checked_mul(sector).filter(|bytes| *bytes <= device.size());
            bytes.ok_or_else(|| damaged(format!("{what} {sectors} sectors")))
        };
        let text = |at| plain(until_nul(slice(bytes, at, 64).unwrap_or_default()));
        let head = Self {
            disk: text(0x30),
            group: text(0xb0),
            sector,
            data: number(0x11b, "its data begins after")?,
            config: number(0x12b, "its database begins after")?,
            config_len: number(0x133, "its database has")?,
        };
        let end = head.config.checked_add(head.config_len).filter(|end| *end <= device.size());
        if end.is_none() || head.config_len > MAX_CONFIG {
            return Err(damaged(format!("its database has {} bytes from byte {} on", head.config_len, head.config)));
        }
        Ok(head)
    }
}

/// A GUID as its digits alone.
pub(super) fn plain(guid: &[u8]) -> String {
    let digits = guid.iter().filter(|byte| byte.is_ascii_hexdigit());
    digits.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

const MAGIC: &[u8] = b"PRIVHEAD";
/// `OFF_PRIV1`: the sector of the head.
const FIRST: u64 = 6;
/// `OFF_PRIV2`: the sector of its copy within the database.
const COPY: u64 = 1856;
const LEN: usize = 512;
/// It has 1 MiB with sectors of 512 bytes, and 8 MiB with those of 4096.
const MAX_CONFIG: u64 = 32 << 20;
