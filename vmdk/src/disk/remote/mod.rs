//! A virtual disk over asynchronous sources: the same links, walk and opening as [`Disk`](super::Disk), with a driver
//! that fetches everything a request misses at once.

mod fetch;
mod known;
mod plan;

use std::{fmt, ops::Range, path::Path, sync::Arc};

use self::{
    fetch::{Fetched, Wanted},
    known::Known,
    plan::{Blocks, Plan},
};
use super::{
    LinkInfo, OpenOptions,
    chain::{Chain, Piece},
    holes::Holes,
    map::WINDOW,
    metadata::first_of_each,
    open::Opener,
};
use crate::{
    cache::{FileId, TableCache},
    descriptor::Descriptor,
    error::{Error, Result},
    extent::{Held, Unpacker},
    grains::{Packed, Place},
    image::MapEntry,
    source::{AsyncReadAt, AsyncResolver, SourceRun},
};

/// A virtual disk that is read asynchronously. It is for reading only.
///
/// A read is at most two rounds of metadata and one of data, whatever the number of links: tables that are missing
/// are fetched together, those of the parents too, and data runs are read in the order of their file with small gaps
/// made one range. What was fetched of the tables stays in the cache that
/// [`OpenOptions::cache_bytes`] bounds. There is no runtime in it: whoever polls drives it.
pub struct AsyncDisk<S> {
    chain: Chain,
    files: Vec<Remote<S>>,
    cache: TableCache,
    unpacker: Unpacker,
}

/// A file that is open.
#[derive(Debug)]
struct Remote<S> {
    name: Arc<str>,
    len: u64,
    source: S,
}

