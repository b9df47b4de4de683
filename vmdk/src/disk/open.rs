//! Opening: find out what a file is, what its extents are, follow its parents. Plain code over [`Files`], which
//! brings bytes and may answer that they must be fetched first: the asynchronous driver fetches everything that was
//! asked for and opens again from the start.

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Access, Format, OpenOptions, PathPolicy,
    chain::{Chain, Described, Link, Shape},
    descriptor_file::{check_len, parse_padded},
    shape,
};
use crate::{
    cache::FileId,
    descriptor::{Cid, Descriptor, ExtentAccess, ExtentLine, ExtentType},
    error::{ChainProblem, Error, Result},
    layout::Magic,
};

/// Most links of a chain. vSphere allows 32.
pub(crate) const MAX_LINKS: usize = 64;

/// What an opener asks of its driver.
pub(super) trait Files {
    /// Why there is no answer: a failure, or that it must be fetched first.
    type Stop: From<Error>;

    /// Opens `path`.
    fn open(&mut self, path: &Path, access: Access) -> Result<FileId, Self::Stop>;

    /// Opens a file of which only the size will be asked for.
    fn open_flat(&mut self, path: &Path, access: Access) -> Result<FileId, Self::Stop> {
        self.open(path, access)
    }

    /// A name that is the same for all names of one file.
    fn identity(&mut self, path: &Path) -> Result<PathBuf, Self::Stop>;

    /// The name of an opened file, for errors.
    fn name(&self, file: FileId) -> Arc<str>;

    /// Size of an opened file in bytes.
    fn len(&mut self, file: FileId) -> Result<u64, Self::Stop>;

    /// Bytes of an opened file. Past its end is an error.
    fn read(&mut self, file: FileId, range: Range<u64>) -> Result<Vec<u8>, Self::Stop>;

    /// Whether to go on to other files behind `stop`, to find out what else is missing. `Ok` gives it back to end
    /// with, `Err` ends at once.
    fn put_off(&mut self, stop: Self::Stop) -> Result<Self::Stop, Self::Stop> {
        Err(stop)
    }
}

/// State of opening one disk.
pub(super) struct Opener<'a, F> {
    files: &'a mut F,
    access: Access,
    format: Option<Format>,
    paths: PathPolicy,
    single_link: bool,
    ignore_journal: bool,
}

impl<'a, F: Files> Opener<'a, F> {
    pub(super) fn new(files: &'a mut F, options: &OpenOptions) -> Self {
        let OpenOptions { access, format, paths, single_link, ignore_journal, .. } = *options;
        Self { files, access, format, paths, single_link, ignore_journal }
    }

    /// Opens the disk at `path` with its parents.
    pub(super) fn chain(&mut self, path: &Path) -> Result<Chain, F::Stop> {
        let mut links = vec![self.link(path, self.access, self.format)?];
        let mut seen = HashSet::from([self.files.identity(path)?]);
        loop {
            let child = &links[links.len() - 1];
            let (_, wanted) = child.content_ids()?;
            if wanted == Cid::NONE || self.single_link {
                return Ok(Chain { links });
            }
            let broken = |problem| Error::Chain { object: child.path.display().to_string(), problem };
            let hint = child.descriptor.as_ref().map(|found| found.descriptor.parent_file_name_hint());
            let hint = child
                .named(hint.transpose())?
                .flatten()
                .ok_or_else(|| broken(ChainProblem::NoParentHint { wanted }))?;
            if links.len() >= MAX_LINKS {
                return Err(broken(ChainProblem::TooDeep { limit: MAX_LINKS }).into());
            }
            let path = self.paths.locate(&child.path, &hint)?;
            if !seen.insert(self.files.identity(&path)?) {
                return Err(broken(ChainProblem::Cycle { file: path }).into());
            }
            let parent = self.link(&path, Access::ReadOnly, None)?;
            // A raw file can be no parent: it has no content id to compare.
            let (found, _) = parent.content_ids()?;
            let found =
                found.ok_or_else(|| Error::malformed(path.display().to_string(), "a parent without a content id"))?;
            if found != wanted && !(wanted == Cid::LONG && same_long_id(child, &parent)) {
                return Err(broken(ChainProblem::CidMismatch { wanted, found, parent: path }).into());
            }
            links.push(parent);
        }
    }

