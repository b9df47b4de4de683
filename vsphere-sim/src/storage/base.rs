//! What lies under the first layer: the user's own image, or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmdk::{Access, Disk, Image, MapKind, OpenOptions};

use super::{Error, Result};

/// Where a disk's first content comes from.
#[derive(Clone)]
#[non_exhaustive]
pub enum DiskSource {
    /// A disk of zeros, this many bytes long.
    Empty(u64),
    /// The bytes of a file, as they are.
    Raw(PathBuf),
    /// A VMDK (descriptor or monolithic file).
    Vmdk(PathBuf),
    /// Any image, in memory or elsewhere.
    Image(Arc<dyn Image>),
}

impl DiskSource {
    /// The image and the disk's size in bytes.
    pub(super) fn open(&self, write: bool) -> Result<(Option<Arc<dyn Image>>, u64)> {
        let image: Arc<dyn Image> = match self {
            DiskSource::Empty(bytes) => return Ok((None, *bytes)),
            DiskSource::Raw(path) => {
                let access = if write { Access::ReadWrite } else { Access::ReadOnly };
                Arc::new(Disk::open_raw(path, access).map_err(|error| bad(path, &error))?)
            }
            DiskSource::Vmdk(path) => {
                let options = if write { OpenOptions::new().writable() } else { OpenOptions::new() };
                Arc::new(Disk::open(path, &options).map_err(|error| bad(path, &error))?)
            }
            DiskSource::Image(image) => image.clone(),
        };
        let capacity = image.capacity();
        Ok((Some(image), capacity))
    }
}

impl std::fmt::Debug for DiskSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskSource::Empty(bytes) => write!(f, "Empty({bytes})"),
            DiskSource::Raw(path) => write!(f, "Raw({})", path.display()),
            DiskSource::Vmdk(path) => write!(f, "Vmdk({})", path.display()),
            DiskSource::Image(image) => write!(f, "Image({} bytes)", image.capacity()),
        }
    }
}

/// Calls `each` with every part of `range` that may hold data, ascending.
pub(super) fn data(
    image: &dyn Image,
    range: std::ops::Range<u64>,
    mut each: impl FnMut(std::ops::Range<u64>),
) -> std::io::Result<()> {
    for entry in image.map(range) {
        let entry = entry.map_err(std::io::Error::other)?;
        if entry.kind == MapKind::Data {
            each(entry.range);
        }
    }
    Ok(())
}

fn bad(path: &Path, error: &vmdk::Error) -> Error {
    Error::BadBase { path: path.to_owned(), reason: error.to_string() }
}