impl<S: AsyncReadAt> AsyncDisk<S> {
    /// Opens a disk as [`Disk::open`](super::Disk::open) does. Of the options, resolver and access are those of the
    /// blocking disk and count for nothing here.
    ///
    /// # Errors
    /// As [`Disk::open`](super::Disk::open).
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn open<R>(path: impl AsRef<Path>, resolver: &R, options: &OpenOptions) -> Result<Self>
    where
        R: AsyncResolver<Source = S>,
    {
        let path = path.as_ref().to_owned();
        let options = options.clone().access(super::Access::ReadOnly);
        let mut known = Known::new(resolver);
        loop {
            // From the start every time: what is known answers at once.
            match Opener::new(&mut known, &options).chain(&path) {
                Ok(chain) => {
                    return Ok(Self {
                        chain,
                        files: known.into_files(),
                        cache: TableCache::of_tables(options.cache_bytes),
                        unpacker: Unpacker::new(options.grain_cache_bytes),
                    });
                }
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Missing) => known.fetch().await?,
            }
        }
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.chain.capacity()
    }

    /// The links of the chain, the disk itself first.
    pub fn links(&self) -> Vec<LinkInfo> {
        self.chain.describe(|file| self.files[file as usize].name.to_string())
    }

    /// The disk's own descriptor; `None` for raw disks and bare sparse extents.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.chain.links[0].descriptor.as_ref().map(|described| &described.descriptor)
    }

    /// A value of the disk data base, from the first link that has it, the disk itself first.
    pub fn ddb_get(&self, key: &str) -> Option<String> {
        Chain::ddb_get(&self.chain.links, key)
    }

    /// All keys of the disk data base with their values, each from the first link that has it, the disk itself first.
    pub fn ddb_list(&self) -> Vec<(String, String)> {
        first_of_each(Chain::ddb_entries(&self.chain.links))
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// As [`Disk::read_at`](super::Disk::read_at). `buf` is then unspecified.
    /// # Cancel safety
    /// Dropping the future leaves `buf` unspecified and the disk as it was.
    pub async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (len, capacity) = (buf.len() as u64, self.capacity());
        let end = offset.checked_add(len).filter(|&end| end <= capacity);
        let end = end.ok_or(Error::OutOfRange { operation: "read", offset, len, capacity })?;
        let pieces = fetch::cut_long(self.resolve(offset..end).await?);
        let mut rest = buf;
        // Bounded parts, so that what is fetched and thrown away takes bounded memory too.
        for part in pieces.chunk_by(fetch::in_one_batch()) {
            let len = part.iter().map(|piece| piece.range.end - piece.range.start).sum::<u64>();
            let (now, later) = rest.split_at_mut(len as usize);
            self.read_pieces(part, now).await?;
            rest = later;
        }
        Ok(())
    }

    /// What is in `range`, as [`Disk::map`](super::Disk::map) says it, all at once. A range that leaves the disk is
    /// cut at its end. Metadata are fetched in bounded batches.
    ///
    /// # Errors
    /// Those of the storage and of a damaged image.
    /// # Cancel safety
    /// Dropping the future leaves the disk as it was.
    pub async fn map(&self, range: Range<u64>) -> Result<Vec<MapEntry>> {
        let mut entries: Vec<MapEntry> = Vec::new();
        let mut blocks = Blocks::default();
        let mut holes = Holes::default();
        let mut rest = range.start.min(self.capacity())..range.end.min(self.capacity());
        while !rest.is_empty() {
            let window = rest.start..rest.end.min(rest.start.saturating_add(WINDOW));
            let Plan { pieces, missing } = self.plan(window, &blocks, true)?;
            if let Some(last) = pieces.last() {
                rest.start = last.range.end;
                blocks.trim();
            }
            for piece in pieces {
                self.map_piece(piece, &mut holes, &mut entries).await?;
            }
            if !missing.is_empty() {
                self.fetch_blocks(missing, &mut blocks).await?;
            }
        }
        Ok(entries)
    }

    /// The pieces of `range`; fetches what metadata it takes.
    async fn resolve(&self, range: Range<u64>) -> Result<Vec<Piece>> {
        let mut blocks = Blocks::default();
        loop {
            let Plan { pieces, missing } = self.plan(range.clone(), &blocks, false)?;
            if missing.is_empty() {
                return Ok(pieces);
            }
            self.fetch_blocks(missing, &mut blocks).await?;
        }
    }

    async fn read_pieces(&self, pieces: &[Piece], buf: &mut [u8]) -> Result<()> {
        let mut reads = Vec::new();
        let mut rest = buf;
        for piece in pieces {
            let (now, later) = rest.split_at_mut((piece.range.end - piece.range.start) as usize);
            rest = later;
            match &piece.place {
                Place::Zero | Place::Unallocated => now.fill(0),
                Place::Packed(packed) if self.unpacker.read_kept(piece.file, packed, now) => {}
                Place::At(_) | Place::Packed(_) => reads.push((piece, now)),
            }
        }
        let wanted = reads.iter().filter_map(|(piece, _)| Wanted::of(piece)).collect();
        let fetched = self.fetch(wanted).await?;
        // Grains that are larger than it seemed: rare, and all of them with one more round.
        let larger = self.fetch(self.larger(pieces, &fetched)?).await?;
        for (piece, buf) in reads {
            match &piece.place {
                Place::At(at) => fetched.copy(piece.file, *at, buf)?,
                Place::Packed(packed) => self.unpack(piece.file, packed, &fetched, &larger, buf)?,
                Place::Zero | Place::Unallocated => {}
            }
        }
        Ok(())
    }

    fn unpack(&self, file: FileId, packed: &Packed, first: &Fetched, larger: &Fetched, buf: &mut [u8]) -> Result<()> {
        let name = &*self.files[file as usize].name;
        for fetched in [first, larger] {
            let bytes = fetched.from(file, packed.marker, packed.most_bytes());
            if let Held::All { start, end } = packed.look(name, &bytes)? {
                return self.unpacker.unpack((file, name), packed, &bytes[start..end], buf);
            }
        }
        Err(Error::malformed(name, "a compressed grain changes while it is read"))
    }

    /// What must be read again because a grain goes on behind what was fetched of it.
    fn larger(&self, pieces: &[Piece], fetched: &Fetched) -> Result<Vec<Wanted>> {
        let mut larger = Vec::new();
        for piece in pieces {
            let Place::Packed(packed) = &piece.place else { continue };
            let bytes = fetched.from(piece.file, packed.marker, packed.most_bytes());
            // Nothing was fetched of grains that are still there.
            if bytes.is_empty() {
                continue;
            }
            if let Held::Part(needed) = packed.look(&self.files[piece.file as usize].name, &bytes)? {
                larger.push(Wanted { file: piece.file, range: packed.marker..packed.marker + needed });
            }
        }
        Ok(larger)
    }

    /// Appends a piece to a map. Flat data are cut at the holes of their file.
    async fn map_piece(&self, piece: Piece, holes: &mut Holes, entries: &mut Vec<MapEntry>) -> Result<()> {
        let mut rest = Some(piece);
        while let Some(piece) = rest {
            let (first, later) = match piece.flat_range() {
                None => (piece.entry(false), None),
                Some(range) => {
                    let run = self.flat_run(piece.file, range, holes).await?;
                    let (first, later) = piece.split(run.range.end - run.range.start);
                    (first.entry(run.hole), later)
                }
            };
            match entries.last_mut() {
                Some(last) if last.joins(&first) => last.range.end = first.range.end,
                _ => entries.push(first),
            }
            rest = later;
        }
        Ok(())
    }

    async fn flat_run(&self, file: FileId, range: Range<u64>, holes: &mut Holes) -> Result<SourceRun> {
        if let Some(run) = holes.known(file, &range) {
            return Ok(run);
        }
        let Remote { name, source, .. } = &self.files[file as usize];
        let map = source.map(range.clone()).await;
        let map = map.map_err(|error| Error::io("map", &**name, Some(range.start), error))?;
        Ok(holes.learn(file, &range, map))
    }
}

impl<S> fmt::Debug for AsyncDisk<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncDisk")
            .field("path", &self.chain.links[0].path)
            .field("capacity", &self.chain.capacity())
            .field("links", &self.chain.links.len())
            .finish_non_exhaustive()
    }
}

/// Why plain code did not come to its end.
#[derive(Debug)]
enum Stop {
    Failed(Error),
    /// What is missing was noted.
    Missing,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