    fn link(&mut self, path: &Path, access: Access, format: Option<Format>) -> Result<Link, F::Stop> {
        let file = self.files.open(path, access)?;
        let format = match format {
            Some(format) => format,
            None => self.probe(path, file)?,
        };
        match format {
            Format::Raw => {
                let len = self.files.len(file)?;
                let mut link = Link::new(path.to_owned(), Format::Raw, None);
                link.push(Shape::Flat { file, offset: 0 }, len, access == Access::ReadWrite)?;
                Ok(link)
            }
            Format::Descriptor => {
                let len = self.files.len(file)?;
                let descriptor = self.descriptor(file, 0..len)?;
                let described = Described { descriptor, file, embedded: None };
                self.described(Link::new(path.to_owned(), Format::Descriptor, Some(described)), access)
            }
            Format::Sparse => self.sparse_link(path, file, access),
        }
    }

    /// A sparse file opened by itself; its descriptor, if any, is inside.
    fn sparse_link(&mut self, path: &Path, file: FileId, access: Access) -> Result<Link, F::Stop> {
        let descriptor = match shape::embedded_descriptor(self.files, file)? {
            None => None,
            Some(range) => {
                let descriptor = self.descriptor(file, range.clone())?;
                Some(Described { descriptor, file, embedded: Some(range) })
            }
        };
        let extents = descriptor.as_ref().map_or(Ok(0), |found| found.descriptor.extents().map(|all| all.len()))?;
        if extents > 1 {
            let (name, format) = (self.files.name(file), "an embedded descriptor with several extents");
            return Err(Error::not_supported(&*name, format, "only one extent can hold its own descriptor").into());
        }
        let grains = shape::sparse(self.files, file, access, self.ignore_journal)?;
        let mut link = Link::new(path.to_owned(), Format::Sparse, descriptor);
        let len = grains.capacity;
        link.push(Shape::Sparse { file, grains: Box::new(grains) }, len, access == Access::ReadWrite)?;
        Ok(link)
    }

    /// Opens the extents that a text descriptor names.
    fn described(&mut self, mut link: Link, access: Access) -> Result<Link, F::Stop> {
        let lines = match &link.descriptor {
            Some(found) => link.named(found.descriptor.extents())?,
            None => Vec::new(),
        };
        if lines.is_empty() {
            return Err(Error::malformed(link.path.display().to_string(), "the descriptor has no extents").into());
        }
        refuse_mapping(&link, &lines)?;
        let mut stopped = None;
        let mut written = HashSet::new();
        for line in &lines {
            let writable = access == Access::ReadWrite && line.access == ExtentAccess::ReadWrite;
            if line.kind != ExtentType::Zero {
                refuse_out_of_reach(&link.path, line)?;
            }
            if writable && !matches!(line.kind, ExtentType::Flat | ExtentType::Vmfs | ExtentType::Zero) {
                let name = line.file_name.as_deref().unwrap_or_default();
                let path = self.paths.locate(&link.path, name)?;
                if !written.insert(self.files.identity(&path)?) {
                    let problem = format!("it names {name:?} twice, and two writers would destroy that file");
                    return Err(Error::malformed(link.path.display().to_string(), problem).into());
                }
            }
            match self.extent(&link.path, line, writable) {
                Ok(shape) => link.push(shape, line.len(), writable)?,
                Err(stop) => stopped = Some(self.files.put_off(stop)?),
            }
        }
        stopped.map_or(Ok(link), Err)
    }

    fn extent(&mut self, descriptor: &Path, line: &ExtentLine, writable: bool) -> Result<Shape, F::Stop> {
        if line.kind == ExtentType::Zero {
            return Ok(Shape::Zero);
        }
        let path = self.paths.locate(descriptor, line.file_name.as_deref().unwrap_or_default())?;
        let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
        if matches!(line.kind, ExtentType::Flat | ExtentType::Vmfs) {
            let file = self.files.open_flat(&path, access)?;
            let (offset, len) = (line.offset(), self.files.len(file)?);
            if offset.checked_add(line.len()).is_none_or(|needed| needed > len) {
                let needed = line.len();
                let problem =
                    format!("it has {len} bytes, its descriptor needs {needed} at offset {offset}: it is truncated");
                return Err(Error::malformed(&*self.files.name(file), problem).into());
            }
            return Ok(Shape::Flat { file, offset });
        }
        let file = self.files.open(&path, access)?;
        // Which kind of sparse is told by the file: what the descriptor says is a hint.
        let grains = shape::sparse(self.files, file, access, self.ignore_journal)?;
        if grains.capacity < line.len() {
            let problem = format!("it has {} bytes, its descriptor says {}", grains.capacity, line.len());
            return Err(Error::malformed(&*grains.name, problem).into());
        }
        Ok(Shape::Sparse { file, grains: Box::new(grains) })
    }

