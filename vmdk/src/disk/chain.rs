//! A disk without its files: links, their extents, and the walk that finds the bytes of a range. No I/O: shared by
//! the blocking and the asynchronous disk.

use std::{
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use super::{Format, LinkInfo};
use crate::{
    cache::FileId,
    descriptor::{Cid, Descriptor},
    error::{Error, Result},
    grains::{Blocks, Grains, Place},
};

/// The links of a disk, the disk itself first.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(super) links: Vec<Link>,
}

/// A link: a descriptor and its extents laid end to end.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) capacity: u64,
    pub(super) descriptor: Option<Described>,
    pub(super) slots: Vec<Slot>,
}

/// A descriptor as it was when the disk was opened, and where it is kept.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) descriptor: Descriptor,
    pub(super) file: FileId,
    /// Where it is inside a sparse file; `None` for a text file of its own.
    pub(super) embedded: Option<Range<u64>>,
}

/// An extent and its place in the disk.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) range: Range<u64>,
    pub(super) writable: bool,
    pub(super) shape: Shape,
}

/// How the bytes of an extent are kept.
#[derive(Debug)]
pub(super) enum Shape {
    /// Raw, from `offset` in the file.
    Flat { file: FileId, offset: u64 },
    /// In grains. Only these let a parent show through.
    Sparse { file: FileId, grains: Box<Grains> },
    /// No bytes.
    Zero,
}

/// A run of the disk with one answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The bytes, as offsets in the disk.
    pub(super) range: Range<u64>,
    /// The link with the answer; `None` when no link has one.
    pub(super) layer: Option<usize>,
    pub(super) place: Place,
    /// The file of a place that is in one.
    pub(super) file: FileId,
    /// The bytes of a flat file, which may have holes.
    pub(super) flat: bool,
}

/// Takes the pieces of a walk, and may end it.
pub(super) type See<'a, S> = dyn FnMut(Piece) -> Result<ControlFlow<()>, S> + 'a;

impl Chain {
    /// A disk of the `len` bytes of a file.
    pub(super) fn raw(path: &Path, file: FileId, len: u64, writable: bool) -> Result<Self> {
        let mut link = Link::new(path.to_owned(), Format::Raw, None);
        link.push(Shape::Flat { file, offset: 0 }, len, writable)?;
        Ok(Self { links: vec![link] })
    }

    /// Size of the disk in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.links[0].capacity
    }

    /// The name of the disk itself, for errors.
    pub(super) fn name(&self) -> String {
        self.links[0].path.display().to_string()
    }

    /// Shows the pieces of `range`, ascending and without gaps, as `link` and the links under it have them.
    pub(super) fn walk<B: Blocks>(
        &self,
        link: usize,
        mut range: Range<u64>,
        blocks: &B,
        see: &mut See<'_, B::Stop>,
    ) -> Result<ControlFlow<()>, B::Stop> {
        let nothing = |range| Piece { range, layer: None, place: Place::Unallocated, file: 0, flat: false };
        let Some(this) = self.links.get(link) else {
            return see(nothing(range));
        };
        while range.start < range.end {
            let Some(slot) = this.slot(range.start) else {
                // Past the end of a parent that is smaller than its child; links under it count for nothing there.
                return see(nothing(range));
            };
            let part = slot.part(&range);
            let at = |len: u64| range.start..range.start + len;
            let (len, flow) = match &slot.shape {
                Shape::Zero => {
                    let len = part.end - part.start;
                    (len, see(Piece { range: at(len), layer: Some(link), place: Place::Zero, file: 0, flat: false })?)
                }
                Shape::Flat { file, offset } => {
                    let (len, place) = (part.end - part.start, Place::At(offset + part.start));
                    (len, see(Piece { range: at(len), layer: Some(link), place, file: *file, flat: true })?)
                }
                Shape::Sparse { file, grains } => match grains.run(*file, blocks, part.clone()) {
                    Ok(run) if run.place == Place::Unallocated => {
                        (run.len, self.walk(link + 1, at(run.len), blocks, see)?)
                    }
                    Ok(run) => {
                        let (range, layer) = (at(run.len), Some(link));
                        (run.len, see(Piece { range, layer, place: run.place, file: *file, flat: false })?)
                    }
                    Err(stop) => {
                        blocks.go_on(stop)?;
                        let len = grains.part_end::<B>(part.start).min(part.end) - part.start;
                        // The links under this one will be asked too, most likely: learn what they miss as well.
                        (len, self.walk(link + 1, at(len), blocks, see)?)
                    }
                },
            };
            if flow.is_break() {
                return Ok(flow);
            }
            range.start += len;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A value of the disk data base, from the first of `links` that has it.
    pub(super) fn ddb_get(links: &[Link], key: &str) -> Option<String> {
        let value = |link: &Link| Some(link.descriptor.as_ref()?.descriptor.ddb_get(key)?.into_owned());
        links.iter().find_map(value)
    }

    /// What the caller may know of each link; `names` gives the name of a file.
    pub(super) fn describe(&self, names: impl Fn(FileId) -> String) -> Vec<LinkInfo> {
        let info = |link: &Link| LinkInfo {
            path: link.path.clone(),
            format: link.format,
            create_type: link.descriptor.as_ref().and_then(|described| described.descriptor.create_type()),
            capacity: link.capacity,
            data_files: link.slots.iter().filter_map(|slot| slot.shape.file()).map(&names).collect(),
        };
        self.links.iter().map(info).collect()
    }
}

impl Link {
    pub(super) fn new(path: PathBuf, format: Format, descriptor: Option<Described>) -> Self {
        Self { path, format, capacity: 0, descriptor, slots: Vec::new() }
    }

    /// Appends an extent of `len` bytes; empty ones are left out.
    pub(super) fn push(&mut self, shape: Shape, len: u64, writable: bool) -> Result<()> {
        let end = self.capacity.checked_add(len).filter(|&end| i64::try_from(end).is_ok());
        let end =
            end.ok_or_else(|| Error::malformed(self.path.display().to_string(), "the sizes of the extents overflow"))?;
        if len > 0 {
            self.slots.push(Slot { range: self.capacity..end, writable, shape });
        }
        self.capacity = end;
        Ok(())
    }

    /// The extent with the byte at `offset`.
    pub(super) fn slot(&self, offset: u64) -> Option<&Slot> {
        // Most links have one extent.
        match self.slots.first() {
            Some(first) if offset < first.range.end => Some(first),
            _ => self.slots.get(self.slots.partition_point(|slot| slot.range.end <= offset)),
        }
    }

    /// `CID` and `parentCID`; what has no descriptor has no parent.
    pub(super) fn content_ids(&self) -> Result<(Option<Cid>, Cid)> {
        match &self.descriptor {
            None => Ok((None, Cid::NONE)),
            Some(Described { descriptor, .. }) => {
                // Only a link with a child needs a CID; a descriptor without one still opens.
                Ok((descriptor.cid().ok(), self.named(descriptor.parent_cid())?))
            }
        }
    }

    /// Puts this link's file name into a failure of the descriptor, which does not know it.
    pub(super) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Malformed { problem, .. } => Error::malformed(self.path.display().to_string(), problem),
            Error::NotSupported { format, reason, .. } => {
                Error::not_supported(self.path.display().to_string(), format, reason)
            }
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

impl Shape {
    /// The file with the bytes.
    pub(super) fn file(&self) -> Option<FileId> {
        match self {
            Self::Flat { file, .. } | Self::Sparse { file, .. } => Some(*file),
            Self::Zero => None,
        }
    }
}
