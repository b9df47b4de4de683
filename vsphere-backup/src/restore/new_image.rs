//! An image that is made beside its name, and gets it when it is whole.

use std::{path::Path, sync::Arc};

use vmdk::Disk;

use super::{
    FileFormat, ImageTarget,
    image::{close, create},
    workplace::Workplace,
};
use crate::{error::Result, thread};

/// A new image that has no name yet. When it is dropped, an incomplete one stays in its folder, and who makes an image of
/// that name next begins it again.
#[derive(Debug)]
pub(crate) struct NewImage {
    place: Workplace,
    disk: Arc<Disk>,
    target: ImageTarget,
}

impl NewImage {
    /// Creates an image that is to be at `path`, of `capacity` bytes that all read as zeros.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File), also when a file of that name exists and when somebody else makes it;
    /// [`Error::Invalid`](crate::Error::Invalid) for a format that is not written at random.
    pub(crate) async fn create(path: &Path, format: FileFormat, capacity: u64) -> Result<Self> {
        let place = Workplace::open(path, format.others(path), false).await?;
        let made = async {
            place.clear()?;
            create(place.path(), format, capacity).await
        };
        match made.await {
            Ok(disk) => {
                let disk = Arc::new(disk);
                let target = ImageTarget::new(disk.clone()).holding(place.lock());
                Ok(Self { place, disk, target })
            }
            Err(error) => {
                discard(&place);
                Err(error)
            }
        }
    }

    /// What is to be written to.
    pub(crate) fn target(&self) -> &ImageTarget {
        &self.target
    }

    /// Ends the making: an image that is whole and flushed gets its name, of any other nothing stays.
    ///
    /// # Errors
    /// That of `made`; [`Error::File`](crate::Error::File), also when there is a file of that name by now.
    pub(crate) async fn end(self, made: Result<()>) -> Result<()> {
        let Self { place, disk, target } = self;
        drop(target);
        let closed = close(disk, place.path()).await;
        let name = move || {
            let named = made.and(closed).and_then(|()| place.place(None));
            if named.is_err() {
                discard(&place);
            }
            named
        };
        thread::run("naming a file", name).await?
    }
}

fn discard(place: &Workplace) {
    if let Err(error) = place.discard() {
        tracing::warn!(%error, "an incomplete file stays");
    }
}
