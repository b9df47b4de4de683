//! Opening: find out what a file is, open its extents, follow its parents.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Access, Format, OpenOptions,
    link::{DescriptorFile, Link},
};
use crate::{
    SECTOR,
    cache::TableCache,
    descriptor::{Cid, Descriptor, ExtentAccess, ExtentLine, ExtentType, MAX_DESCRIPTOR_BYTES},
    error::{ChainProblem, Error, Result},
    extent::{Backing, Extent, SparseExtent},
    layout::Magic,
};

/// Most links of a chain. vSphere allows 32.
pub(crate) const MAX_LINKS: usize = 64;

/// State of opening one disk.
pub(super) struct Opener<'a> {
    options: &'a OpenOptions,
    cache: Arc<TableCache>,
    next_extent: u32,
}

impl<'a> Opener<'a> {
    pub(super) fn new(options: &'a OpenOptions) -> Self {
        Self { options, cache: Arc::new(TableCache::new(options.cache_bytes)), next_extent: 0 }
    }

    /// Opens the disk at `path` with its parents, the disk itself first.
    pub(super) fn chain(&mut self, path: &Path) -> Result<Vec<Link>> {
        let mut links = vec![self.link(path, self.options.access, self.options.format)?];
        let mut seen = HashSet::from([self.identity(path)?]);
        loop {
            let child = &links[links.len() - 1];
            let (_, wanted) = child.content_ids()?;
            if wanted == Cid::NONE || self.options.single_link {
                return Ok(links);
            }
            let broken = |problem| Error::Chain { object: child.path.display().to_string(), problem };
            let hint = child
                .descriptor
                .as_ref()
                .and_then(|file| {
                    file.read(|descriptor| descriptor.parent_file_name_hint().map(|hint| hint.into_owned()))
                })
                .ok_or_else(|| broken(ChainProblem::NoParentHint { wanted }))?;
            if links.len() >= MAX_LINKS {
                return Err(broken(ChainProblem::TooDeep { limit: MAX_LINKS }));
            }
            let path = self.options.paths.locate(&child.path, &hint)?;
            let identity = self.identity(&path)?;
            if !seen.insert(identity) {
                return Err(broken(ChainProblem::Cycle { file: path }));
            }
            let parent = self.link(&path, Access::ReadOnly, None)?;
            // A raw file can be no parent: it has no content id to compare.
            let (found, _) = parent.content_ids()?;
            let found =
                found.ok_or_else(|| Error::malformed(path.display().to_string(), "a parent without a content id"))?;
            if found != wanted {
                return Err(broken(ChainProblem::CidMismatch { wanted, found, parent: path }));
            }
            links.push(parent);
        }
    }

    /// A link made of raw bytes.
    pub(super) fn raw(path: &Path, backing: Backing) -> Result<Link> {
        let len = backing.len()?;
        let writable = backing.is_writable();
        let mut link = Link::new(path.to_owned(), Format::Raw, None);
        link.push(Extent::Flat { backing, offset: 0 }, len, writable)?;
        Ok(link)
    }

    fn link(&mut self, path: &Path, access: Access, format: Option<Format>) -> Result<Link> {
        let backing = self.file(path, access)?;
        let format = match format {
            Some(format) => format,
            None => probe(path, &backing)?,
        };
        match format {
            Format::Raw => Self::raw(path, backing),
            Format::Descriptor => {
                let descriptor = read_descriptor(&backing, 0, backing.len()?)?;
                let file = DescriptorFile::new(descriptor, backing, None);
                self.described(Link::new(path.to_owned(), Format::Descriptor, Some(file)), access)
            }
            Format::Sparse => self.sparse_link(path, backing),
        }
    }

    /// A sparse file opened by itself; its descriptor, if any, is inside.
    fn sparse_link(&mut self, path: &Path, backing: Backing) -> Result<Link> {
        let header = SparseExtent::read_header(&backing)?;
        let embedded = header.descriptor_range(backing.len()?, &backing.name)?;
        let descriptor = match embedded {
            None => None,
            Some(range) => {
                let descriptor = read_descriptor(&backing, range.start, range.end - range.start)?;
                Some(DescriptorFile::new(descriptor, backing.clone(), Some(range)))
            }
        };
        let extents =
            descriptor.as_ref().map_or(Ok(0), |file| file.read(|found| found.extents().map(|all| all.len())))?;
        if extents > 1 {
            let format = "an embedded descriptor with several extents";
            return Err(Error::not_supported(&*backing.name, format, "only one extent can hold its own descriptor"));
        }
        let writable = backing.is_writable();
        let sparse = self.sparse(backing)?;
        let mut link = Link::new(path.to_owned(), Format::Sparse, descriptor);
        let len = sparse.capacity();
        link.push(Extent::Sparse(Box::new(sparse)), len, writable)?;
        Ok(link)
    }

