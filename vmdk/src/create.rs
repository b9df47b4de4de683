//! Creating new disks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    SECTOR,
    descriptor::{AdapterType, CreateType, ExtentLine, ExtentType, NewDescriptor},
    disk::{Access, Disk, Format, OpenOptions},
    error::{Error, Result},
    extent::{Backing, NewSparse},
    source::{FileSource, Handle},
};

/// Largest disk of vSphere: 62 TB (counted in powers of two).
pub const MAX_CAPACITY: u64 = 62 << 40;

/// What kind of disk [`create`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateKind {
    /// `monolithicFlat`: a descriptor and a `-flat` file of holes.
    Flat,
    /// The same as ESXi lays it out (`vmfs`), thin.
    Vmfs,
    /// One file that grows with what is written.
    MonolithicSparse,
    /// The bytes alone.
    Raw,
}

/// What [`create`] makes. Size and kind must be said, the rest has defaults.
#[derive(Debug, Clone)]
#[must_use]
pub struct CreateSpec {
    capacity: u64,
    kind: CreateKind,
    adapter: AdapterType,
    hardware_version: u32,
}

impl CreateSpec {
    /// A disk of `capacity` bytes for an LSI Logic adapter.
    pub fn new(capacity: u64, kind: CreateKind) -> Self {
        let hardware_version = NewDescriptor::DEFAULT_HARDWARE_VERSION;
        Self { capacity, kind, adapter: AdapterType::LsiLogic, hardware_version }
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter_type(mut self, adapter: AdapterType) -> Self {
        self.adapter = adapter;
        self
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(mut self, version: u32) -> Self {
        self.hardware_version = version;
        self
    }

    fn check(&self) -> Result<()> {
        if self.kind == CreateKind::Raw {
            return Ok(());
        }
        if !self.capacity.is_multiple_of(SECTOR) || self.capacity == 0 || self.capacity > MAX_CAPACITY {
            let problem = format!("{} bytes; it must be whole sectors of {SECTOR}, up to 62 TB", self.capacity);
            return Err(Error::invalid("capacity", problem));
        }
        Ok(())
    }

    fn descriptor(&self, kind: CreateType, extent: ExtentLine) -> Result<Vec<u8>> {
        let thin = kind == CreateType::Vmfs;
        let new = NewDescriptor::new(kind, vec![extent]);
        let new = new.adapter(self.adapter.clone()).hardware_version(self.hardware_version).thin(thin);
        Ok(new.build()?.to_bytes())
    }
}

/// Creates a disk at `path` and opens it for writing. All of it reads as zero and takes no space.
///
/// # Errors
/// [`Error::Io`] with [`io::ErrorKind::AlreadyExists`] when one of its files exists, [`Error::InvalidInput`]
/// for a size or name that the format does not allow. What was made before a failure is removed.
#[doc(alias = "VixDiskLib_Create")]
pub fn create(path: impl AsRef<Path>, spec: &CreateSpec) -> Result<Disk> {
    let path = path.as_ref();
    spec.check()?;
    let mut made = Made(Vec::new());
    let options = OpenOptions::new().access(Access::ReadWrite);
    let options = match spec.kind {
        CreateKind::Raw => {
            made.file(path)?.set_len(spec.capacity)?;
            options.format(Format::Raw)
        }
        CreateKind::Flat | CreateKind::Vmfs => {
            let (create_type, extent_type) = match spec.kind {
                CreateKind::Vmfs => (CreateType::Vmfs, ExtentType::Vmfs),
                _ => (CreateType::MonolithicFlat, ExtentType::Flat),
            };
            let flat = flat_path(path)?;
            let extent = ExtentLine::new(extent_type, spec.capacity / SECTOR, file_name(&flat)?);
            let text = spec.descriptor(create_type, extent)?;
            made.file(&flat)?.set_len(spec.capacity)?;
            // Last: a descriptor never names a file that is not there.
            made.file(path)?.write(0, &text)?;
            options.format(Format::Descriptor)
        }
        CreateKind::MonolithicSparse => {
            let new = NewSparse::lay_out(spec.capacity / SECTOR);
            let extent = ExtentLine::new(ExtentType::Sparse, spec.capacity / SECTOR, file_name(path)?);
            let text = spec.descriptor(CreateType::MonolithicSparse, extent)?;
            new.write(&made.file(path)?, &text)?;
            options.format(Format::Sparse)
        }
    };
    let disk = Disk::open(path, &options)?;
    made.0.clear();
    // So that a flushed disk is still found after a power failure. Not all file systems can, none must.
    if let Some(directory) = path.parent() {
        let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(disk)
}

/// Files made so far; removed when dropped before all is done.
struct Made(Vec<PathBuf>);

impl Made {
    fn file(&mut self, path: &Path) -> Result<Backing> {
        let name = path.display().to_string();
        let file = FileSource::create_new(path).map_err(|error: io::Error| Error::io("create", &*name, None, error))?;
        self.0.push(path.to_owned());
        Ok(Backing::new(name, Handle::ReadWrite(Arc::new(file))))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // The first failure is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

fn flat_path(path: &Path) -> Result<PathBuf> {
    let name = file_name(path)?;
    let stem = name.strip_suffix(".vmdk").unwrap_or(name);
    Ok(path.with_file_name(format!("{stem}-flat.vmdk")))
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::invalid("path", format!("{} has no file name in UTF-8", path.display())))
}
