//! The allocation map of a disk, computed while it is walked.

use std::{collections::VecDeque, ops::Range};

use super::Disk;
use crate::{
    error::Result,
    extent::Extent,
    grains::Place,
    image::{MapEntry, MapKind},
    source::{SourceMap, SourceRun},
};

/// Iterator of [`Disk::map`]. Memory is bounded whatever the size of the disk; a step reads grain tables or
/// asks the file system for holes, never data.
#[derive(Debug)]
pub struct MapIter<'a> {
    disk: &'a Disk,
    range: Range<u64>,
    /// The entry that may still grow.
    pending: Option<MapEntry>,
    /// Holes of flat files asked for in advance, for each link: offsets in the disk.
    ahead: Vec<VecDeque<SourceRun>>,
}

impl<'a> MapIter<'a> {
    /// `range` lies in the disk.
    pub(super) fn new(disk: &'a Disk, range: Range<u64>) -> Self {
        Self { disk, range, pending: None, ahead: vec![VecDeque::new(); disk.links.len()] }
    }

    /// Kind and length of what `link` and the links under it have at the start of `range`.
    fn resolve(&mut self, mut link: usize, range: Range<u64>) -> Result<(MapKind, u64)> {
        let start = range.start;
        let mut end = range.end;
        loop {
            let Some(this) = self.disk.links.get(link) else {
                return Ok((MapKind::Unallocated, end - start));
            };
            let Some((_, slot)) = this.slot(start) else {
                // This link ends before the disk does; links under it count for nothing there.
                return Ok((MapKind::Unallocated, end - start));
            };
            let part = slot.part(&(start..end));
            let (kind, len) = match &slot.extent {
                Extent::Flat { backing, offset } => {
                    let shift = slot.range.start;
                    let run = self.flat_run(link, start, || {
                        let map = backing.map(offset + part.start..offset + part.end)?;
                        Ok(to_disk(map, *offset, shift, shift + part.start..shift + part.end))
                    })?;
                    let kind = if run.hole { MapKind::Unallocated } else { MapKind::Data };
                    (kind, run.range.end.min(shift + part.end) - start)
                }
                extent => {
                    let run = extent.run(part)?;
                    let kind = match run.place {
                        Place::Unallocated => MapKind::Unallocated,
                        Place::Zero => MapKind::Zero,
                        Place::At(_) => MapKind::Data,
                    };
                    (kind, run.len)
                }
            };
            end = end.min(start + len);
            // Only sparse extents let a parent show through: a hole of a flat file is zero.
            if kind != MapKind::Unallocated || !matches!(slot.extent, Extent::Sparse(_)) {
                return Ok((kind, end - start));
            }
            link += 1;
        }
    }

    /// The run with `start`, from what is known or from `ask`.
    fn flat_run(&mut self, link: usize, start: u64, ask: impl FnOnce() -> Result<Vec<SourceRun>>) -> Result<SourceRun> {
        let ahead = &mut self.ahead[link];
        while ahead.front().is_some_and(|run| run.range.end <= start) {
            ahead.pop_front();
        }
        if !ahead.front().is_some_and(|run| run.range.contains(&start)) {
            *ahead = ask()?.into();
        }
        let known = ahead.front().filter(|run| run.range.contains(&start)).cloned();
        // A source that answers beside the question is taken to know nothing.
        Ok(known.unwrap_or(SourceRun { range: start..u64::MAX, hole: false }))
    }

    fn step(&mut self) -> Result<Option<MapEntry>> {
        while self.range.start < self.range.end {
            let start = self.range.start;
            let (kind, len) = self.resolve(0, self.range.clone())?;
            let end = start + len;
            self.range.start = end;
            match &mut self.pending {
                Some(entry) if entry.kind == kind => entry.range.end = end,
                pending => {
                    if let Some(done) = pending.replace(MapEntry::new(start..end, kind)) {
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
            self.pending = None;
        }
        step.transpose()
    }
}

impl std::iter::FusedIterator for MapIter<'_> {}

/// Turns offsets in a file into offsets in the disk.
fn to_disk(map: SourceMap, file_offset: u64, shift: u64, asked: Range<u64>) -> Vec<SourceRun> {
    match map {
        SourceMap::AllData => vec![SourceRun { range: asked, hole: false }],
        SourceMap::Runs(runs) => runs
            .into_iter()
            .filter(|run| run.range.start >= file_offset && run.range.start < run.range.end)
            .map(|run| SourceRun {
                range: run.range.start - file_offset + shift..run.range.end - file_offset + shift,
                hole: run.hole,
            })
            .collect(),
    }
}
