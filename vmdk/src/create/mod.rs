//! Creating new disks.

mod child;
mod files;
mod hosted;
mod layout;
mod spec;

use std::path::Path;

use self::layout::ExtentFiles;
pub(crate) use self::{
    child::parent_hint,
    files::{NewFiles, sync_directory},
    hosted::NewSparse,
    layout::{SPLIT_SECTORS, file_name, split, stem},
};
pub use self::{
    child::{ChildSpec, create_child},
    spec::{CreateKind, CreateSpec},
};
use crate::{
    SECTOR,
    descriptor::Cid,
    disk::{Access, Disk, Format, OpenOptions},
    error::Result,
};

/// Largest disk of vSphere: 62 TB (counted in powers of two).
pub const MAX_CAPACITY: u64 = 62 << 40;

/// Creates a disk at `path` and opens it for writing. All of it reads as zero and takes no space.
///
/// Extent files are put next to `path` under VMware's names: `x-flat.vmdk`, `x-f001.vmdk`, `x-s001.vmdk` for
/// `x.vmdk`. The descriptor is written last, so that it never names a file that is not there.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) with [`std::io::ErrorKind::AlreadyExists`] when one of its files exists,
/// [`Error::InvalidInput`](crate::Error::InvalidInput) for a size, option or name that the format does not allow.
/// What was made before a failure is removed.
#[doc(alias = "VixDiskLib_Create")]
pub fn create(path: impl AsRef<Path>, spec: &CreateSpec) -> Result<Disk> {
    create_then(path.as_ref(), spec, Ok)
}

/// Creates a disk and does something with it; when that fails, the disk's files are removed.
pub(crate) fn create_then(path: &Path, spec: &CreateSpec, then: impl FnOnce(Disk) -> Result<Disk>) -> Result<Disk> {
    make(path, spec, None, OpenOptions::new(), then)
}

/// Makes the files of a disk, with `parent` of a child, and opens it with `options`.
fn make(
    path: &Path,
    spec: &CreateSpec,
    parent: Option<(Cid, String)>,
    options: OpenOptions,
    then: impl FnOnce(Disk) -> Result<Disk>,
) -> Result<Disk> {
    spec.check()?;
    let mut files = NewFiles::default();
    let options = options.access(Access::ReadWrite);
    if spec.kind == CreateKind::Raw {
        files.create(path)?.set_len(spec.capacity)?;
        return files.keep(|| then(Disk::open(path, &options.format(Format::Raw))?), path);
    }
    let extents = ExtentFiles::plan(path, spec)?;
    let descriptor = spec.build_descriptor(&extents.lines, parent)?.to_bytes();
    let format = if spec.kind == CreateKind::MonolithicSparse {
        let new = NewSparse::lay_out(spec.capacity / SECTOR, spec, Some(descriptor.len() as u64))?;
        new.write(&files.create(path)?, &descriptor)?;
        Format::Sparse
    } else {
        for (file, line) in extents.paths.iter().zip(&extents.lines) {
            if spec.kind == CreateKind::TwoGbMaxExtentSparse {
                NewSparse::lay_out(line.size_sectors, spec, None)?.write(&files.create(file)?, &[])?;
            } else {
                files.create(file)?.set_len(line.len())?;
            }
        }
        files.create(path)?.write(0, &descriptor)?;
        Format::Descriptor
    };
    files.keep(|| then(Disk::open(path, &options.format(format))?), path)
}
