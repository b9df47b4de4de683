//! Reading many ranges of many files: sorted by place in the file, small gaps closed, files at the same time.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    io,
    iter::successors,
    ops::Range,
    pin::Pin,
    task::Poll,
};

use bytes::Bytes;

use super::{AsyncDisk, Piece};
use crate::{
    cache::FileId,
    error::{Error, Result},
    grains::Place,
    source::{AsyncReadAt, SourceHint},
};

/// A range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) file: FileId,
    pub(super) range: Range<u64>,
}

/// Bytes of files: ascending by file and offset.
#[derive(Debug, Default)]
pub(super) struct Fetched(Vec<(FileId, u64, Bytes)>);

/// A future in a box, to be driven with others.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A read of many ranges of one file.
pub(super) type ReadOfFile<'a> = Boxed<'a, (FileId, Result<Vec<(u64, Bytes)>>)>;

/// Data of so many bytes are fetched and placed at a time.
const BATCH_BYTES: u64 = 64 << 20;

/// Bytes of gaps that are read of one file at a time.
const MOST_THROWN_AWAY: u64 = 32 << 20;

impl<S: AsyncReadAt> AsyncDisk<S> {
    /// Reads all of `wanted`, in any order and with repetitions.
    pub(super) async fn fetch(&self, mut wanted: Vec<Wanted>) -> Result<Fetched> {
        wanted.sort_unstable_by_key(|wanted| (wanted.file, wanted.range.start));
        let reads = wanted.chunk_by(|a, b| a.file == b.file).map(|of_file| {
            let file = of_file[0].file;
            let remote = &self.files[file as usize];
            let ranges = coalesce(of_file.iter().map(|wanted| wanted.range.clone()), remote.source.hint());
            let read = async move { (file, read(&remote.source, &remote.name, remote.len, ranges).await) };
            Box::pin(read) as ReadOfFile<'_>
        });
        let mut fetched = Vec::new();
        for (file, read) in all(reads.collect()).await {
            fetched.extend(read?.into_iter().map(|(offset, bytes)| (file, offset, bytes)));
        }
        Ok(Fetched(fetched))
    }
}

impl Fetched {
    /// Fills `buf` from the bytes at `offset`, all of which were asked for.
    pub(super) fn copy(&self, file: FileId, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let bytes = self.at(file, offset);
            if bytes.is_empty() {
                let error = io::Error::other("these bytes were not asked for");
                return Err(Error::io("read", format!("file {file} of the disk"), Some(offset), error));
            }
            let (now, later) = buf.split_at_mut(bytes.len().min(buf.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            offset += now.len() as u64;
            buf = later;
        }
        Ok(())
    }

    /// Up to `most` consecutive bytes from `offset` on.
    pub(super) fn from(&self, file: FileId, offset: u64, most: u64) -> Cow<'_, [u8]> {
        let cut = |bytes: &'_ [u8], most: u64| bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let first = self.at(file, offset);
        let mut bytes = Cow::Borrowed(&first[..cut(first, most)]);
        // A grain may lie across a cut between two ranges.
        while (1..most).contains(&(bytes.len() as u64)) {
            let more = self.at(file, offset + bytes.len() as u64);
            let more = &more[..cut(more, most - bytes.len() as u64)];
            if more.is_empty() {
                break;
            }
            bytes.to_mut().extend_from_slice(more);
        }
        bytes
    }

    /// The bytes from `offset` on that were read as one.
    fn at(&self, file: FileId, offset: u64) -> &[u8] {
        let after = self.0.partition_point(|(of, start, _)| (*of, *start) <= (file, offset));
        let Some((of, start, bytes)) = after.checked_sub(1).map(|last| &self.0[last]) else { return &[] };
        let within = (offset - start.min(&offset)) as usize;
        if *of == file { bytes.get(within..).unwrap_or(&[]) } else { &[] }
    }
}

impl Wanted {
    /// What a piece needs of its file; of a compressed grain as much as it most likely has.
    pub(super) fn of(piece: &Piece) -> Option<Self> {
        let range = match &piece.place {
            Place::At(at) => *at..at + (piece.range.end - piece.range.start),
            Place::Packed(packed) => packed.marker..packed.marker + packed.room,
            Place::Zero | Place::Unallocated => return None,
        };
        Some(Self { file: piece.file, range })
    }
}

/// Pieces of which none is longer than a batch.
pub(super) fn cut_long(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut cut = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let mut rest = Some(piece);
        while let Some(piece) = rest {
            let stored = matches!(piece.place, Place::At(_));
            let (first, later) = piece.split(if stored { BATCH_BYTES } else { u64::MAX });
            cut.push(first);
            rest = later;
        }
    }
    cut
}

/// Says for neighbouring pieces whether they are read together.
pub(super) fn in_one_batch() -> impl FnMut(&Piece, &Piece) -> bool {
    let mut bytes = 0;
    move |piece, _| {
        bytes += match piece.place {
            Place::Packed(packed) => packed.room,
            Place::At(_) => piece.range.end - piece.range.start,
            Place::Zero | Place::Unallocated => 0,
        };
        let together = bytes < BATCH_BYTES;
        if !together {
            bytes = 0;
        }
        together
    }
}

