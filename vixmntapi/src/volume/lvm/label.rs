//! Physical volumes: their label, and the areas where the metadata is.

use std::{ops::Range, sync::Arc};

use crate::{
    bytes::{array, le_u32, le_u64, slice},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// What the label of a physical volume says.
#[derive(Debug)]
pub(super) struct Label {
    /// The physical volume's id, without hyphens.
    pub(super) id: String,
    /// Where copies of the metadata are.
    pub(super) areas: Vec<Area>,
}

/// An area with a copy of the metadata.
#[derive(Debug)]
pub(super) struct Area(Range<u64>);

impl Label {
    /// Finds the label in the first sectors of a device. One whose checksum is wrong is none, as LVM2 has it.
    pub(super) fn read(device: &Arc<dyn Device>) -> Result<Option<Self>> {
        let mut head = [0; 4 * SECTOR];
        let len = device.size().min(head.len() as u64) as usize;
        let head = &mut head[..len - len % SECTOR];
        device.read_at(0, head)?;
        for (number, sector) in head.chunks_exact(SECTOR).enumerate() {
            let is_label = sector.starts_with(MAGIC) && slice(sector, 24, 8) == Some(TYPE);
            if !is_label || le_u64(sector, 8) != Some(number as u64) {
                continue;
            }
            if le_u32(sector, 16) == sector.get(20..).map(checksum) {
                return Self::parse(sector, device).map(Some);
            }
            tracing::warn!(device = device.name(), "the label of a physical volume has a wrong checksum");
        }
        Ok(None)
    }

    fn parse(sector: &[u8], device: &Arc<dyn Device>) -> Result<Self> {
        let damaged = |problem: String| Error::damaged(format!("the LVM2 label of {}", device.name()), problem);
        let at = le_u32(sector, 20).unwrap_or(0) as usize;
        let id: [u8; 32] = array(sector, at).ok_or_else(|| damaged(format!("its header is at byte {at}")))?;
        let id = String::from_utf8(id.to_vec()).ok().filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()));
        let id = id.ok_or_else(|| damaged("its id is no text".into()))?;
        // Two lists, each ended by an entry of zeros: where the data is, and where the metadata is.
        let mut entries = (at + 40..).step_by(16).map(|at| Some((le_u64(sector, at)?, le_u64(sector, at + 8)?)));
        let mut list = || {
            let of_list = entries.by_ref().take_while(|entry| *entry != Some((0, 0)));
            of_list.collect::<Option<Vec<_>>>().ok_or_else(|| damaged("its lists do not end".into()))
        };
        list()?;
        let mut areas = Vec::new();
        for (start, len) in list()? {
            let end = start.checked_add(len).filter(|end| *end <= device.size());
            let end = end.ok_or_else(|| damaged(format!("its metadata has {len} bytes from byte {start} on")))?;
            areas.push(Area(start..end));
        }
        Ok(Self { id, areas })
    }
}

impl Area {
    /// The text that is in force. `None` when there is none: the physical volume is in no group, or keeps no copy.
    pub(super) fn read(&self, device: &dyn Device) -> Result<Option<Vec<u8>>> {
        let Range { start, end } = self.0;
        let damaged =
            |problem: String| Error::damaged(format!("LVM2 metadata at byte {start} of {}", device.name()), problem);
        let len = end - start;
        if len < SECTOR as u64 {
            return Err(damaged(format!("its area has {len} bytes")));
        }
        let header: [u8; SECTOR] = device.read_array(start)?;
        if slice(&header, 4, 16) != Some(AREA_MAGIC) {
            return Err(damaged("its header is none".into()));
        }
        if le_u32(&header, 0) != header.get(4..).map(checksum) {
            return Err(damaged("the checksum of its header is wrong".into()));
        }
        if le_u64(&header, 24) != Some(start) {
            return Err(damaged("its header is of another place".into()));
        }
        // The first location is in force; the second is written while a change is under way.
        let place = (le_u64(&header, 40), le_u64(&header, 48), le_u32(&header, 56), le_u32(&header, 60));
        let (Some(offset), Some(size), Some(sum), Some(flags)) = place else { return Ok(None) };
        if offset == 0 || flags & IGNORED != 0 {
            return Ok(None);
        }
        if offset < SECTOR as u64 || offset >= len || size > len - SECTOR as u64 || size > MAX_TEXT {
            return Err(damaged(format!("{size} bytes from byte {offset} of {len} on")));
        }
        // The area is a ring behind its header.
        let first = size.min(len - offset);
        let mut text = device.read_vec(start + offset, first as usize)?;
        text.extend(device.read_vec(start + SECTOR as u64, (size - first) as usize)?);
        if checksum(&text) != sum {
            return Err(damaged("the checksum of its text is wrong".into()));
        }
        Ok(Some(text))
    }
}

/// CRC-32 from LVM2's own beginning, without the inversion at the end.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL_CRC);
    hasher.update(bytes);
    !hasher.finalize()
}

const SECTOR: usize = 512;
const MAGIC: &[u8] = b"LABELONE";
const TYPE: &[u8] = b"LVM2 001";
const AREA_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// `RAW_LOCN_IGNORED`.
const IGNORED: u32 = 1;
/// `INITIAL_CRC` of `lib/misc/crc.h`.
const INITIAL_CRC: u32 = 0xf597_a6cf;
/// Far more than groups with thousands of volumes have.
const MAX_TEXT: u64 = 32 << 20;
