//! The blocking driver: opened files, whose bytes are read when they are asked for.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Access, OpenOptions, open::Files};
use crate::{
    cache::{Block, FileId, Table, TableCache},
    error::{Error, Result},
    extent::{Backing, TableFile, Unpacker},
    grains::{Blocks, Packed},
    source::Handle,
};

/// The files of a disk.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Vec<Arc<TableFile>>,
    cache: Arc<TableCache>,
    unpacker: Unpacker,
}

/// Opens files as they are named.
pub(super) struct Opening<'a> {
    options: &'a OpenOptions,
    pub(super) opened: OpenFiles,
}

/// Reads that wait for each other, to be done in the order of the file.
#[derive(Default)]
pub(super) struct Gather<'a> {
    reads: Vec<(FileId, u64, &'a mut [u8])>,
}

impl OpenFiles {
    pub(super) fn new(cache_bytes: usize, grain_cache_bytes: usize) -> Self {
        let cache = Arc::new(TableCache::of_tables(cache_bytes));
        Self { files: Vec::new(), cache, unpacker: Unpacker::new(grain_cache_bytes) }
    }

    pub(super) fn add(&mut self, backing: Backing) -> FileId {
        let id = self.files.len() as FileId;
        self.files.push(Arc::new(TableFile::new(backing, Arc::clone(&self.cache), id)));
        id
    }

    /// The file with this number; numbers come from [`add`](Self::add) alone.
    pub(super) fn tables(&self, file: FileId) -> &Arc<TableFile> {
        &self.files[file as usize]
    }

    /// Fills `buf` from a compressed grain.
    pub(super) fn unpack(&self, file: FileId, packed: &Packed, buf: &mut [u8]) -> Result<()> {
        let backing = self.backing(file);
        self.unpacker.read((file, &backing.name), packed, buf, |offset, bytes| backing.read(offset, bytes))
    }

    pub(super) fn backing(&self, file: FileId) -> &Backing {
        &self.tables(file).backing
    }
}

impl Blocks for OpenFiles {
    type Stop = Error;

    fn block(&self, file: FileId, block: Block) -> Result<Table> {
        self.tables(file).get(block)
    }

    fn known_zeros(&self, file: FileId, block: Block) -> u64 {
        self.tables(file).zeros_from(block)
    }
}

impl<'a> Opening<'a> {
    pub(super) fn new(options: &'a OpenOptions) -> Self {
        Self { options, opened: OpenFiles::new(options.cache_bytes, options.grain_cache_bytes) }
    }
}

impl Files for Opening<'_> {
    type Stop = Error;

    fn open(&mut self, path: &Path, access: Access) -> Result<FileId> {
        let name = path.display().to_string();
        match self.options.resolver.open(path, access) {
            Ok(handle) if access == Access::ReadWrite && handle.writer().is_none() => Err(Error::ReadOnly {
                operation: "open for writing",
                object: name,
                reason: "its storage can only be read",
            }),
            // A source that could be written must not be, so that its tables need no lock.
            Ok(Handle::ReadWrite(source)) if access == Access::ReadOnly => {
                Ok(self.opened.add(Backing::new(name, Handle::ReadOnly(source))))
            }
            Ok(handle) => Ok(self.opened.add(Backing::new(name, handle))),
            Err(error) => Err(Error::io("open", name, None, error)),
        }
    }

    fn identity(&mut self, path: &Path) -> Result<PathBuf> {
        let failed = |error: io::Error| Error::io("resolve", path.display().to_string(), None, error);
        self.options.resolver.identity(path).map_err(failed)
    }

    fn name(&self, file: FileId) -> Arc<str> {
        Arc::clone(&self.opened.backing(file).name)
    }

    fn len(&mut self, file: FileId) -> Result<u64> {
        self.opened.backing(file).len()
    }

    fn read(&mut self, file: FileId, range: Range<u64>) -> Result<Vec<u8>> {
        // Headers and descriptors: the opener bounds what it asks for.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.opened.backing(file).read(range.start, &mut bytes)?;
        Ok(bytes)
    }
}

impl<'a> Gather<'a> {
    /// So many reads are kept before they are done.
    const MOST: usize = 4096;

    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub(super) fn add(&mut self, files: &OpenFiles, file: FileId, offset: u64, buf: &'a mut [u8]) -> Result<()> {
        self.reads.push((file, offset, buf));
        if self.reads.len() < Self::MOST { Ok(()) } else { self.read(files) }
    }

    /// Does all reads, ascending in each file.
    pub(super) fn read(&mut self, files: &OpenFiles) -> Result<()> {
        self.reads.sort_unstable_by_key(|&(file, offset, _)| (file, offset));
        let mut reads = self.reads.drain(..).peekable();
        let mut of_one_file = Vec::new();
        while let Some((file, offset, buf)) = reads.next() {
            of_one_file.push((offset, buf));
            if reads.peek().is_none_or(|&(next, ..)| next != file) {
                files.backing(file).read_ranges(&mut of_one_file)?;
                of_one_file.clear();
            }
        }
        Ok(())
    }
}
