//! Whole disks from one image to another, on many threads, led by the source's map.

use std::{
    fmt,
    ops::Range,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{
    create::{CreateSpec, create_then},
    disk::Disk,
    error::{Error, Result},
    image::{Image, MapEntry, MapKind},
};

/// How [`copy`] and [`convert`] work.
#[derive(Clone, Copy)]
#[must_use]
pub struct CopyOptions<'a> {
    threads: usize,
    skip_zeros: bool,
    progress: Option<&'a (dyn Fn(u64) + Sync)>,
    cancel: Option<&'a AtomicBool>,
}

impl<'a> CopyOptions<'a> {
    /// As many threads as there are processors, but no more than eight; zeros in the data are left out.
    pub fn new() -> Self {
        let threads = thread::available_parallelism().map_or(1, |count| count.get().min(MAX_DEFAULT_THREADS));
        Self { threads, skip_zeros: true, progress: None, cancel: None }
    }

    /// Sets how many threads read and write, at least one and at most 64; fewer where the system refuses them. Each has
    /// a buffer of 256 KiB.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, MAX_THREADS);
        self
    }

    /// Whether data of the source that are zero, in blocks of 64 KiB, are left out of the target (default: yes).
    /// Areas that the source's map calls empty are never written.
    pub fn skip_zeros(mut self, skip: bool) -> Self {
        self.skip_zeros = skip;
        self
    }

    /// Sets what is told how many bytes of the disk are done, holes included. Called by one thread at a time with
    /// numbers that only grow; it must be quick.
    pub fn progress(mut self, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sets a flag that ends the copy when it becomes true.
    pub fn cancel(mut self, cancel: &'a AtomicBool) -> Self {
        self.cancel = Some(cancel);
        self
    }
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("threads", &self.threads)
            .field("skip_zeros", &self.skip_zeros)
            .finish_non_exhaustive()
    }
}

/// What a copy did, in bytes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// Read and written.
    pub written: u64,
    /// Read, found to be zero and left out.
    pub zeros: u64,
    /// Not read, because the source's map calls them empty.
    pub holes: u64,
}

/// Makes the beginning of `target` read as all of `source`.
///
/// Only what the source's map calls data is read; the rest becomes zero in the target, which is asked for nothing
/// where it is empty already. A target with more bytes keeps those. Memory is bounded by the number of threads,
/// whatever the size of the disk. The target is not flushed.
///
/// # Errors
/// The first one of either image ends the copy; the target is then partly written. [`Error::InvalidInput`] when the
/// target is too small, [`Error::Cancelled`] when the caller's flag says so.
pub fn copy(source: &dyn Image, target: &dyn Image, options: &CopyOptions<'_>) -> Result<Copied> {
    let capacity = source.capacity();
    if target.capacity() < capacity {
        let problem = format!("{} bytes of the target are less than {capacity} of the source", target.capacity());
        return Err(Error::invalid("capacity", problem));
    }
    let job = Job {
        source,
        target,
        options,
        target_is_empty: is_empty(target, 0..capacity)?,
        pieces: Mutex::new(Pieces { map: source.map(0..capacity), rest: None }),
        done: Mutex::new(Done::default()),
        failed: Mutex::new(None),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for _ in 1..options.threads {
            // One thread less is only slower.
            let _ = thread::Builder::new().name("vmdk-copy".to_owned()).spawn_scoped(scope, || job.work());
        }
        job.work();
    });
    let failed = job.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let done = job.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(done.copied), Err)
}

/// Copies `source` into a new disk at `path`, which is returned open for writing and flushed.
///
/// Where `spec` does not say otherwise, the new disk takes adapter, geometry, hardware and tools version from the
/// source. A snapshot chain becomes one disk.
///
/// # Errors
/// Those of [`create`](crate::create()) and of [`copy`]; nothing is left behind then.
#[doc(alias = "VixDiskLib_Clone")]
pub fn convert(
    source: &dyn Image,
    path: impl AsRef<Path>,
    spec: &CreateSpec,
    options: &CopyOptions<'_>,
) -> Result<Disk> {
    create_then(path.as_ref(), &spec.inheriting(source)?, |disk| {
        copy(source, &disk, options)?;
        disk.flush()?;
        Ok(disk)
    })
}

/// One copy, shared by its threads.
struct Job<'a> {
    source: &'a dyn Image,
    target: &'a dyn Image,
    options: &'a CopyOptions<'a>,
    /// Nothing of the target has to be made zero.
    target_is_empty: bool,
    /// What is still to be done, taken by whoever has time.
    pieces: Mutex<Pieces<'a>>,
    done: Mutex<Done>,
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Done {
    bytes: u64,
    copied: Copied,
}