    /// Finds out what a file is by its first bytes. What is no VMDK is raw, unless its name says otherwise: a
    /// damaged descriptor must not become a disk of its own text.
    fn probe(&mut self, path: &Path, file: FileId) -> Result<Format, F::Stop> {
        const PROBE_BYTES: u64 = 4096;
        let len = self.files.len(file)?;
        let start = self.files.read(file, 0..len.min(PROBE_BYTES))?;
        if Magic::of(&start).is_some() {
            return Ok(Format::Sparse);
        }
        if Descriptor::probe(&start) {
            return Ok(Format::Descriptor);
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vmdk")) {
            let problem = "neither a descriptor nor a sparse extent; open flat extents with Disk::open_raw";
            return Err(Error::malformed(&*self.files.name(file), problem).into());
        }
        Ok(Format::Raw)
    }

    /// Reads a descriptor up to the first NUL, which pads embedded ones.
    fn descriptor(&mut self, file: FileId, range: Range<u64>) -> Result<Descriptor, F::Stop> {
        check_len(range.end - range.start, &self.files.name(file))?;
        Ok(parse_padded(&self.files.read(file, range)?)?)
    }
}

/// Refuses raw device mappings, saying of which mode they are: it decides whether the host can take a snapshot. Where
/// the descriptor does not tell, the extent is refused as what it is.
fn refuse_mapping(link: &Link, lines: &[ExtentLine]) -> Result<()> {
    let is_mapping = lines.iter().any(|line| line.kind == ExtentType::VmfsRdm);
    let device = link.descriptor.as_ref().and_then(|found| found.descriptor.create_type()?.device());
    let Some(device) = device.filter(|_| is_mapping) else { return Ok(()) };
    let reason = if device.has_snapshots() {
        "its file only points to a LUN: read a snapshot through its host, or the LUN itself with Disk::open_raw"
    } else {
        "its file only points to a LUN, of which no host takes a snapshot: read the LUN itself with Disk::open_raw"
    };
    Err(Error::not_supported(link.path.display().to_string(), device.to_string(), reason))
}

/// Refuses extents whose bytes are not in a file that could be opened.
fn refuse_out_of_reach(descriptor: &Path, line: &ExtentLine) -> Result<()> {
    let name = line.file_name.as_deref().unwrap_or_default();
    let reason = match line.kind {
        _ if line.access == ExtentAccess::NoAccess => "its access is NOACCESS: its bytes must not be read",
        ExtentType::VmfsRdm => {
            "it is a raw device mapping: the file only points to a LUN; read the disk through its host, or the LUN \
             itself with Disk::open_raw"
        }
        ExtentType::VmfsRaw => "its bytes are on a device of the ESXi host; read the disk through its host",
        ExtentType::VsanSparse | ExtentType::Other(_) => "extents of this type are not published and cannot be read",
        _ if name.starts_with(r"\\.\") => "its bytes are on a device of a Windows host; read them there",
        _ => return Ok(()),
    };
    let format = format!("the extent {} {} {name:?}", line.access, line.kind);
    Err(Error::not_supported(descriptor.display().to_string(), format, reason))
}

/// Whether both links have the same long content id. `CID`s of [`Cid::LONG`] only say that there is one. Equal short
/// ids are enough, whatever the long ones are: a child gets a long id of its own when it is written to.
fn same_long_id(child: &Link, parent: &Link) -> bool {
    let long = |link: &Link| link.descriptor.as_ref()?.descriptor.long_content_id().ok().flatten();
    long(child).is_some_and(|id| long(parent) == Some(id))
}
