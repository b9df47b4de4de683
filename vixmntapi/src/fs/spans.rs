//! A file in long pieces that are zero or are not, so that holes are not read.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{Content, Extent, ExtentKind};
use crate::error::{Error, Result};

/// The pieces of a file, ascending and without gaps. Neighbours differ: what is zero is told at once, however long.
pub(crate) struct Spans {
    content: Arc<dyn Content>,
    /// Up to here the map was asked for.
    asked: u64,
    /// How much of the map to ask for at once.
    window: u64,
    extents: VecDeque<Extent>,
    /// What was told last and may go on.
    held: Option<Span>,
    failed: bool,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) range: Range<u64>,
    /// That nothing is there but zeros, by the map.
    pub(crate) is_zero: bool,
}

impl Spans {
    pub(crate) fn new(content: &Arc<dyn Content>) -> Self {
        Self::after(content, 0)
    }

    /// The pieces from a byte on.
    pub(crate) fn after(content: &Arc<dyn Content>, offset: u64) -> Self {
        let content = content.clone();
        Self { content, asked: offset, window: WINDOW, extents: VecDeque::new(), held: None, failed: false }
    }

    /// The next extent of the map, asked for a part at a time: that bounds its memory.
    fn extent(&mut self) -> Result<Option<Extent>> {
        let size = self.content.size();
        if self.extents.is_empty() && self.asked < size {
            let end = self.asked.saturating_add(self.window).min(size);
            self.extents = self.content.extents(self.asked..end)?.into();
            let mut at = self.asked;
            for extent in &self.extents {
                if extent.range.start != at || extent.range.end <= at {
                    return Err(Error::damaged("the map of a file", format!("{:?} follows byte {at}", extent.range)));
                }
                at = extent.range.end;
            }
            if at < end {
                return Err(Error::damaged("the map of a file", format!("it ends at byte {at} of {size}")));
            }
            self.asked = at;
            // The larger the holes, the longer the steps: a file of 8 EiB without a byte takes no 8 billion of them.
            let few = self.extents.len() < FEW;
            self.window = if few { self.window.saturating_mul(2) } else { WINDOW };
        }
        Ok(self.extents.pop_front())
    }
}

impl Iterator for Spans {
    type Item = Result<Span>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            let extent = match self.extent() {
                Ok(Some(extent)) => extent,
                Ok(None) => break,
                Err(error) => {
                    self.failed = true;
                    self.held = None;
                    return Some(Err(error));
                }
            };
            let is_zero = matches!(extent.kind, ExtentKind::Hole | ExtentKind::Unwritten);
            match &mut self.held {
                Some(held) if held.is_zero == is_zero => held.range.end = extent.range.end,
                held => {
                    if let Some(done) = held.replace(Span { range: extent.range, is_zero }) {
                        return Some(Ok(done));
                    }
                }
            }
        }
        self.held.take().map(Ok)
    }
}

/// Reads all of a file that is not zero by its map, in pieces of at most `CHUNK` bytes, and tells of zeros as `None`.
/// `each` gets the range as well; it ends the reading by its error.
pub(crate) fn for_each_piece(
    content: &Arc<dyn Content>,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(Range<u64>, Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    for span in Spans::new(content) {
        let Span { range, is_zero } = span?;
        if is_zero {
            each(range, None)?;
            continue;
        }
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(CHUNK as u64);
            buffer.resize(CHUNK, 0);
            let piece = buffer.get_mut(..len as usize).unwrap_or_default();
            read_all(&**content, at, piece)?;
            each(at..at + len, Some(piece))?;
            at += len;
        }
    }
    Ok(())
}

/// Reads all of a file in pieces of at most `CHUNK` bytes, its holes as the zeros that they stand for.
pub(crate) fn for_each_bytes(
    content: &Arc<dyn Content>,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for_each_piece(content, buffer, |range, bytes| {
        if let Some(bytes) = bytes {
            return each(bytes);
        }
        let mut left = range.end - range.start;
        while left > 0 {
            let len = left.min(ZEROS.len() as u64);
            each(ZEROS.get(..len as usize).unwrap_or(&ZEROS))?;
            left -= len;
        }
        Ok(())
    })
}

/// Reads what the file's size promises: fewer bytes are an error.
pub(crate) fn read_all(content: &dyn Content, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match content.read_at(offset + done as u64, rest)? {
            0 => {
                let (at, size) = (offset + done as u64, content.size());
                return Err(Error::damaged("a file", format!("it ends at byte {at} of {size}")));
            }
            len => done += len,
        }
    }
    Ok(())
}

/// Of the map, in bytes of the file: at most 262 144 extents of 4 KiB.
const WINDOW: u64 = 1 << 30;
/// A window that has fewer extents may be twice as large the next time.
const FEW: usize = 1000;
/// Long enough that reads go past the cache and around the world seldom.
pub(crate) const CHUNK: usize = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