/// The map of the source in pieces of work.
struct Pieces<'a> {
    map: Box<dyn Iterator<Item = Result<MapEntry>> + Send + 'a>,
    /// What is left of the last entry, which is data.
    rest: Option<Range<u64>>,
}

impl Pieces<'_> {
    /// The next piece: a whole hole, or a buffer full of data.
    fn next(&mut self) -> Option<Result<MapEntry>> {
        let range = match self.rest.take() {
            Some(range) => range,
            None => match self.map.next()? {
                Ok(entry) if entry.kind == MapKind::Data => entry.range,
                other => return Some(other),
            },
        };
        // Pieces end at multiples of their size, so that two threads seldom write one grain.
        let end = (range.start / PIECE + 1).saturating_mul(PIECE).min(range.end);
        self.rest = Some(end..range.end).filter(|rest| !rest.is_empty());
        Some(Ok(MapEntry::new(range.start..end, MapKind::Data)))
    }
}

impl Job<'_> {
    fn work(&self) {
        let _stops = StopsOnPanic(&self.stop);
        let mut buffer = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            if self.options.cancel.is_some_and(|cancel| cancel.load(Ordering::Acquire)) {
                return self.note(Err(Error::Cancelled { operation: "copy" }));
            }
            let next = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(next) = next else { return };
            self.note(next.and_then(|entry| match entry.kind {
                MapKind::Data => self.copy_piece(entry.range, &mut buffer),
                MapKind::Zero | MapKind::Unallocated => self.skip_hole(entry.range),
            }));
        }
    }

    fn skip_hole(&self, range: Range<u64>) -> Result<()> {
        let holes = range.end - range.start;
        self.clear(range)?;
        self.count(Copied { holes, ..Copied::default() });
        Ok(())
    }

    fn copy_piece(&self, piece: Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize((piece.end - piece.start) as usize, 0);
        self.source.read_at(piece.start, buffer)?;
        let mut copied = Copied::default();
        let mut start = piece.start;
        while start < piece.end {
            let (end, zero) = self.run(&piece, buffer, start);
            if zero {
                self.clear(start..end)?;
                copied.zeros += end - start;
            } else {
                let data = &buffer[(start - piece.start) as usize..(end - piece.start) as usize];
                self.target.write_at(start, data)?;
                copied.written += end - start;
            }
            start = end;
        }
        self.count(copied);
        Ok(())
    }

    /// End of the run of blocks at `start` that are all to be left out, or all to be written.
    fn run(&self, piece: &Range<u64>, buffer: &[u8], start: u64) -> (u64, bool) {
        if !self.options.skip_zeros {
            return (piece.end, false);
        }
        let block = |start: u64| {
            let end = (start / BLOCK + 1).saturating_mul(BLOCK).min(piece.end);
            (end, is_zero(&buffer[(start - piece.start) as usize..(end - piece.start) as usize]))
        };
        let (mut end, zero) = block(start);
        while end < piece.end {
            let (next, same) = block(end);
            if same != zero {
                break;
            }
            end = next;
        }
        (end, zero)
    }

    /// Makes `range` of the target read as zero where it does not yet.
    fn clear(&self, range: Range<u64>) -> Result<()> {
        if self.target_is_empty {
            return Ok(());
        }
        for entry in self.target.map(range) {
            let entry = entry?;
            if entry.kind == MapKind::Data {
                self.target.zero_at(entry.range)?;
            }
        }
        Ok(())
    }

    fn count(&self, copied: Copied) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let Copied { written, zeros, holes } = &mut done.copied;
        (*written, *zeros, *holes) = (*written + copied.written, *zeros + copied.zeros, *holes + copied.holes);
        done.bytes += copied.written + copied.zeros + copied.holes;
        if let Some(progress) = self.options.progress {
            progress(done.bytes);
        }
    }

    /// Keeps the first failure and stops everybody.
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.stop.store(true, Ordering::Release);
        }
    }
}

/// A panic of one thread must end the others: the scope waits for all before it passes the panic on.
struct StopsOnPanic<'a>(&'a AtomicBool);

impl Drop for StopsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Whether the image's map has no data in `range`: nothing must be made zero there.
pub(crate) fn is_empty(image: &dyn Image, range: Range<u64>) -> Result<bool> {
    for entry in image.map(range) {
        if entry?.kind == MapKind::Data {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all bytes are zero. Looks at 16 bytes at a time; most data differ in the first of them.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.all(|word| u128::from_ne_bytes(word.try_into().unwrap_or([1; 16])) == 0)
        && words.remainder().iter().all(|&byte| byte == 0)
}

/// Bytes read and written at once: they stay in a processor's cache between the two.
const PIECE: u64 = 256 << 10;

/// Unit in which zeros are left out: the usual grain.
const BLOCK: u64 = 64 << 10;

const MAX_DEFAULT_THREADS: usize = 8;

/// Bounds memory.
const MAX_THREADS: usize = 64;
