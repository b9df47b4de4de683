//! Local files that are never forced to the disk: what `-t unsafe` is for qemu-img.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmdk::{Access, Handle, LocalFiles, ReadAt, Resolver, SourceMap, WriteAt};

/// Opens files whose content may stay in the page cache.
pub(super) struct Unsynced;

impl Resolver for Unsynced {
    fn open(&self, path: &Path, access: Access) -> io::Result<Handle> {
        Ok(match LocalFiles.open(path, access)? {
            Handle::ReadWrite(file) => Handle::ReadWrite(Arc::new(Cached(file))),
            read_only => read_only,
        })
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        LocalFiles.identity(path)
    }
}

#[derive(Debug)]
struct Cached(Arc<dyn WriteAt>);

impl ReadAt for Cached {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.0.read_ranges(ranges)
    }

    fn map(&self, range: Range<u64>) -> io::Result<SourceMap> {
        self.0.map(range)
    }
}

impl WriteAt for Cached {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.0.punch(range)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.flush()
    }
}
