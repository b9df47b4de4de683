//! What differs between a file and another, such as itself at another point in time.

use std::{collections::VecDeque, fmt, ops::Range, sync::Arc};

use crate::{
    error::Result,
    fs::{
        Content, FileSystem, NodeId,
        spans::{CHUNK, Span, Spans, read_all},
    },
};

/// Compares the bytes of two files.
///
/// # Errors
/// As [`FileSystem::open`].
pub fn files(one: (&Arc<dyn FileSystem>, NodeId), other: (&Arc<dyn FileSystem>, NodeId)) -> Result<Differences> {
    let open = |(files, node): (&Arc<dyn FileSystem>, NodeId)| files.clone().open(node, None);
    Ok(Differences::new(open(one)?, open(other)?))
}

/// Where two contents differ, as ascending ranges that do not touch.
///
/// Both are read side by side, but for what is a hole in both. Ranges begin and end at multiples of 4096 or at the end
/// of a file; what only the longer one has differs, even where it is zero. After an error it ends, and what came before
/// is not the whole.
pub struct Differences {
    sides: [Side; 2],
    /// How far both were compared.
    at: u64,
    /// What is not told yet; the last one may go on.
    ranges: VecDeque<Range<u64>>,
    failed: bool,
}

impl Differences {
    /// Compares two contents, be they alternate streams.
    pub fn new(one: Arc<dyn Content>, other: Arc<dyn Content>) -> Self {
        Self { sides: [one, other].map(Side::new), at: 0, ranges: VecDeque::new(), failed: false }
    }

    /// Whether there are none. It reads up to the first.
    ///
    /// # Errors
    /// What reading says.
    pub fn is_equal(mut self) -> Result<bool> {
        let [one, other] = &self.sides;
        if one.content.size() != other.content.size() {
            return Ok(false);
        }
        self.next().transpose().map(|first| first.is_none())
    }

    /// Compares some more; `false` when there is no more.
    fn step(&mut self) -> Result<bool> {
        let [one, other] = &mut self.sides;
        let sizes = [one.content.size(), other.content.size()];
        let (shorter, longer) = (sizes[0].min(sizes[1]), sizes[0].max(sizes[1]));
        let at = self.at;
        if at >= shorter {
            self.at = longer;
            self.differs(at..longer);
            return Ok(at < longer);
        }
        let (first, second) = (one.span(at)?, other.span(at)?);
        let end = first.range.end.min(second.range.end).min(shorter);
        if first.is_zero && second.is_zero {
            self.at = end;
            return Ok(true);
        }
        self.at = end.min(at + CHUNK as u64 - at % BLOCK);
        let len = (self.at - at) as usize;
        let (first, second) = (one.read(at, len)?, other.read(at, len)?);
        if first == second {
            return Ok(true);
        }
        // Bytes up to the edge of a block, then blocks.
        let head = ((BLOCK - at % BLOCK) as usize).min(len);
        let starts = [0].into_iter().chain((head..len).step_by(BLOCK as usize));
        let ends = (head..len).step_by(BLOCK as usize).chain([len]);
        let pieces = starts.zip(ends).filter(|(from, to)| first.get(*from..*to) != second.get(*from..*to));
        let blocks: Vec<_> = pieces.map(|(from, _)| (at + from as u64) / BLOCK * BLOCK).collect();
        for block in blocks {
            self.differs(block..(block + BLOCK).min(shorter));
        }
        Ok(true)
    }

    fn differs(&mut self, range: Range<u64>) {
        match self.ranges.back_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.ranges.push_back(range),
        }
    }
}

impl Iterator for Differences {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.ranges.len() < 2 {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.failed = true;
                    self.ranges.clear();
                    return Some(Err(error));
                }
            }
        }
        self.ranges.pop_front().map(Ok)
    }
}

impl fmt::Debug for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Differences").field("at", &self.at).finish_non_exhaustive()
    }
}

/// One of the two contents.
struct Side {
    content: Arc<dyn Content>,
    spans: Spans,
    /// Where the reading is.
    span: Span,
    buffer: Vec<u8>,
}

impl Side {
    fn new(content: Arc<dyn Content>) -> Self {
        let spans = Spans::new(&content);
        Self { content, spans, span: Span { range: 0..0, is_zero: true }, buffer: Vec::new() }
    }

    /// The piece in which byte `at` is; asked for ascending ones only.
    fn span(&mut self, at: u64) -> Result<Span> {
        while self.span.range.end <= at {
            match self.spans.next().transpose()? {
                Some(span) => self.span = span,
                None => break,
            }
        }
        Ok(self.span.clone())
    }

    fn read(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        self.buffer.resize(len, 0);
        if self.span.is_zero {
            self.buffer.fill(0);
        } else {
            read_all(&*self.content, at, &mut self.buffer)?;
        }
        Ok(&self.buffer)
    }
}

/// In bytes.
const BLOCK: u64 = 4096;
