//! What lies under the first layer: the user's own image, or nothing.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, Result};

/// An image that a disk starts from. Positioned, blocking, shared between threads.
pub trait BaseImage: Send + Sync {
    /// Size in bytes.
    fn capacity(&self) -> u64;
    /// Fills `buffer` from `offset`; holes read as zeros.
    ///
    /// # Errors
    /// What the host says, and ranges outside the image.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset`. Called only on images opened for writing.
    ///
    /// # Errors
    /// What the host says; images that cannot be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// The parts of `range` that may hold data, ascending; a superset is allowed.
    ///
    /// # Errors
    /// What the host says.
    fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>>;
    /// Makes writes durable.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&self) -> io::Result<()>;
    /// A value of the disk database, key without `ddb.`.
    fn metadata(&self, key: &str) -> Option<String>;
}

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
    /// Any image in memory or elsewhere.
    Image(Arc<dyn BaseImage>),
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

/// Opens a raw file as a base image.
///
/// # Errors
/// [`Error::BadBase`] when it cannot be opened.
pub fn open_raw(path: &Path, write: bool) -> Result<Arc<dyn BaseImage>> {
    let options = vmdk::OpenOptions::new().writable(write);
    let disk = vmdk::Disk::open_raw(path, &options).map_err(|error| bad(path, &error))?;
    Ok(Arc::new(VmdkBase(disk)))
}

/// Opens a VMDK as a base image.
///
/// # Errors
/// [`Error::BadBase`] when it is not a VMDK that can be read (or written, if asked).
pub fn open_vmdk(path: &Path, write: bool) -> Result<Arc<dyn BaseImage>> {
    let options = vmdk::OpenOptions::new().writable(write);
    let disk = vmdk::Disk::open(path, &options).map_err(|error| bad(path, &error))?;
    Ok(Arc::new(VmdkBase(disk)))
}

fn bad(path: &Path, error: &vmdk::Error) -> Error {
    Error::BadBase { path: path.to_owned(), reason: error.to_string() }
}

/// A raw file or VMDK through the `vmdk` crate.
struct VmdkBase(vmdk::Disk);

impl BaseImage for VmdkBase {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes).map_err(io::Error::other)
    }

    fn data(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut data: Vec<Range<u64>> = Vec::new();
        for entry in self.0.map(range).map_err(io::Error::other)? {
            let entry = entry.map_err(io::Error::other)?;
            if entry.kind != vmdk::MapKind::Data {
                continue;
            }
            match data.last_mut() {
                Some(last) if last.end == entry.range.start => last.end = entry.range.end,
                _ => data.push(entry.range),
            }
        }
        Ok(data)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(io::Error::other)
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.0.ddb_get(key)
    }
}