    /// Opens the extents that a text descriptor names.
    fn described(&mut self, mut link: Link, access: Access) -> Result<Link> {
        let lines = match &link.descriptor {
            Some(file) => link.named(file.read(Descriptor::extents))?,
            None => Vec::new(),
        };
        if lines.is_empty() {
            return Err(Error::malformed(link.path.display().to_string(), "the descriptor has no extents"));
        }
        for line in &lines {
            let writable = access == Access::ReadWrite && line.access == ExtentAccess::ReadWrite;
            let extent = self.extent(&link.path, line, writable)?;
            link.push(extent, line.len(), writable)?;
        }
        Ok(link)
    }

    fn extent(&mut self, descriptor: &Path, line: &ExtentLine, writable: bool) -> Result<Extent> {
        let object = || descriptor.display().to_string();
        if line.kind == ExtentType::Zero {
            return Ok(Extent::Zero);
        }
        if line.access == ExtentAccess::NoAccess {
            return Err(Error::not_supported(object(), "a NOACCESS extent", "its bytes must not be read"));
        }
        let reason = match line.kind {
            ExtentType::VmfsRdm | ExtentType::VmfsRaw => Some("its bytes are on a device of the ESXi host"),
            ExtentType::Flat | ExtentType::Vmfs | ExtentType::Sparse => None,
            _ => Some("extents of this type cannot be read yet"),
        };
        if let Some(reason) = reason {
            return Err(Error::not_supported(object(), line.kind.name(), reason));
        }
        let name = line.file_name.as_deref().unwrap_or_default();
        let path = self.options.paths.locate(descriptor, name)?;
        let backing = self.file(&path, if writable { Access::ReadWrite } else { Access::ReadOnly })?;
        if line.kind == ExtentType::Sparse {
            refuse_other_sparse(&backing)?;
            let sparse = self.sparse(backing)?;
            if sparse.capacity() < line.len() {
                let problem = format!("it has {} bytes, its descriptor says {}", sparse.capacity(), line.len());
                return Err(Error::malformed(&*sparse.backing().name, problem));
            }
            return Ok(Extent::Sparse(Box::new(sparse)));
        }
        let needed = line.offset().checked_add(line.len());
        let len = backing.len()?;
        if needed.is_none_or(|needed| needed > len) {
            let problem = format!(
                "it has {len} bytes, its descriptor needs {} at offset {}: it is truncated",
                line.len(),
                line.offset()
            );
            return Err(Error::malformed(&*backing.name, problem));
        }
        Ok(Extent::Flat { backing, offset: line.offset() })
    }

    fn sparse(&mut self, backing: Backing) -> Result<SparseExtent> {
        let id = self.next_extent;
        self.next_extent += 1;
        SparseExtent::open(backing, Arc::clone(&self.cache), id)
    }

    fn file(&self, path: &Path, access: Access) -> Result<Backing> {
        let name = path.display().to_string();
        match self.options.resolver.open(path, access) {
            Ok(handle) if access == Access::ReadWrite && handle.writer().is_none() => Err(Error::ReadOnly {
                operation: "open for writing",
                object: name,
                reason: "its storage can only be read",
            }),
            Ok(handle) => Ok(Backing::new(name, handle)),
            Err(error) => Err(Error::io("open", name, None, error)),
        }
    }

    fn identity(&self, path: &Path) -> Result<PathBuf> {
        self.options
            .resolver
            .identity(path)
            .map_err(|error| Error::io("resolve", path.display().to_string(), None, error))
    }
}

/// Finds out what a file is by its first bytes. What is no VMDK is raw, unless its name says otherwise: a
/// damaged descriptor must not become a disk of its own text.
fn probe(path: &Path, backing: &Backing) -> Result<Format> {
    const PROBE_BYTES: u64 = 4096;
    let mut start = vec![0; backing.len()?.min(PROBE_BYTES) as usize];
    backing.read(0, &mut start)?;
    if Magic::of(&start) == Some(Magic::Kdmv) {
        return Ok(Format::Sparse);
    }
    refuse_other_sparse(backing)?;
    if Descriptor::probe(&start) {
        return Ok(Format::Descriptor);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vmdk")) {
        let problem = "neither a descriptor nor a sparse extent; open flat extents with Disk::open_raw";
        return Err(Error::malformed(&*backing.name, problem));
    }
    Ok(Format::Raw)
}

fn refuse_other_sparse(backing: &Backing) -> Result<()> {
    let mut start = [0; 8];
    if backing.len()? < SECTOR {
        return Ok(());
    }
    backing.read(0, &mut start)?;
    let format = match Magic::of(&start) {
        Some(Magic::Cowd) => "COWD (vmfsSparse)",
        Some(Magic::SeSparse) => "seSparse",
        Some(Magic::Kdmv) | None => return Ok(()),
    };
    Err(Error::not_supported(&*backing.name, format, "extents of this type cannot be read yet"))
}

/// Reads a descriptor up to the first NUL, which pads embedded ones.
pub(crate) fn read_descriptor(backing: &Backing, offset: u64, len: u64) -> Result<Descriptor> {
    if len > MAX_DESCRIPTOR_BYTES as u64 {
        return Err(Error::malformed(&*backing.name, format!("a descriptor of {len} bytes")));
    }
    let mut bytes = vec![0; len as usize];
    backing.read(offset, &mut bytes)?;
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Descriptor::parse(&bytes[..end])
}
