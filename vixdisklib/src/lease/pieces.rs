//! A disk from front to back.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;

use crate::{disk::Disk, error::Result};

/// A part of a disk. Pieces come in the order of the disk, and cover it without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Data {
        /// Where they belong.
        offset: u64,
        /// What they are. Not empty.
        bytes: Bytes,
    },
    /// Nothing but zeros. Not empty.
    Zeros(Range<u64>),
}

impl Piece {
    /// The bytes of the disk that it is about.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Data { offset, bytes } => *offset..*offset + bytes.len() as u64,
            Self::Zeros(range) => range.clone(),
        }
    }
}

/// Reads a disk of any transport as pieces: what is allocated as data, the rest as zeros.
pub(crate) struct Pieces<'a> {
    disk: &'a Disk,
    at: u64,
    /// How far is known what is allocated.
    known: u64,
    areas: VecDeque<Range<u64>>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(disk: &'a Disk) -> Self {
        Self { disk, at: 0, known: 0, areas: VecDeque::new() }
    }

    /// The next piece; `None` at the end of the disk. Cancel safe: a dropped future is asked again.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>> {
        let capacity = self.disk.capacity();
        while self.at >= self.known && self.known < capacity {
            let window = self.known..capacity.min(self.known + WINDOW);
            self.areas = self.disk.allocated(window.clone()).await?.areas.into();
            self.known = window.end;
        }
        if self.at >= capacity {
            return Ok(None);
        }
        while self.areas.front().is_some_and(|area| area.end <= self.at) {
            self.areas.pop_front();
        }
        let piece = match self.areas.front() {
            Some(area) if area.start <= self.at => {
                let len = (area.end - self.at).min(READ);
                let bytes = self.disk.read_at(self.at, len as usize).await?;
                Piece::Data { offset: self.at, bytes }
            }
            next => Piece::Zeros(self.at..next.map_or(self.known, |area| area.start)),
        };
        self.at = piece.range().end;
        Ok(Some(piece))
    }
}

/// Whose allocation is asked for at once: answers stay small.
const WINDOW: u64 = 64 << 30;

/// What is read at once: transports cut it and have its parts under way together.
const READ: u64 = 4 << 20;
