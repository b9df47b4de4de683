//! The allocation map of a disk, computed while it is walked.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
};

use super::{Disk, chain::Piece, holes::Holes};
use crate::{
    error::Result,
    grains::Place,
    image::{MapEntry, MapKind},
};

/// Iterator of [`Disk::map`]. Memory is bounded whatever the size of the disk; a step reads grain tables or
/// asks the file system for holes, never data.
#[derive(Debug)]
pub struct MapIter<'a> {
    disk: &'a Disk,
    /// What was not walked yet.
    range: Range<u64>,
    pieces: VecDeque<Piece>,
    /// The entry that may still grow.
    pending: Option<MapEntry>,
    holes: Holes,
}

/// So many pieces are found at a time.
const STEP: usize = 512;

/// So many bytes are walked at a time: where a child has nothing and its parent many pieces, every step finds out again
/// how far the child's nothing goes.
pub(super) const WINDOW: u64 = 256 << 30;

impl<'a> MapIter<'a> {
    /// `range` lies in the disk.
    pub(super) fn new(disk: &'a Disk, range: Range<u64>) -> Self {
        Self { disk, range, pieces: VecDeque::new(), pending: None, holes: Holes::default() }
    }

    /// Walks on until there are pieces.
    fn fill(&mut self) -> Result<()> {
        let Self { disk, range, pieces, .. } = self;
        let window = range.start..range.end.min(range.start.saturating_add(WINDOW));
        let walked = disk.chain.walk(0, window, &disk.files, &mut |piece| {
            push(pieces, piece);
            Ok(if pieces.len() < STEP { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        // What comes before a failure is still told.
        match pieces.back() {
            Some(last) => range.start = last.range.end,
            None => walked.map(|_| ())?,
        }
        Ok(())
    }

    /// The next piece as an entry. Flat data are cut at the holes of their file.
    fn next_piece(&mut self) -> Result<Option<MapEntry>> {
        if self.pieces.is_empty() && !self.range.is_empty() {
            self.fill()?;
        }
        let Some(piece) = self.pieces.pop_front() else { return Ok(None) };
        let Some(range) = piece.flat_range() else { return Ok(Some(piece.entry(false))) };
        let run = match self.holes.known(piece.file, &range) {
            Some(run) => run,
            None => {
                let map = self.disk.files.backing(piece.file).map(range.clone())?;
                self.holes.learn(piece.file, &range, map)
            }
        };
        let (first, rest) = piece.split(run.range.end - run.range.start);
        if let Some(rest) = rest {
            self.pieces.push_front(rest);
        }
        Ok(Some(first.entry(run.hole)))
    }

    fn step(&mut self) -> Result<Option<MapEntry>> {
        while let Some(entry) = self.next_piece()? {
            match &mut self.pending {
                Some(pending) if pending.joins(&entry) => pending.range.end = entry.range.end,
                pending => {
                    if let Some(done) = pending.replace(entry) {
                        return Ok(Some(done));
                    }
                }
            }
        }
        Ok(self.pending.take())
    }
}

impl Iterator for MapIter<'_> {
    type Item = Result<MapEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.range.start = self.range.end;
            self.pieces.clear();
            self.pending = None;
        }
        step.transpose()
    }
}

impl std::iter::FusedIterator for MapIter<'_> {}

impl Piece {
    /// The piece as a map tells it; `hole` when its file has none of its bytes.
    pub(super) fn entry(&self, hole: bool) -> MapEntry {
        let kind = match self.place {
            _ if hole => MapKind::Unallocated,
            Place::Unallocated => MapKind::Unallocated,
            Place::Zero => MapKind::Zero,
            Place::At(_) | Place::Packed(_) => MapKind::Data,
        };
        let entry = MapEntry::new(self.range.clone(), kind);
        let entry = entry.compressed(matches!(self.place, Place::Packed(_)));
        self.layer.map_or(entry.clone(), |layer| entry.in_layer(layer))
    }
}

/// Appends a piece, to the last one where a map tells no difference.
fn push(pieces: &mut VecDeque<Piece>, piece: Piece) {
    let alike = |last: &Piece| {
        let places = match (last.place, piece.place) {
            (Place::At(_), Place::At(_)) => !last.flat && !piece.flat,
            (Place::Packed(_), Place::Packed(_)) => true,
            (a, b) => a == b,
        };
        places && (last.layer == piece.layer || last.place == Place::Unallocated)
    };
    match pieces.back_mut() {
        Some(last) if alike(last) => last.range.end = piece.range.end,
        _ => pieces.push_back(piece),
    }
}