/// Reads ranges of one source and checks the answer.
pub(super) async fn read<S: AsyncReadAt>(
    source: &S,
    name: &str,
    len: u64,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<(u64, Bytes)>> {
    let (Some(first), Some(last)) = (ranges.first().cloned(), ranges.last().cloned()) else { return Ok(Vec::new()) };
    let beyond = || {
        let (asked, start) = (last.end - first.start, first.start);
        Error::malformed(name, format!("of {asked} bytes at offset {start} some lie beyond its end"))
    };
    if last.end > len {
        return Err(beyond());
    }
    let read = source.read_ranges(ranges.clone()).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => beyond(),
        _ => Error::io("read", name, Some(first.start), error),
    })?;
    let fits = |(range, bytes): (&Range<u64>, &Bytes)| range.end - range.start == bytes.len() as u64;
    if read.len() != ranges.len() || !ranges.iter().zip(&read).all(fits) {
        let short = io::Error::new(io::ErrorKind::InvalidData, "the source answered beside the question");
        return Err(Error::io("read", name, Some(first.start), short));
    }
    Ok(ranges.into_iter().map(|range| range.start).zip(read).collect())
}

/// Makes one of ranges that overlap or have small gaps between them, and several of long ones.
pub(super) fn coalesce(ascending: impl Iterator<Item = Range<u64>> + Clone, hint: SourceHint) -> Vec<Range<u64>> {
    let mut gap = hint.gap;
    let sum =
        |ranges: &[Range<u64>]| ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
    let (mut joined, needed) = (join(ascending.clone(), gap), sum(&join(ascending.clone(), 0)));
    // Many small ranges far from each other: what is thrown away is bounded, whatever the source would like.
    while gap > 0 && sum(&joined) - needed > MOST_THROWN_AWAY {
        gap /= 2;
        joined = join(ascending.clone(), gap);
    }
    let longest = hint.longest.max(crate::SECTOR);
    let cut = |range: Range<u64>| {
        let starts = successors(Some(range.start), move |start| start.checked_add(longest));
        let starts = starts.take_while(move |start| *start < range.end);
        starts.map(move |start| start..range.end.min(start.saturating_add(longest)))
    };
    joined.into_iter().flat_map(cut).collect()
}

fn join(ascending: impl Iterator<Item = Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ascending.filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= gap => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Drives futures together, so many at once, and returns what they give in their order.
pub(super) async fn all<T>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    const AT_ONCE: usize = 32;
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let mut waiting = futures.into_iter().enumerate();
    let mut running: Vec<_> = waiting.by_ref().take(AT_ONCE).collect();
    poll_fn(|context| {
        let mut at = 0;
        while let Some((number, future)) = running.get_mut(at) {
            match future.as_mut().poll(context) {
                Poll::Pending => at += 1,
                Poll::Ready(value) => {
                    done[*number] = Some(value);
                    match waiting.next() {
                        Some(next) => running[at] = next,
                        None => drop(running.swap_remove(at)),
                    }
                }
            }
        }
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gaps_close_and_long_ranges_are_cut() {
        let hint = SourceHint::default().gap(10).longest(1000);
        let joined = |ranges: &[Range<u64>]| coalesce(ranges.iter().cloned(), hint);
        assert_eq!(joined(&[0..5, 5..9, 19..20, 31..31, 31..40]), [0..20, 31..40]);
        assert_eq!(joined(&[0..100, 20..50, 90..120, 131..132]), [0..120, 131..132]);
        assert_eq!(joined(&[7..2500, 9..20]), [7..1007, 1007..2007, 2007..2500]);
        assert_eq!(joined(&[]), []);
        let whole = SourceHint::default().gap(u64::MAX).longest(u64::MAX);
        assert_eq!(coalesce([5..6, 1 << 40..1 << 41].into_iter(), whole), [5..6, 1 << 40..1 << 41]);
    }

    #[test]
    fn what_is_thrown_away_is_bounded() {
        let far = (0..10_000_u64).map(|number| number << 20..(number << 20) + 512);
        let ranges = coalesce(far, SourceHint::default());
        assert_eq!(ranges.len(), 10_000);
        let near = (0..10_000_u64).map(|number| number << 12..(number << 12) + 512);
        assert_eq!(coalesce(near, SourceHint::default().gap(4096)).len(), 10_000);
        let few = (0..30_u64).map(|number| number << 20..(number << 20) + 512);
        assert_eq!(coalesce(few, SourceHint::default()).len(), 2);
    }

    #[test]
    fn bytes_are_found_across_cuts() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let fetched = Fetched(vec![(1, 10, bytes("abc")), (1, 13, bytes("def")), (2, 0, bytes("x"))]);
        let mut buf = [0; 4];
        fetched.copy(1, 11, &mut buf).unwrap();
        assert_eq!(&buf, b"bcde");
        assert!(fetched.copy(1, 14, &mut buf).is_err());
        let from = |file, offset, most| fetched.from(file, offset, most).into_owned();
        assert_eq!(
            (from(1, 12, 9), from(1, 11, 1), from(1, 11, 3)),
            (b"cdef".to_vec(), b"b".to_vec(), b"bcd".to_vec())
        );
        assert!(from(1, 16, 9).is_empty() && from(1, 9, 9).is_empty() && from(0, 0, 9).is_empty());
    }
}
