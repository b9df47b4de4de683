//! Growing a disk.

use std::path::{Path, PathBuf};

use super::{
    hosted::grow_hosted,
    own_files::{OwnFiles, open},
};
use crate::{
    SECTOR,
    create::{CreateKind, CreateSpec, MAX_CAPACITY, NewFiles, NewSparse, SPLIT_SECTORS, file_name, split},
    descriptor::{AdapterType, CreateType, Descriptor, ExtentAccess, ExtentLine, ExtentType, Geometry},
    disk::{Disk, Format, OpenOptions, PathPolicy},
    error::{Error, Result},
    extent::Backing,
    layout::SparseFlags,
};

/// How [`grow`] works.
#[derive(Debug, Clone)]
#[must_use]
pub struct GrowOptions {
    paths: PathPolicy,
    update_geometry: bool,
}

impl GrowOptions {
    /// Keeps the geometry and stays in the directory.
    pub fn new() -> Self {
        Self { paths: PathPolicy::SameDirectory, update_geometry: false }
    }

    /// Sets which files the descriptor may name.
    pub fn paths(mut self, policy: PathPolicy) -> Self {
        self.paths = policy;
        self
    }

    /// Whether the number of cylinders follows the size (default: no). Heads and sectors stay: a guest's boot loader
    /// may have remembered them.
    pub fn update_geometry(mut self, update: bool) -> Self {
        self.update_geometry = update;
        self
    }
}

impl Default for GrowOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes the disk at `path`, which nobody has open, larger; what is added reads as zero and takes no space.
///
/// The data are made ready first, then the descriptor says so: after a crash in between the disk has its old size, or
/// its new one, and growing it again completes the work. A split disk gets new files after its last; those that a crash
/// left without a line in the descriptor must be removed before that. Grain tables of a
/// sparse disk stay; directories that become too short move to the end of the file, and the header changes from the
/// old to the new ones in one write of a sector. The content id stays, so children still fit; those keep their size.
///
/// # Errors
/// [`Error::InvalidInput`] for a size that is smaller than the disk's, no multiple of 512 or larger than 62 TB;
/// [`Error::NotSupported`] for what cannot grow: children of other disks, compressed and snapshot extents, devices, a
/// sparse file that would reach 2 TiB. Nothing is changed then, and neither where a sparse file has no room for the
/// changed descriptor ([`Error::InvalidInput`]). [`Error::Io`] also when a new file exists already.
#[doc(alias = "VixDiskLib_Grow")]
pub fn grow(path: impl AsRef<Path>, capacity: u64, options: &GrowOptions) -> Result<()> {
    let path = path.as_ref();
    let open_options = OpenOptions::new().writable().single_link(true).update_cid(false).paths(options.paths);
    // Opened for its checks: all extents are there, whole and writable.
    let disk = Disk::open(path, &open_options)?;
    let (old, is_raw) = (disk.capacity(), disk.links().next().is_some_and(|link| link.format == Format::Raw));
    drop(disk);
    check_capacity(old, capacity, is_raw)?;
    if is_raw {
        let file = open(path, true)?;
        file.set_len(capacity)?;
        return file.sync();
    }
    let own = OwnFiles::read(path, options.paths)?;
    let mut growth = Growth { own: &own, lines: own.descriptor.extents()?, new_files: NewFiles::default() };
    growth.check()?;
    growth.plan(capacity / SECTOR)?;
    let mut descriptor = own.descriptor.clone();
    descriptor.set_extents(&growth.lines)?;
    if options.update_geometry {
        update_geometry(&mut descriptor, capacity)?;
    }
    own.check_room(&descriptor)?;
    growth.extents()?;
    let Growth { new_files, .. } = growth;
    new_files.keep(|| if descriptor == own.descriptor { Ok(()) } else { own.store(&descriptor) }, path)
}

fn check_capacity(old: u64, capacity: u64, is_raw: bool) -> Result<()> {
    let bad = |problem: String| Err(Error::invalid("capacity", format!("{capacity} bytes: {problem}")));
    if capacity < old {
        return bad(format!("the disk has {old}, and disks do not shrink"));
    }
    if !is_raw && (!capacity.is_multiple_of(SECTOR) || capacity > MAX_CAPACITY) {
        return bad(format!("it must be whole sectors of {SECTOR}, up to 62 TB"));
    }
    Ok(())
}

/// One growth under way.
struct Growth<'a> {
    own: &'a OwnFiles,
    /// The extents as they will be.
    lines: Vec<ExtentLine>,
    new_files: NewFiles,
}

