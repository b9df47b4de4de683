//! A stream to a whole disk.

use std::{
    fmt,
    io::Read,
    ops::Range,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use super::{
    Progress, StreamEnd, StreamReader,
    codec::GrainInflater,
    crew::{Crew, default_threads},
    decode::{Deflated, damaged_grain},
    export::check_cancelled,
};
use crate::{
    copy::is_empty,
    error::{Error, Result},
    image::Image,
};

/// Writes a stream's grains to `image`, on as many threads as the machine has. What the stream leaves out is made
/// zero. See [`Import`].
///
/// # Errors
/// Those of [`Import::run`].
pub fn import<R: Read>(reader: &mut StreamReader<R>, image: &dyn Image) -> Result<StreamEnd> {
    Import::new().run(reader, image)
}

/// How to write a stream to a disk.
///
/// The calling thread reads the stream; threads inflate its grains and write them, in no order. Memory: for each
/// thread a piece of 512 KiB, and three packed ones.
#[derive(Default)]
#[must_use]
pub struct Import<'a> {
    threads: usize,
    progress: Option<&'a mut dyn FnMut(Progress)>,
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Import<'a> {
    /// On as many threads as the machine has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of threads beside the calling one; 1 is the calling thread alone, 0, as unless set, stands for
    /// as many as the machine runs at once (16 at most).
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Calls `progress` after each piece that was written. Where grains come in no order, its `disk` is the end of the
    /// last one.
    pub fn on_progress(mut self, progress: &'a mut dyn FnMut(Progress)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sets a flag that ends the import when it becomes true.
    pub fn cancel(mut self, cancel: &'a AtomicBool) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Writes the grains that `reader` has still to come, and zeros where it leaves some out.
    ///
    /// # Errors
    /// Those of stream and image, [`Error::InvalidInput`] when the image is smaller than the stream's disk, and
    /// [`Error::Cancelled`]. The image then holds some of the grains; all threads have ended.
    ///
    /// # Panics
    /// Where the image does.
    pub fn run<R: Read>(mut self, reader: &mut StreamReader<R>, image: &dyn Image) -> Result<StreamEnd> {
        let capacity = reader.capacity();
        if image.capacity() < capacity {
            let problem = format!("{} bytes, less than the {capacity} of the stream", image.capacity());
            return Err(Error::invalid("capacity", problem));
        }
        let grain = reader.grain_bytes();
        let name: Arc<str> = reader.name().into();
        if !is_empty(image, 0..capacity)? {
            reader.order_mut().keep_gaps();
        }
        let threads = if self.threads == 0 { default_threads() } else { self.threads };
        thread::scope(|scope| {
            let mut crew = Crew::hire_in(scope, threads, || inflating_worker(image, Arc::clone(&name), grain));
            let mut zeros = Zeros { image, grain, capacity, waiting: 0..0 };
            let mut spare = Vec::new();
            let mut take = |done: Result<Piece>, spare: &mut Vec<Piece>| {
                let piece = done?;
                if let (Some(progress), Some(last)) = (&mut self.progress, piece.grains.last()) {
                    progress(Progress { disk: last.offset + last.wanted as u64, stream: last.position });
                }
                spare.push(piece);
                Ok(())
            };
            let mut piece = Piece::default();
            while let Some(deflated) = reader.next_deflated()? {
                piece.add(&deflated);
                while let Some(gap) = reader.order_mut().next_gap() {
                    zeros.add(gap)?;
                }
                if piece.data_bytes >= PIECE {
                    check_cancelled(self.cancel, "import")?;
                    crew.submit(piece, |done| take(done, &mut spare))?;
                    piece = spare.pop().unwrap_or_default();
                    piece.clear();
                }
            }
            crew.submit(piece, |done| take(done, &mut spare))?;
            reader.order_mut().end(capacity.div_ceil(grain));
            while let Some(gap) = reader.order_mut().next_gap() {
                zeros.add(gap)?;
            }
            zeros.write()?;
            crew.finish(|done| take(done, &mut spare))
        })?;
        // `next_deflated` has ended, so there is an end.
        Ok(reader.end().unwrap_or(StreamEnd::Unmarked))
    }
}

impl fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Grains as they came, to be inflated and written together.
#[derive(Debug, Default)]
struct Piece {
    packed: Vec<u8>,
    grains: Vec<PieceGrain>,
    /// Bytes of the disk that they are.
    data_bytes: usize,
}

#[derive(Debug, Clone)]
struct PieceGrain {
    offset: u64,
    wanted: usize,
    packed: Range<usize>,
    position: u64,
}

impl Piece {
    fn clear(&mut self) {
        self.packed.clear();
        self.grains.clear();
        self.data_bytes = 0;
    }

    fn add(&mut self, deflated: &Deflated<'_>) {
        let start = self.packed.len();
        self.packed.extend_from_slice(deflated.packed);
        let Deflated { offset, wanted, position, .. } = *deflated;
        self.grains.push(PieceGrain { offset, wanted, packed: start..self.packed.len(), position });
        self.data_bytes += wanted;
    }
}

fn inflating_worker(image: &dyn Image, name: Arc<str>, grain_bytes: u64) -> impl FnMut(Piece) -> Result<Piece> + Send {
    let mut inflater = GrainInflater::new();
    // A grain more than is written at once: grains are inflated as a whole.
    let mut data = vec![0; PIECE + grain_bytes as usize];
    move |piece| {
        // What is inflated and not written yet.
        let mut run = 0..0;
        for grain in &piece.grains {
            let mut held = (run.end - run.start) as usize;
            if grain.offset != run.end || held >= PIECE {
                if held > 0 {
                    image.write_at(run.start, &data[..held])?;
                }
                (run, held) = (grain.offset..grain.offset, 0);
            }
            let room = &mut data[held..held + grain_bytes as usize];
            inflater
                .unpack_whole(&piece.packed[grain.packed.clone()], room, grain.wanted)
                .map_err(|problem| damaged_grain(&name, grain.position, grain.offset, &problem))?;
            run.end += grain.wanted as u64;
        }
        if !run.is_empty() {
            image.write_at(run.start, &data[..(run.end - run.start) as usize])?;
        }
        Ok(piece)
    }
}

/// Gaps between grains, made zero in as few calls as can be.
struct Zeros<'a> {
    image: &'a dyn Image,
    grain: u64,
    capacity: u64,
    waiting: Range<u64>,
}

impl Zeros<'_> {
    fn add(&mut self, grains: Range<u64>) -> Result<()> {
        let gap = grains.start * self.grain..grains.end.saturating_mul(self.grain).min(self.capacity);
        if gap.start == self.waiting.end {
            self.waiting.end = gap.end;
            return Ok(());
        }
        self.write()?;
        self.waiting = gap;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let gap = std::mem::replace(&mut self.waiting, 0..0);
        if gap.is_empty() { Ok(()) } else { self.image.zero_at(gap) }
    }
}

/// Bytes of the disk that are inflated and written in one go.
const PIECE: usize = 512 << 10;
