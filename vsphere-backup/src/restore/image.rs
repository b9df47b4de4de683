//! A local disk image as a target.

use std::{ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use vmdk::Image;

use crate::{
    engine::{DiskSource, DiskTarget},
    error::{DiskError, Error, Result},
    repository::storage::BoxFuture,
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

/// An image of the crate `vmdk`, whose blocking calls run on threads for such.
#[derive(Clone)]
pub struct ImageTarget {
    image: Arc<dyn Image>,
}

impl std::fmt::Debug for ImageTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageTarget").field("capacity", &self.image.capacity()).finish()
    }
}

impl ImageTarget {
    /// Takes an image that is open.
    pub fn new(image: Arc<dyn Image>) -> Self {
        Self { image }
    }

    /// Creates an image at `path`, of `capacity` bytes that all read as zeros.
    ///
    /// # Errors
    /// [`Error::File`], also when a file of that name exists; [`Error::Invalid`] for a format that is not written at
    /// random.
    pub(crate) async fn create(path: PathBuf, format: FileFormat, capacity: u64) -> Result<Self> {
        let kind = match format {
            FileFormat::Raw => vmdk::CreateKind::Raw,
            FileFormat::VmdkFlat => vmdk::CreateKind::Flat,
            FileFormat::VmdkSparse => vmdk::CreateKind::MonolithicSparse,
            FileFormat::VmdkStreamOptimized => {
                return Err(Error::invalid("a streamOptimized disk is written from front to back: Restore::to_file"));
            }
        };
        let wrong = {
            let path = path.clone();
            |source| Error::File { operation: "creating the image", path, source }
        };
        let work = move || vmdk::create(&path, &vmdk::CreateSpec::new(capacity, kind));
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(disk)) => Ok(Self::new(Arc::new(disk))),
            Ok(Err(error)) => Err(wrong(error.into())),
            Err(error) => Err(wrong(error.into())),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Image) -> vmdk::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let image = self.image.clone();
        match tokio::task::spawn_blocking(move || work(&*image)).await {
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
