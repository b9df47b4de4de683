//! Compressed grains by position: where to read, and what the bytes there hold. Any number of threads inflate at once.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    cache::{Block, Cache, FileId, Weight},
    error::{Error, Result},
    grains::Packed,
    layout::GRAIN_MARKER_BYTES,
    stream::GrainInflater,
};

/// The inflaters of a disk, and the grains that they have made, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Unpacker {
    grains: Cache<Arc<Kept>>,
    idle: Mutex<Vec<Tools>>,
}

/// A grain that was inflated, for the table entry that its marker fits: another one may lead to the same marker.
#[derive(Debug)]
struct Kept {
    sector: u64,
    bytes: Vec<u8>,
}

/// What inflating a grain needs.
#[derive(Debug)]
struct Tools {
    inflater: GrainInflater,
    packed: Vec<u8>,
}

/// What the bytes that were read for a grain hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// The grain's data, at these places.
    All { start: usize, end: usize },
    /// A part: so many bytes are needed from the marker on.
    Part(u64),
}

/// So many inflaters are kept for the next reads.
const MOST_IDLE: usize = 16;

impl Unpacker {
    /// Keeps up to `bytes` bytes of grains.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { grains: Cache::new(bytes), idle: Mutex::default() }
    }

    /// Fills `out` with the bytes of a run in the file `name`; `read` brings bytes of the file.
    pub(crate) fn read(
        &self,
        (file, name): (FileId, &str),
        packed: &Packed,
        out: &mut [u8],
        read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.read_kept(file, packed, out) {
            return Ok(());
        }
        self.with_tools(|tools| {
            let data = packed.fetch(name, &mut tools.packed, read)?;
            self.inflate(file, name, packed, data, &mut tools.inflater, out)
        })
    }

    /// As [`read`](Self::read), of bytes that were read already and are [`Held::All`].
    #[cfg(feature = "async")]
    pub(crate) fn unpack(
        &self,
        (file, name): (FileId, &str),
        packed: &Packed,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        self.with_tools(|tools| self.inflate(file, name, packed, data, &mut tools.inflater, out))
    }

    /// Fills `out` from a grain that is still there; whether it was.
    pub(crate) fn read_kept(&self, file: FileId, packed: &Packed, out: &mut [u8]) -> bool {
        let kept = self.grains.get(file, packed.key()).filter(|grain| grain.sector == packed.sector);
        kept.is_some_and(|grain| {
            out.copy_from_slice(&grain.bytes[packed.within as usize..packed.within as usize + out.len()]);
            true
        })
    }

    fn inflate(
        &self,
        file: FileId,
        name: &str,
        packed: &Packed,
        data: &[u8],
        inflater: &mut GrainInflater,
        out: &mut [u8],
    ) -> Result<()> {
        let wanted = packed.grain_len as usize;
        let damaged = |problem: String| Error::malformed(name, format!("{}: {problem}", packed.title()));
        if packed.within == 0 && out.len() as u64 == packed.grain_bytes {
            // Whoever reads whole grains goes through the disk and will not come back.
            return inflater.unpack_whole(data, out, wanted).map_err(damaged);
        }
        let mut grain = vec![0; packed.grain_bytes as usize];
        inflater.unpack_whole(data, &mut grain, wanted).map_err(damaged)?;
        out.copy_from_slice(&grain[packed.within as usize..packed.within as usize + out.len()]);
        self.grains.insert(file, packed.key(), Arc::new(Kept { sector: packed.sector, bytes: grain }));
        Ok(())
    }

    fn with_tools<T>(&self, work: impl FnOnce(&mut Tools) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let tools = idle().pop();
        let mut tools = tools.unwrap_or_else(|| Tools { inflater: GrainInflater::new(), packed: Vec::new() });
        let done = work(&mut tools);
        let mut idle = idle();
        if idle.len() < MOST_IDLE {
            idle.push(tools);
        }
        done
    }
}

impl Packed {
    /// Looks at bytes of the file `name` from the marker on.
    pub(crate) fn look(&self, name: &str, bytes: &[u8]) -> Result<Held> {
        let bad = |problem: String| Err(Error::malformed(name, format!("{}: {problem}", self.title())));
        let Some((marker, _)) = bytes.split_first_chunk::<GRAIN_MARKER_BYTES>() else {
            return bad("it lies beyond the end of the file".to_owned());
        };
        let [a, b, c, d, e, f, g, h, size @ ..] = *marker;
        let (sector, size) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes(size));
        if size == 0 || sector != self.sector {
            return bad(format!("there is a marker of sector {sector} and {size} bytes instead"));
        }
        if u64::from(size) > self.grain_bytes * 2 + 64 {
            return bad(format!("it has {size} compressed bytes"));
        }
        let end = GRAIN_MARKER_BYTES as u64 + u64::from(size);
        if end > self.most {
            return bad(format!("its {size} compressed bytes go beyond the end of the file"));
        }
        if end > bytes.len() as u64 {
            return Ok(Held::Part(end));
        }
        Ok(Held::All { start: GRAIN_MARKER_BYTES, end: end as usize })
    }

    /// Reads the grain's data into `buf`, which is larger than that.
    fn fetch<'a>(
        &self,
        name: &str,
        buf: &'a mut Vec<u8>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<&'a [u8]> {
        buf.resize(self.room as usize, 0);
        read(self.marker, buf)?;
        let mut held = self.look(name, buf)?;
        if let Held::Part(needed) = held {
            // At most twice a grain.
            buf.resize(needed as usize, 0);
            read(self.marker, buf)?;
            held = self.look(name, buf)?;
        }
        match held {
            Held::All { start, end } => Ok(&buf[start..end]),
            Held::Part(_) => Err(Error::malformed(name, format!("{}: it changes while it is read", self.title()))),
        }
    }

    /// Bytes from the marker on that a grain can have.
    #[cfg(feature = "async")]
    pub(crate) fn most_bytes(&self) -> u64 {
        (GRAIN_MARKER_BYTES as u64 + self.grain_bytes * 2 + 64).min(self.most)
    }

    fn key(&self) -> Block {
        // Grains are at most 32 MiB.
        Block { offset: self.marker, len: self.grain_bytes as u32 }
    }

    fn title(&self) -> String {
        format!("the compressed grain at offset {}, of disk sector {}", self.marker, self.sector)
    }
}

impl Weight for Arc<Kept> {
    fn weight(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(room: u64, most: u64) -> Packed {
        Packed { marker: 512, sector: 128, grain_bytes: 65536, grain_len: 65536, within: 0, room, most }
    }

    fn marker(sector: u64, size: u32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &size.to_le_bytes()].concat()
    }

    #[test]
    fn a_marker_must_fit_the_table_and_the_bounds() {
        let packed = packed(512, 100_000);
        let padded = |marker: Vec<u8>| [marker, vec![0; 500]].concat();
        assert_eq!(packed.look("x", &padded(marker(128, 500))).unwrap(), Held::All { start: 12, end: 512 });
        assert_eq!(packed.look("x", &padded(marker(128, 501))).unwrap(), Held::Part(513));
        assert_eq!(packed.look("x", &padded(marker(128, 99_988))).unwrap(), Held::Part(100_000));
        for (sector, size) in [(0, 500), (128, 0), (128, 99_989), (128, 131_137), (u64::MAX, u32::MAX)] {
            assert!(packed.look("x", &padded(marker(sector, size))).is_err(), "{sector} {size}");
        }
        assert!(packed.look("x", &[0; 11]).is_err());
    }
}
