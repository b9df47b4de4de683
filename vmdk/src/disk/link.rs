//! One link of a chain: a descriptor and its extents laid end to end.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use super::Format;
use crate::{
    descriptor::{Cid, Descriptor},
    error::{Error, Result},
    extent::{Backing, Extent},
};

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) capacity: u64,
    pub(super) descriptor: Option<DescriptorFile>,
    slots: Vec<Slot>,
}

/// An extent and its place in the disk.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) range: Range<u64>,
    pub(super) writable: bool,
    pub(super) extent: Extent,
}

/// A descriptor and where it is kept.
#[derive(Debug)]
pub(super) struct DescriptorFile {
    current: RwLock<Descriptor>,
    backing: Backing,
    /// Where it is inside a sparse file; `None` for a text file of its own.
    embedded: Option<Range<u64>>,
}

impl Link {
    pub(super) fn new(path: PathBuf, format: Format, descriptor: Option<DescriptorFile>) -> Self {
        Self { path, format, capacity: 0, descriptor, slots: Vec::new() }
    }

    /// Appends an extent of `len` bytes; empty ones are left out.
    pub(super) fn push(&mut self, extent: Extent, len: u64, writable: bool) -> Result<()> {
        let end = self.capacity.checked_add(len).filter(|&end| i64::try_from(end).is_ok());
        let end =
            end.ok_or_else(|| Error::malformed(self.path.display().to_string(), "the sizes of the extents overflow"))?;
        if len > 0 {
            self.slots.push(Slot { range: self.capacity..end, writable, extent });
        }
        self.capacity = end;
        Ok(())
    }

    /// Number and slot of the extent with the byte at `offset`, which lies in the link.
    pub(super) fn slot(&self, offset: u64) -> Option<(usize, &Slot)> {
        let number = self.slots.partition_point(|slot| slot.range.end <= offset);
        Some((number, self.slots.get(number)?))
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.slots.iter().try_for_each(|slot| slot.extent.flush())?;
        self.descriptor.as_ref().map_or(Ok(()), |descriptor| descriptor.backing.sync())
    }

    pub(super) fn close(&self) -> Result<()> {
        self.slots.iter().try_for_each(|slot| slot.extent.close())?;
        self.flush()
    }

    /// `CID` and `parentCID`; what has no descriptor has no parent.
    pub(super) fn content_ids(&self) -> Result<(Option<Cid>, Cid)> {
        match &self.descriptor {
            None => Ok((None, Cid::NONE)),
            Some(file) => {
                let parent = self.named(file.read(Descriptor::parent_cid))?;
                // Only a link with a child needs a CID; a descriptor without one still opens.
                Ok((file.read(Descriptor::cid).ok(), parent))
            }
        }
    }

    /// Puts this link's file name into a failure of the descriptor, which does not know it.
    pub(super) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Malformed { problem, .. } => Error::malformed(self.path.display().to_string(), problem),
            other => other,
        })
    }
}

impl Slot {
    /// The part of `range` in this extent, relative to it.
    pub(super) fn part(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.max(self.range.start);
        let end = range.end.min(self.range.end).max(start);
        start - self.range.start..end - self.range.start
    }
}

impl DescriptorFile {
    pub(super) fn new(descriptor: Descriptor, backing: Backing, embedded: Option<Range<u64>>) -> Self {
        Self { current: RwLock::new(descriptor), backing, embedded }
    }

    pub(super) fn read<T>(&self, view: impl FnOnce(&Descriptor) -> T) -> T {
        view(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the descriptor in the file and in memory. A change that keeps the length, such as a new
    /// content id, is one write inside a sector.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.to_bytes();
        let mut next = current.clone();
        change(&mut next)?;
        let new = next.to_bytes();
        if new == old {
            return Ok(());
        }
        let (start, room) = match &self.embedded {
            Some(range) => (range.start, range.end - range.start),
            None => (0, crate::descriptor::MAX_DESCRIPTOR_BYTES as u64),
        };
        if new.len() as u64 > room {
            let problem = format!("{} bytes do not fit in the {room} bytes kept for it", new.len());
            return Err(Error::invalid("descriptor", problem));
        }
        if new.len() == old.len() {
            let same = |(a, b): &(&u8, &u8)| a == b;
            let first = old.iter().zip(&new).take_while(same).count();
            let last = new.len() - old.iter().rev().zip(new.iter().rev()).take_while(same).count();
            self.backing.write(start + first as u64, &new[first..last])?;
        } else {
            let mut padded = new;
            // NULs over what remains of a longer embedded descriptor; a text file is cut instead.
            if self.embedded.is_some() {
                padded.resize(padded.len().max(old.len()), 0);
            }
            self.backing.write(start, &padded)?;
            if self.embedded.is_none() {
                self.backing.set_len(padded.len() as u64)?;
            }
        }
        *current = next;
        Ok(())
    }
}
