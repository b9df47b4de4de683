//! A stored disk in parts that are treated as one.

use std::ops::Range;

use futures_core::Stream;
use futures_util::stream;

use crate::{
    error::{DiskError, Error, Result},
    repository::{ChunkId, DiskReader, Leaf, SLOTS, Slot},
};

use super::RUN;

/// A part of a stored disk that is treated as one.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Zero or unallocated.
    Zero,
    /// Chunks, each with its number on the disk.
    Chunks(Vec<(u64, ChunkId)>),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Cuts areas of a stored disk into pieces of one kind: chunks in runs of up to 4 MiB, zeros in runs of up to `zeros`
/// bytes.
pub(super) fn pieces(
    disk: &DiskReader,
    zeros: u64,
    areas: Vec<Range<u64>>,
) -> impl Stream<Item = Result<Piece>> + Send + '_ {
    let shape = disk.tree().shape();
    let size = u64::from(shape.chunk_size);
    let range_of = move |from: u64, to: u64| from * size..(to * size).min(shape.capacity);
    let mut areas = on_grid(areas, size, shape.chunks());
    areas.reverse();
    stream::try_unfold(areas, move |mut areas| async move {
        let Some(Range { start: from, end: behind }) = areas.pop() else { return Ok(None) };
        let most = |bytes: u64| from.saturating_add((bytes / size).max(1));
        let (slot, page, end) = match disk.tree().leaf(from).await? {
            Leaf::Uniform { slot, end } => (slot, None, end.min(behind)),
            Leaf::Page { page, end } => (page.slot((from % SLOTS as u64) as usize), Some(page), end.min(behind)),
        };
        let slot_at = |at: u64| match &page {
            Some(page) => page.slot((at % SLOTS as u64) as usize),
            None => slot,
        };
        let (content, to) = if let Slot::Ref(_) = slot {
            let mut chunks = Vec::new();
            let mut to = from;
            while to < end.min(most(RUN))
                && let Slot::Ref(id) = slot_at(to)
            {
                chunks.push((to, ChunkId(id)));
                to += 1;
            }
            (Content::Chunks(chunks), to)
        } else {
            let limit = end.min(most(zeros));
            let to = match &page {
                None => limit,
                Some(_) => (from..limit).find(|&at| matches!(slot_at(at), Slot::Ref(_))).unwrap_or(limit),
            };
            (Content::Zero, to)
        };
        if to < behind {
            areas.push(to..behind);
        }
        Ok(Some((Piece { range: range_of(from, to), content }, areas)))
    })
}

/// The chunks that areas touch, as ranges of their numbers that neither overlap nor touch.
fn on_grid(areas: Vec<Range<u64>>, size: u64, chunks: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for area in areas.into_iter().filter(|area| !area.is_empty()) {
        let (start, end) = (area.start / size, area.end.div_ceil(size).min(chunks));
        match joined.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ if start < end => joined.push(start..end),
            _ => {}
        }
    }
    joined
}

/// Says what failed of a disk that is restored or compared.
pub(super) fn failed(disk: &DiskReader, operation: &'static str, range: &Range<u64>, source: DiskError) -> Error {
    super::failed(operation, disk.record().key, range, source)
}
