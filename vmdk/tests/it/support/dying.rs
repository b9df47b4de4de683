//! Storage that stops taking changes.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use vmdk::{Access, Handle, MemSource, ReadAt, Resolver, WriteAt};

/// A file in memory that fails every change after the first few.
#[derive(Debug)]
pub(crate) struct Dying {
    /// What is stored.
    pub(crate) file: MemSource,
    left: AtomicUsize,
}

impl Dying {
    /// Takes `changes` changes of `image`, and no more.
    pub(crate) fn after(changes: usize, image: &[u8]) -> Arc<Self> {
        Arc::new(Self { file: MemSource::new(image.to_vec()), left: AtomicUsize::new(changes) })
    }

    /// The storage comes back.
    pub(crate) fn revive(&self) {
        self.left.store(usize::MAX, Ordering::SeqCst);
    }

    fn step(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl ReadAt for Dying {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl WriteAt for Dying {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.step()?;
        self.file.write_all_at(data, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        self.file.set_len(len)
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.step()?;
        self.file.punch(range)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens it, whatever the name.
pub(crate) struct One(pub(crate) Arc<Dying>);

impl Resolver for One {
    fn open(&self, _: &Path, _: Access) -> io::Result<Handle> {
        Ok(Handle::ReadWrite(Arc::clone(&self.0) as Arc<dyn WriteAt>))
    }
    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}
