//! Holes of flat files, remembered from one answer of their source for the questions that follow.

use std::{collections::VecDeque, ops::Range};

use super::chain::Piece;
use crate::{
    cache::FileId,
    grains::Place,
    source::{SourceMap, SourceRun},
};

/// What the last answer said.
#[derive(Debug, Default)]
pub(super) struct Holes {
    file: FileId,
    runs: VecDeque<SourceRun>,
}

impl Holes {
    /// The first run of `range`, if it is known.
    pub(super) fn known(&mut self, file: FileId, range: &Range<u64>) -> Option<SourceRun> {
        while self.runs.front().is_some_and(|run| run.range.end <= range.start) {
            self.runs.pop_front();
        }
        let run = self.runs.front().filter(|run| self.file == file && run.range.contains(&range.start))?;
        Some(SourceRun { range: range.start..run.range.end.min(range.end), hole: run.hole })
    }

    /// Takes the answer to a question for `range`; gives its first run.
    pub(super) fn learn(&mut self, file: FileId, range: &Range<u64>, map: SourceMap) -> SourceRun {
        let all = SourceRun { range: range.clone(), hole: false };
        self.file = file;
        self.runs = match map {
            SourceMap::AllData => VecDeque::from([all.clone()]),
            SourceMap::Runs(runs) => runs.into(),
        };
        // A source that answers beside the question is taken to know nothing.
        self.known(file, range).unwrap_or(all)
    }
}

impl Piece {
    /// Where the piece is in its file, if that is a flat one, which may have holes.
    pub(super) fn flat_range(&self) -> Option<Range<u64>> {
        match self.place {
            Place::At(at) if self.flat => Some(at..at + (self.range.end - self.range.start)),
            _ => None,
        }
    }

    /// The first `len` bytes, and what is left.
    pub(super) fn split(self, len: u64) -> (Self, Option<Self>) {
        let middle = self.range.start.saturating_add(len);
        if middle >= self.range.end {
            return (self, None);
        }
        let place = match self.place {
            Place::At(at) => Place::At(at + len),
            other => other,
        };
        let rest = Self { range: middle..self.range.end, place, ..self };
        (Self { range: self.range.start..middle, ..self }, Some(rest))
    }
}
