//! Compressed attributes.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::{lznt1, plain::Plain};
use crate::{
    error::{Error, Result},
    fs::{Content, Extent, ExtentKind},
};

/// An attribute that is compressed with LZNT1, unit by unit.
#[derive(Debug)]
pub(super) struct Packed {
    plain: Plain,
    /// Clusters that are compressed together.
    clusters: u64,
    /// Bytes of those.
    unit: u64,
    /// The unit that was read last.
    last: Mutex<Option<(u64, Arc<[u8]>)>>,
}

/// How a unit is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Not,
    AsIs,
    /// In this many bytes.
    Packed(usize),
}

impl Packed {
    /// Takes an attribute of which two to the power of `unit` clusters are compressed together.
    pub(super) fn new(plain: Plain, unit: u8) -> Result<Self> {
        let clusters = 1_u64.checked_shl(u32::from(unit)).unwrap_or(0);
        let bytes = clusters.saturating_mul(plain.volume.cluster);
        if !(4096..=LARGEST_UNIT).contains(&bytes) {
            return Err(Error::damaged(plain.what, format!("2^{unit} clusters are compressed together")));
        }
        Ok(Self { plain, clusters, unit: bytes, last: Mutex::default() })
    }

    fn stored(&self, unit: u64) -> Result<Stored> {
        let damaged = |problem: &str| Err(Error::damaged(&self.plain.what, format!("unit {unit}: {problem}")));
        let (first, end) = (unit * self.clusters, ((unit + 1) * self.clusters).min(self.plain.runs.end()));
        let (mut at, mut there) = (first, 0);
        while at < end {
            let Some(run) = self.plain.runs.at(at) else { return damaged("it is not mapped") };
            let len = run.len.min(end - at);
            if run.at.is_some() {
                if there != at - first {
                    return damaged("clusters follow a hole");
                }
                there += len;
            }
            at += len;
        }
        Ok(match there {
            0 => Stored::Not,
            all if all == end - first => Stored::AsIs,
            some => Stored::Packed((some * self.plain.volume.cluster) as usize),
        })
    }

    /// A unit in the clear.
    fn unpacked(&self, unit: u64, len: usize) -> Result<Arc<[u8]>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last().as_ref().filter(|(number, _)| *number == unit) {
            return Ok(bytes.clone());
        }
        let mut packed = vec![0; len];
        self.plain.read_mapped(unit * self.unit, &mut packed)?;
        let bytes: Arc<[u8]> = lznt1::decompress(&packed, self.unit as usize)
            .ok_or_else(|| Error::damaged(&self.plain.what, format!("unit {unit} is no LZNT1")))?
            .into();
        *last() = Some((unit, bytes.clone()));
        Ok(bytes)
    }

    /// Units from one on that are stored alike, up to byte `end`: how, and where they end.
    fn alike(&self, at: u64, end: u64) -> Result<(Stored, u64)> {
        let mut unit = at / self.unit;
        let stored = self.stored(unit)?;
        unit += 1;
        while !matches!(stored, Stored::Packed(_)) && unit * self.unit < end && self.stored(unit)? == stored {
            // As far as the run goes: a hole may have more units than can be counted.
            let run = self.plain.runs.at(unit * self.clusters);
            unit += run.map_or(1, |run| (run.len / self.clusters).max(1));
        }
        Ok((stored, (unit * self.unit).min(end)))
    }
}

impl Content for Packed {
    fn size(&self) -> u64 {
        self.plain.sizes.data
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let written = self.plain.sizes.initialized.saturating_sub(offset).min(len as u64) as usize;
        let mut done = 0;
        while done < written {
            let at = offset + done as u64;
            let (stored, stop) = self.alike(at, offset + written as u64)?;
            let next = done + (stop - at) as usize;
            let piece = buf.get_mut(done..next).unwrap_or_default();
            match stored {
                Stored::Not => piece.fill(0),
                Stored::AsIs => self.plain.read_mapped(at, piece)?,
                Stored::Packed(len) => {
                    let unit = self.unpacked(at / self.unit, len)?;
                    let from = (at % self.unit) as usize;
                    piece.copy_from_slice(unit.get(from..from + piece.len()).unwrap_or_default());
                }
            }
            done = next;
        }
        buf.get_mut(written..len).unwrap_or_default().fill(0);
        Ok(len)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let end = range.end.min(self.size());
        let mut at = range.start;
        let mut extents: Vec<Extent> = Vec::new();
        while at < end {
            let (stored, stop) = self.alike(at, end)?;
            match stored {
                Stored::AsIs => extents.extend(self.plain.extents(at..stop)?),
                Stored::Not => extents.push(Extent::new(at..stop, ExtentKind::Hole)),
                Stored::Packed(_) => match extents.last_mut() {
                    Some(last) if last.kind == ExtentKind::Encoded => last.range.end = stop,
                    _ => extents.push(Extent::new(at..stop, ExtentKind::Encoded)),
                },
            }
            at = stop;
        }
        Ok(extents)
    }
}

/// Windows compresses 64 KiB together; with large clusters at most 16 of them.
const LARGEST_UNIT: u64 = 32 << 20;
