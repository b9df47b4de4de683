//! A local disk image as a target.

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use vmdk::{Disk, Image, MapKind, check::CheckOptions, repair::Repair};

use crate::{
    engine::{DiskSource, DiskTarget},
    error::{DiskError, Error, Result},
    repository::storage::BoxFuture,
    thread,
};

/// The formats in which a disk is restored to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// The bytes of the disk and nothing else; holes where the file system has them.
    Raw,
    /// A VMDK descriptor and a `-flat` file beside it (`monolithicFlat`).
    VmdkFlat,
    /// A VMDK that grows with what is written (`monolithicSparse`).
    VmdkSparse,
    /// A compressed VMDK that is written once, from front to back: what OVF packages and HTTP uploads take.
    VmdkStreamOptimized,
}

impl FileFormat {
    /// A name that does not change between releases.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::VmdkFlat => "vmdkFlat",
            Self::VmdkSparse => "vmdkSparse",
            Self::VmdkStreamOptimized => "vmdkStreamOptimized",
        }
    }

    /// Returns the names of the other files that belong to an image at `path`.
    pub(super) fn others(self, path: &Path) -> Vec<PathBuf> {
        let mut flat = path.file_stem().unwrap_or_default().to_owned();
        flat.push("-flat.vmdk");
        if self == Self::VmdkFlat { vec![flat.into()] } else { Vec::new() }
    }
}

/// An image of the crate `vmdk`, whose blocking calls run on threads for such.
#[derive(Clone)]
pub struct ImageTarget {
    image: Arc<dyn Image>,
    lock: Option<Arc<File>>,
}

impl std::fmt::Debug for ImageTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageTarget").field("capacity", &self.image.capacity()).finish()
    }
}

impl ImageTarget {
    /// Takes an image that is open.
    pub fn new(image: Arc<dyn Image>) -> Self {
        Self { image, lock: None }
    }

    /// Keeps a lock until the last call on the image has ended, even one that nobody waits for any more.
    pub(super) fn holding(mut self, lock: Arc<File>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Returns where the image has nothing and reads as zeros. What comes behind very many such places is not told.
    pub(super) async fn holes(&self) -> Result<Vec<Range<u64>>, DiskError> {
        let find = |image: &dyn Image| {
            let mut holes: Vec<Range<u64>> = Vec::new();
            for entry in image.map(0..image.capacity()) {
                let entry = entry?;
                if entry.kind == MapKind::Data {
                    continue;
                }
                let full = holes.len() == MAX_HOLES;
                match holes.last_mut() {
                    Some(last) if last.end == entry.range.start => last.end = entry.range.end,
                    _ if full => break,
                    _ => holes.push(entry.range),
                }
            }
            Ok(holes)
        };
        self.blocking(find).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Image) -> vmdk::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let held = self.clone();
        let work = move || {
            // All of it, the lock too: a closure takes no more than it names.
            let held = held;
            work(&*held.image)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(DiskError::new),
            Err(error) => Err(DiskError::new(error)),
        }
    }
}

impl DiskSource for ImageTarget {
    fn capacity(&self) -> u64 {
        self.image.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(self.blocking(move |image| {
            let mut buffer = vec![0; len];
            image.read_at(offset, &mut buffer)?;
            Ok(buffer.into())
        }))
    }
}

impl DiskTarget for ImageTarget {
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(self.blocking(move |image| image.write_at(offset, &data)))
    }

    fn zero(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(self.blocking(move |image| image.zero_at(range)))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(self.blocking(|image| image.flush()))
    }
}

/// Creates an image at `path`, of `capacity` bytes that all read as zeros.
///
/// # Errors
/// [`Error::File`], also when a file of that name exists; [`Error::Invalid`] for a format that is not written at
/// random.
pub(super) async fn create(path: PathBuf, format: FileFormat, capacity: u64) -> Result<Disk> {
    let kind = match format {
        FileFormat::Raw => vmdk::CreateKind::Raw,
        FileFormat::VmdkFlat => vmdk::CreateKind::Flat,
        FileFormat::VmdkSparse => vmdk::CreateKind::MonolithicSparse,
        FileFormat::VmdkStreamOptimized => {
            return Err(Error::invalid("a streamOptimized disk is written from front to back: Restore::to_file"));
        }
    };
    let named = path.clone();
    let made = thread::run("creating an image", move || vmdk::create(&path, &vmdk::CreateSpec::new(capacity, kind)));
    made.await?.map_err(wrong("creating the image", named))
}

/// Opens an image whose writer ended early, for writing. What it left undone of the image's own tables is mended first.
///
/// # Errors
/// [`Error::File`], also when the image is damaged beyond that.
pub(super) async fn reopen(path: PathBuf, format: FileFormat) -> Result<Disk> {
    let named = path.clone();
    let open = move || {
        let options = vmdk::OpenOptions::new().writable();
        match format {
            FileFormat::Raw => Disk::open_raw(&path, vmdk::Access::ReadWrite),
            FileFormat::VmdkSparse => {
                let left = Repair::plan(&path, &CheckOptions::new())?.apply_in_place()?;
                if !left.is_clean() {
                    let left = std::io::Error::other(left.to_string());
                    return Err(vmdk::Error::io("repair", path.display().to_string(), None, left));
                }
                Disk::open(&path, &options.format(vmdk::Format::Sparse))
            }
            _ => Disk::open(&path, &options.format(vmdk::Format::Descriptor)),
        }
    };
    thread::run("opening an image", open).await?.map_err(wrong("opening the image", named))
}

/// Closes an image that nobody else uses any more; says what closing finds.
///
/// # Errors
/// [`Error::File`].
pub(super) async fn close(disk: Arc<Disk>, path: PathBuf) -> Result<()> {
    let close = move || Arc::into_inner(disk).map_or(Ok(()), Disk::close);
    thread::run("closing an image", close).await?.map_err(wrong("closing", path))
}

fn wrong(operation: &'static str, path: PathBuf) -> impl FnOnce(vmdk::Error) -> Error {
    move |source| Error::File { operation, path, source: source.into() }
}

/// So many take 16 MiB.
const MAX_HOLES: usize = 1 << 20;