impl Growth<'_> {
    /// Refuses what cannot grow, before anything is changed.
    fn check(&self) -> Result<()> {
        let object = || self.own.path.display().to_string();
        if self.own.is_child()? {
            let reason = "it shares its size with its parents: grow the disk that the chain is copied to";
            return Err(Error::not_supported(object(), "growing a child", reason));
        }
        let Some((last, file)) = self.own.extents.last() else {
            return Err(Error::malformed(object(), "the descriptor has no extents"));
        };
        let refuse = |reason| Err(Error::not_supported(object(), format!("growing the extent {last}"), reason));
        if last.access != ExtentAccess::ReadWrite {
            return refuse("it is not to be written");
        }
        match last.kind {
            ExtentType::Zero | ExtentType::Sparse => Ok(()),
            ExtentType::Flat | ExtentType::Vmfs => {
                // By the file itself: it may have several names.
                let identity = |file: &Option<PathBuf>| file.as_ref().and_then(|file| file.canonicalize().ok());
                let own = identity(file);
                let shared = self.own.extents.iter().filter(|(_, other)| identity(other) == own).count() > 1;
                if shared { refuse("another extent is in the same file") } else { Ok(()) }
            }
            _ => refuse("extents of this type are only read"),
        }
    }

    /// Makes the last line larger, and adds more to a split disk.
    fn plan(&mut self, sectors: u64) -> Result<()> {
        let Some((last, _)) = self.own.extents.last() else { return Ok(()) };
        let before: u64 = self.lines.iter().rev().skip(1).map(|line| line.size_sectors).sum();
        let wanted = sectors - before;
        let create_type = self.own.descriptor.create_type();
        let is_split = matches!(create_type, Some(CreateType::TwoGbMaxExtentFlat | CreateType::TwoGbMaxExtentSparse));
        // QEMU's files are larger than VMware's.
        let size = if is_split { wanted.min(SPLIT_SECTORS.max(last.size_sectors)) } else { wanted };
        if let Some(line) = self.lines.last_mut() {
            line.size_sectors = size;
        }
        let name = file_name(&self.own.path)?;
        self.lines.extend(split(name, last.kind.clone(), wanted - size, self.lines.len()));
        Ok(())
    }

    /// Grows the last extent to its new line, and makes the files of those that were added.
    fn extents(&mut self) -> Result<()> {
        let old = self.own.extents.len();
        let Some(((last, file), line)) = self.own.extents.last().zip(self.lines.get(old - 1)) else { return Ok(()) };
        if let Some(file) = file {
            let file = open(file, true)?;
            match last.kind {
                ExtentType::Sparse => grow_hosted(&file, line.size_sectors)?,
                _ => grow_flat(&file, last.offset() + last.len(), last.offset() + line.len())?,
            }
        }
        for line in &self.lines[old..] {
            let name = line.file_name.as_deref().unwrap_or_default();
            let file = self.new_files.create(&self.own.path.with_file_name(name))?;
            if last.kind == ExtentType::Sparse {
                let spec = self.like_last_extent(line.len())?;
                NewSparse::lay_out(line.size_sectors, &spec, None)?.write(&file, &[])?;
            } else {
                file.set_len(line.len())?;
            }
            file.sync()?;
        }
        Ok(())
    }

    /// Grain size and flags of the extents that are there.
    fn like_last_extent(&self, capacity: u64) -> Result<CreateSpec> {
        let spec = CreateSpec::new(capacity, CreateKind::TwoGbMaxExtentSparse);
        let Some((_, Some(path))) = self.own.extents.last() else { return Ok(spec) };
        let header = open(path, false)?.sparse_header()?;
        let zeroed = header.flags.has(SparseFlags::ZEROED_GRAINS);
        Ok(spec.grain_bytes(header.grain_sectors * SECTOR).zeroed_grains(zeroed))
    }
}

/// Makes a flat file longer. What it may have behind its old end must not appear in the disk.
fn grow_flat(file: &Backing, old_end: u64, end: u64) -> Result<()> {
    let len = file.len()?;
    if len > old_end && end > old_end {
        file.punch(old_end..len.min(end))?;
    }
    if len < end {
        file.set_len(end)?;
    }
    file.sync()
}

fn update_geometry(descriptor: &mut Descriptor, capacity: u64) -> Result<()> {
    let adapter = descriptor.ddb_get("adapterType").map_or(AdapterType::LsiLogic, |name| AdapterType::from_name(&name));
    let usual = Geometry::for_disk(capacity, &adapter);
    let geometry = match Geometry::of(descriptor) {
        Some(Geometry { heads: heads @ 1.., sectors: sectors @ 1.., .. }) => {
            let cylinders = capacity / SECTOR / (u64::from(heads) * u64::from(sectors));
            let limit = if adapter == AdapterType::Ide { IDE_CYLINDERS } else { u64::MAX };
            Geometry { cylinders: cylinders.clamp(1, limit), heads, sectors }
        }
        _ => usual,
    };
    geometry.store(descriptor)
}

/// Most cylinders that an IDE disk tells.
const IDE_CYLINDERS: u64 = 16383;
