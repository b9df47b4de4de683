//! Files that WOF, the Windows Overlay Filter, keeps compressed: those of an installed Windows (CompactOS) above all.
//!
//! The content lies in the stream `WofCompressedData`, cut into chunks that are compressed each for itself: first a table
//! of where each chunk but the first begins, counted from the table's end, then the chunks. The file's own stream is a
//! hole of the content's size.

mod bits;
mod lzx;
mod output;
mod xpress;

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    bytes::{le_u32, le_u64},
    error::{Error, Result},
    fs::{Content, Extent, ExtentKind},
};

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Xpress4K,
    Xpress8K,
    Xpress16K,
    Lzx,
}

impl Method {
    /// From what a reparse point of WOF holds; else what is the matter. MS-FSCC leaves it out; it is that of
    /// `WOF_EXTERNAL_INFO` and `FILE_PROVIDER_EXTERNAL_INFO_V1`.
    pub(super) fn of(data: &[u8]) -> Result<Self, &'static str> {
        match (le_u32(data, 0), le_u32(data, 4)) {
            (Some(1), Some(WIM)) => return Err("its content is in a WIM image"),
            (Some(1), Some(FILE)) => {}
            _ => return Err("its content is kept by an unknown provider"),
        }
        match (le_u32(data, 8), le_u32(data, 12)) {
            (Some(1), Some(0)) => Ok(Self::Xpress4K),
            (Some(1), Some(1)) => Ok(Self::Lzx),
            (Some(1), Some(2)) => Ok(Self::Xpress8K),
            (Some(1), Some(3)) => Ok(Self::Xpress16K),
            _ => Err("its content is compressed by an unknown method"),
        }
    }

    /// Bytes of a chunk in the clear, but for the last.
    fn chunk(self) -> u64 {
        match self {
            Self::Xpress4K => 4 << 10,
            Self::Xpress8K => 8 << 10,
            Self::Xpress16K => 16 << 10,
            Self::Lzx => 32 << 10,
        }
    }
}

/// The content of such a file.
pub(super) struct Wof {
    packed: Arc<dyn Content>,
    method: Method,
    size: u64,
    /// Bytes of a number in the table.
    width: u64,
    /// Where chunks begin in the stream.
    base: u64,
    /// The chunk that was read last, of those that were wanted in part.
    last: Mutex<Option<(u64, Arc<[u8]>)>>,
    /// For messages.
    what: String,
}

impl Wof {
    /// Takes the stream `WofCompressedData` of a file of a size.
    pub(super) fn new(packed: Arc<dyn Content>, method: Method, size: u64, what: String) -> Result<Self> {
        let width = if size > u64::from(u32::MAX) { 8 } else { 4 };
        let base = size.div_ceil(method.chunk()).saturating_sub(1) * width;
        if base > packed.size() {
            let problem = format!("a table of {base} bytes in a stream of {}", packed.size());
            return Err(Error::damaged(what, problem));
        }
        Ok(Self { packed, method, size, width, base, last: Mutex::default(), what })
    }

    /// Where a chunk lies in the stream.
    fn place(&self, chunk: u64) -> Result<Range<u64>> {
        let mut numbers = [0; 16];
        let is_last = (chunk + 1) * self.method.chunk() >= self.size;
        // The number of the one before it, if any, and its own, which says where it ends.
        let from = chunk.saturating_sub(1);
        let count = chunk + u64::from(!is_last) - from;
        let numbers = numbers.get_mut(..(count * self.width) as usize).unwrap_or_default();
        self.fill(from * self.width, numbers)?;
        let number = |at: u64| {
            let at = ((at - from) * self.width) as usize;
            if self.width == 8 { le_u64(numbers, at) } else { le_u32(numbers, at).map(u64::from) }
        };
        let start = if chunk == 0 { Some(0) } else { number(chunk - 1) };
        let end = if is_last { Some(self.packed.size() - self.base) } else { number(chunk) };
        let range = start.zip(end).filter(|(start, end)| start < end && *end <= self.packed.size() - self.base);
        let (start, end) = range.ok_or_else(|| self.damaged(chunk, "the table contradicts itself"))?;
        Ok(self.base + start..self.base + end)
    }

    /// Reads a chunk into as many bytes as it has in the clear.
    fn unpack(&self, chunk: u64, output: &mut [u8]) -> Result<()> {
        let place = self.place(chunk)?;
        let len = place.end - place.start;
        if len == output.len() as u64 {
            return self.fill(place.start, output);
        }
        if len > output.len() as u64 {
            return Err(self.damaged(chunk, &format!("{len} bytes for {}", output.len())));
        }
        let mut packed = vec![0; len as usize];
        self.fill(place.start, &mut packed)?;
        let done = match self.method {
            Method::Lzx => lzx::unpack(&packed, output),
            _ => xpress::unpack(&packed, output),
        };
        done.ok_or_else(|| self.damaged(chunk, &format!("it is no {:?}", self.method)))
    }

    /// A chunk that is wanted in part, and perhaps in other parts soon.
    fn kept(&self, chunk: u64, len: usize) -> Result<Arc<[u8]>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last().as_ref().filter(|(number, _)| *number == chunk) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; len];
        self.unpack(chunk, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        *last() = Some((chunk, bytes.clone()));
        Ok(bytes)
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.packed.read_at(offset, buf)? == buf.len() {
            return Ok(());
        }
        Err(Error::damaged(&self.what, "the stream WofCompressedData is cut off"))
    }

    fn damaged(&self, chunk: u64, problem: &str) -> Error {
        Error::damaged(&self.what, format!("chunk {chunk} of WofCompressedData: {problem}"))
    }
}

impl Content for Wof {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut rest = buf.get_mut(..len).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let chunk = at / self.method.chunk();
            let start = chunk * self.method.chunk();
            let all = self.method.chunk().min(self.size - start) as usize;
            let into = (at - start) as usize;
            let (piece, after) = rest.split_at_mut((all - into).min(rest.len()));
            if piece.len() == all {
                self.unpack(chunk, piece)?;
            } else {
                let bytes = self.kept(chunk, all)?;
                piece.copy_from_slice(bytes.get(into..into + piece.len()).unwrap_or_default());
            }
            at += piece.len() as u64;
            rest = after;
        }
        Ok(len)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let range = range.start..range.end.min(self.size);
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent::new(range, ExtentKind::Encoded)] })
    }
}

/// The stream with the chunks.
pub(super) const STREAM: &str = "WofCompressedData";
/// `WOF_PROVIDER_*`.
const WIM: u32 = 1;
const FILE: u32 = 2;
