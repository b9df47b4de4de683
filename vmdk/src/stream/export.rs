//! A whole disk to a stream.

use std::{
    fmt,
    io::Write,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    PackedGrains, Packer, StreamSpec,
    crew::{Crew, default_threads},
    spec::Packing,
    write::Sink,
};
use crate::{
    error::{Error, Result},
    image::{Image, MapEntry, MapKind},
};

/// Writes all of `image` to `sink` as a stream, on as many threads as the machine has; what the image's map calls
/// empty is not read. See [`Export`].
///
/// # Errors
/// Those of [`Export::run`].
pub fn export<W: Write>(image: &dyn Image, sink: W, spec: &StreamSpec) -> Result<W> {
    Export::new(spec).run(image, sink)
}

/// How to write a disk to a stream.
///
/// Threads read and pack pieces of 512 KiB of the disk; the calling thread puts them in order and writes them. The
/// stream depends on image and [`StreamSpec`] alone: not on the number of threads, nor on time.
///
/// Memory: for each thread 512 KiB of data, three packed pieces of that size and a compressor; with 16 threads, the
/// most that are started unless more are asked for, less than 40 MiB.
#[must_use]
pub struct Export<'a> {
    spec: &'a StreamSpec,
    threads: usize,
    progress: Option<&'a mut dyn FnMut(Progress)>,
    cancel: Option<&'a AtomicBool>,
}

/// How far a stream has come, written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// All of the disk before this byte is done.
    pub disk: u64,
    /// Bytes of the stream that were written, or read.
    pub stream: u64,
}

impl<'a> Export<'a> {
    /// Writes the stream that `spec` describes.
    pub fn new(spec: &'a StreamSpec) -> Self {
        Self { spec, threads: 0, progress: None, cancel: None }
    }

    /// Sets the number of threads beside the calling one; 1 is the calling thread alone, 0, as unless set, stands for
    /// as many as the machine runs at once (16 at most).
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Calls `progress` after each piece that was written, and at the end.
    pub fn on_progress(mut self, progress: &'a mut dyn FnMut(Progress)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sets a flag that ends the export when it becomes true.
    pub fn cancel(mut self, cancel: &'a AtomicBool) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Writes all of `image` to `sink`, and gives the sink back.
    ///
    /// # Errors
    /// Those of the image and of the sink, [`Error::InvalidInput`] for a specification that cannot be or has another
    /// capacity than the image, [`Error::NotSupported`] when the stream grows beyond 2 TiB, and [`Error::Cancelled`].
    /// All threads have ended then.
    ///
    /// # Panics
    /// Where the image does.
    #[doc(alias = "ovftool")]
    pub fn run<W: Write>(mut self, image: &dyn Image, sink: W) -> Result<W> {
        let packing = self.spec.packing();
        if packing.capacity != image.capacity() {
            return Err(Error::invalid("capacity", "the stream's is not that of the image"));
        }
        let mut sink = Sink::new(sink, self.spec)?;
        let threads = if self.threads == 0 { default_threads() } else { self.threads };
        thread::scope(|scope| {
            let mut crew = Crew::hire_in(scope, threads, || packing_worker(image, packing));
            let mut pieces = Pieces::new(image, packing);
            let mut spare = Vec::new();
            let mut take = |done: Result<Piece>, spare: &mut Vec<Piece>| {
                let piece = done?;
                sink.push(&piece.packed)?;
                if let (Some(progress), Some(last)) = (&mut self.progress, piece.ranges.last()) {
                    progress(Progress { disk: last.end, stream: sink.position() });
                }
                spare.push(piece);
                Ok(())
            };
            let mut piece = Piece::default();
            while pieces.next(&mut piece)? {
                check_cancelled(self.cancel, "export")?;
                crew.submit(piece, |done| take(done, &mut spare))?;
                piece = spare.pop().unwrap_or_default();
            }
            crew.finish(|done| take(done, &mut spare))
        })?;
        let (sink, stream) = sink.finish()?;
        if let Some(progress) = &mut self.progress {
            progress(Progress { disk: packing.capacity, stream });
        }
        Ok(sink)
    }
}

impl fmt::Debug for Export<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("spec", self.spec).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Grains of one piece of the disk that may hold data, and then their packed form.
#[derive(Debug, Default)]
struct Piece {
    /// Whole grains, ascending.
    ranges: Vec<Range<u64>>,
    packed: PackedGrains,
}

pub(super) fn check_cancelled(cancel: Option<&AtomicBool>, operation: &'static str) -> Result<()> {
    match cancel {
        Some(cancel) if cancel.load(Ordering::Acquire) => Err(Error::Cancelled { operation }),
        _ => Ok(()),
    }
}

fn packing_worker(image: &dyn Image, packing: Packing) -> impl FnMut(Piece) -> Result<Piece> + Send {
    let mut packer = Packer::with(packing);
    let mut data = Vec::new();
    move |mut piece| {
        piece.packed.clear();
        for range in &piece.ranges {
            // At most a piece.
            let len = (range.end - range.start) as usize;
            if data.len() < len {
                data.resize(len, 0);
            }
            image.read_at(range.start, &mut data[..len])?;
            packer.pack(range.start, &data[..len], &mut piece.packed)?;
        }
        Ok(piece)
    }
}

/// The pieces of a disk that its map says to hold data.
struct Pieces<'a> {
    map: Box<dyn Iterator<Item = Result<MapEntry>> + Send + 'a>,
    packing: Packing,
    /// What is left of the entry at hand; whole grains.
    rest: Range<u64>,
    /// All grains before this byte were given out: neighbouring entries may share one.
    done: u64,
}

impl<'a> Pieces<'a> {
    fn new(image: &'a dyn Image, packing: Packing) -> Self {
        Self { map: image.map(0..packing.capacity), packing, rest: 0..0, done: 0 }
    }

    /// Fills `piece` with the ranges of the next one; false when there is none.
    fn next(&mut self, piece: &mut Piece) -> Result<bool> {
        piece.ranges.clear();
        let mut end = None;
        while self.reach_data()? {
            let size = self.packing.piece();
            let end = *end.get_or_insert(self.rest.start - self.rest.start % size + size);
            if self.rest.start >= end {
                break;
            }
            let now = self.rest.start..self.rest.end.min(end);
            self.rest.start = now.end;
            self.done = now.end;
            match piece.ranges.last_mut() {
                Some(last) if last.end == now.start => last.end = now.end,
                _ => piece.ranges.push(now),
            }
        }
        Ok(!piece.ranges.is_empty())
    }

    /// Goes on to the next data of the map; false when there are none.
    fn reach_data(&mut self) -> Result<bool> {
        while self.rest.is_empty() {
            let Some(entry) = self.map.next() else { return Ok(false) };
            let entry = entry?;
            if entry.kind == MapKind::Data {
                let grain = self.packing.grain;
                let start = (entry.range.start - entry.range.start % grain).max(self.done);
                self.rest = start..entry.range.end.next_multiple_of(grain).min(self.packing.capacity);
            }
        }
        Ok(true)
    }
}
