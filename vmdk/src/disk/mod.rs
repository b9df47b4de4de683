//! A virtual disk: one link, or a chain of links with its parents.

mod chain;
mod descriptor_file;
mod files;
mod holes;
mod map;
mod metadata;
mod open;
mod options;
#[cfg(feature = "async")]
mod remote;
mod shape;

use std::{
    fmt, mem,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

#[cfg(feature = "async")]
pub use self::remote::AsyncDisk;
use self::{
    chain::{Chain, Described, Shape, Slot},
    descriptor_file::{DescriptorFile, DescriptorPlace},
    files::{Gather, OpenFiles, Opening},
    open::Opener,
};
pub(crate) use self::{descriptor_file::read_descriptor, open::MAX_LINKS};
pub use self::{
    map::MapIter,
    options::{Access, Format, LocalFiles, OpenOptions, PathPolicy, Resolver},
};
use crate::{
    descriptor::{Cid, CreateType},
    error::{Error, OPEN_READ_ONLY, Result},
    extent::{Backing, SparseExtent, Underlay},
    grains::Place,
    image::{Image, MapEntry},
    source::Handle,
};

/// An opened virtual disk.
///
/// Reads, maps and writes take `&self` and may run on many threads. Dropping a disk closes it without
/// reporting failures; [`Disk::close`] reports them.
#[doc(alias = "VixDiskLib_Open")]
pub struct Disk {
    chain: Chain,
    files: OpenFiles,
    /// The disk's own.
    descriptor: Option<DescriptorFile>,
    /// The sparse extents of the disk itself that are open for writing, by number of the extent.
    writers: Vec<Option<SparseExtent>>,
    writable: bool,
    /// The content id was changed since the disk was opened.
    cid_updated: AtomicBool,
    cid_lock: Mutex<()>,
}

/// One link of a disk, as [`Disk::links`] describes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkInfo {
    /// File with the descriptor, or the raw file.
    pub path: PathBuf,
    /// What that file is.
    pub format: Format,
    /// How the link was made; `None` for raw files.
    pub create_type: Option<CreateType>,
    /// Size in bytes; a child may be larger than its parent.
    pub capacity: u64,
    /// Files with the link's data, in disk order.
    pub data_files: Vec<String>,
}

impl Disk {
    /// Opens a disk, finding out by content whether it is raw, a descriptor or a sparse file; parents are
    /// opened too and their content ids checked.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`], [`Error::NotSupported`] for formats that are known but not
    /// handled, [`Error::Chain`] and [`Error::PathRefused`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let mut opening = Opening::new(options);
        let chain = Opener::new(&mut opening, options).chain(path.as_ref())?;
        let writable = options.access == Access::ReadWrite;
        Self::assemble(chain, opening.opened, writable, options.update_cid, Arc::clone(&options.resolver))
    }

    /// Opens a raw file or block device, whatever it holds.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_raw(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        Self::open(path, &OpenOptions::new().access(access).format(Format::Raw))
    }

    /// Makes a raw disk of an opened source; `name` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Io`] when the source does not know its size.
    pub fn from_source(name: impl Into<String>, source: Handle) -> Result<Self> {
        let name = name.into();
        let writable = source.writer().is_some();
        let mut files = OpenFiles::new(0, 0);
        let backing = Backing::new(name.as_str(), source);
        let len = backing.len()?;
        let chain = Chain::raw(Path::new(&name), files.add(backing), len, writable)?;
        Self::assemble(chain, files, writable, false, Arc::new(LocalFiles))
    }

    fn assemble(
        mut chain: Chain,
        files: OpenFiles,
        writable: bool,
        update_cid: bool,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self> {
        let mut writers = Vec::new();
        let own = chain.links[0].descriptor.clone();
        let is_tracked = own.as_ref().is_some_and(|own| !matches!(own.descriptor.change_track_path(), Ok(None)));
        for slot in &mut chain.links[0].slots {
            writers.push(match &mut slot.shape {
                Shape::Sparse { file, grains } if slot.writable => {
                    let writer = SparseExtent::open(Arc::clone(files.tables(*file)), is_tracked)?;
                    **grains = writer.grains().clone();
                    Some(writer)
                }
                _ => None,
            });
        }
        let path = chain.links[0].path.clone();
        let descriptor = own.map(|Described { descriptor, file, embedded }| {
            let place = embedded.map_or(DescriptorPlace::File { path, resolver }, DescriptorPlace::Embedded);
            DescriptorFile::new(descriptor, files.backing(file).clone(), place)
        });
        let (cid_updated, cid_lock) = (AtomicBool::new(!update_cid), Mutex::new(()));
        Ok(Self { chain, files, descriptor, writers, writable, cid_updated, cid_lock })
    }

    /// Size in bytes. Disks of vSphere have whole sectors; raw files may have any size.
    pub fn capacity(&self) -> u64 {
        self.chain.capacity()
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Io`], and [`Error::Malformed`] where the image turns out to be damaged
    /// or truncated. `buf` is then unspecified.
    #[doc(alias = "VixDiskLib_Read")]
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check("read", offset, buf.len() as u64)?;
        self.read_from(0, offset, buf)
    }

    /// What is in `range`: see [`Image::map`]. A range that leaves the disk is cut at its end.
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    pub fn map(&self, range: Range<u64>) -> MapIter<'_> {
        let end = range.end.min(self.capacity());
        MapIter::new(self, range.start.min(end)..end)
    }

    /// Writes `data` at `offset`. The first write also gives the disk a new content id.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::OutOfRange`] before anything is changed; after another error some
    /// bytes may have been written.
    #[doc(alias = "VixDiskLib_Write")]
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let of_part = |slot: &Slot, part: &Range<u64>| {
            let from = (slot.range.start + part.start - offset) as usize;
            &data[from..from + (part.end - part.start) as usize]
        };
        let range = offset..offset.saturating_add(data.len() as u64);
        // Writing zeros to zeros is what a restore of such a disk does.
        let takes =
            |slot: &Slot, part| slot.shape.file().is_some() || of_part(slot, &part).iter().all(|&byte| byte == 0);
        self.change("write", range, takes, |number, slot, part, under| {
            let data = of_part(slot, &part);
            match (&slot.shape, &self.writers[number]) {
                (Shape::Flat { file, offset }, _) => self.files.backing(*file).write(offset + part.start, data),
                (Shape::Sparse { .. }, Some(sparse)) => sparse.write(part.start, data, under),
                (Shape::Sparse { .. }, None) => {
                    Err(Error::ReadOnly { operation: "write", object: self.name(), reason: OPEN_READ_ONLY })
                }
                (Shape::Zero, _) => Ok(()),
            }
        })
    }

    /// Makes `range` read as zero and gives its space back where the storage can.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    pub fn zero_at(&self, range: Range<u64>) -> Result<()> {
        // Whether or not the parent is open: with a single link it must not come back either.
        let has_parent = self.chain.links[0].content_ids()?.1 != Cid::NONE;
        let takes = |_: &Slot, _| true;
        self.change("zero", range, takes, |number, slot, part, under| match (&slot.shape, &self.writers[number]) {
            (Shape::Flat { file, offset }, _) => {
                self.files.backing(*file).punch(offset + part.start..offset + part.end)
            }
            (Shape::Sparse { .. }, Some(sparse)) => sparse.zero(part, has_parent, under),
            (Shape::Zero | Shape::Sparse { .. }, _) => Ok(()),
        })
    }

    /// Returns when all completed writes are on stable storage.
    ///
    /// # Errors
    /// [`Error::Io`]; the state of the completed writes is then unknown.
    #[doc(alias = "VixDiskLib_Flush")]
    pub fn flush(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        let own = self.chain.links[0].slots.iter().filter_map(|slot| slot.shape.file());
        own.into_iter().try_for_each(|file| self.files.backing(file).sync())?;
        self.descriptor.as_ref().map_or(Ok(()), DescriptorFile::sync)
    }

    /// Flushes, marks sparse extents as cleanly closed, and closes the disk. The mark of an unclean shutdown stays after
    /// a write that failed, and where an earlier writer left it: [`check`](mod@crate::check) and
    /// [`repair`](mod@crate::repair) tell what is wrong and clear it.
    ///
    /// # Errors
    /// [`Error::Io`]; the files are closed all the same.
    #[doc(alias = "VixDiskLib_Close")]
    pub fn close(self) -> Result<()> {
        self.writers.iter().flatten().try_for_each(SparseExtent::close)?;
        self.flush()
    }

    /// Whether the disk was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The links of the chain, the disk itself first.
    pub fn links(&self) -> impl ExactSizeIterator<Item = LinkInfo> {
        self.chain.describe(|file| self.files.backing(file).name.to_string()).into_iter()
    }

    /// Reads from `link` and, where it has nothing, from the links under it.
    fn read_from(&self, link: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = offset..offset + buf.len() as u64;
        let mut rest = buf;
        let mut gather = Gather::default();
        let _ = self.chain.walk(link, range, &self.files, &mut |piece| {
            let (now, later) = mem::take(&mut rest).split_at_mut((piece.range.end - piece.range.start) as usize);
            rest = later;
            match piece.place {
                // One read is most often all there is.
                Place::At(at) if rest.is_empty() && gather.is_empty() => {
                    self.files.backing(piece.file).read(at, now)?
                }
                Place::At(at) => gather.add(&self.files, piece.file, at, now)?,
                Place::Packed(packed) => self.files.unpack(piece.file, &packed, now)?,
                Place::Zero | Place::Unallocated => now.fill(0),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        gather.read(&self.files)
    }

    /// Checks, prepares and applies a change extent by extent. `takes` says whether an extent can hold its part of the
    /// change; `apply` gets number and extent, the part of the range in it, and a reader of the parents.
    fn change(
        &self,
        operation: &'static str,
        range: Range<u64>,
        takes: impl Fn(&Slot, Range<u64>) -> bool,
        apply: impl Fn(usize, &Slot, Range<u64>, Underlay<'_>) -> Result<()>,
    ) -> Result<()> {
        self.check_writable(operation)?;
        let len = range.end.saturating_sub(range.start);
        self.check(operation, range.start, len)?;
        if len == 0 {
            return Ok(());
        }
        let slots = &self.chain.links[0].slots;
        let first = slots.partition_point(|slot| slot.range.end <= range.start);
        let touched = || slots.iter().enumerate().skip(first).take_while(|(_, slot)| slot.range.start < range.end);
        for (_, slot) in touched() {
            if let (false, Some(file)) = (slot.writable, slot.shape.file()) {
                let object = self.files.backing(file).name.to_string();
                return Err(Error::ReadOnly { operation, object, reason: "its descriptor says RDONLY" });
            }
            if !takes(slot, slot.part(&range)) {
                let (object, reason) = (format!("a ZERO extent of {}", self.name()), "it has no file to hold data");
                return Err(Error::ReadOnly { operation, object, reason });
            }
        }
        self.note_change()?;
        touched().try_for_each(|(number, slot)| {
            let under = |offset: u64, buf: &mut [u8]| self.read_from(1, slot.range.start + offset, buf);
            apply(number, slot, slot.part(&range), &under)
        })
    }

    fn check_writable(&self, operation: &'static str) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::ReadOnly { operation, object: self.name(), reason: OPEN_READ_ONLY })
    }

    fn check(&self, operation: &'static str, offset: u64, len: u64) -> Result<()> {
        let capacity = self.capacity();
        match offset.checked_add(len) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(Error::OutOfRange { operation, offset, len, capacity }),
        }
    }

    fn name(&self) -> String {
        self.chain.name()
    }
}

impl Image for Disk {
    fn capacity(&self) -> u64 {
        Disk::capacity(self)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Disk::read_at(self, offset, buf)
    }
    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Result<MapEntry>> + Send + '_> {
        Box::new(Disk::map(self, range))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        Disk::write_at(self, offset, data)
    }
    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        Disk::zero_at(self, range)
    }
    fn flush(&self) -> Result<()> {
        Disk::flush(self)
    }
    fn is_writable(&self) -> bool {
        Disk::is_writable(self)
    }
    fn ddb_get(&self, key: &str) -> Option<String> {
        Disk::ddb_get(self, key)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.chain.links[0].path)
            .field("capacity", &self.capacity())
            .field("links", &self.chain.links.len())
            .field("writable", &self.writable)
            .finish()
    }
}

// Handed to other crates as `Arc<dyn Image>`.
const _: fn(Arc<Disk>) -> Arc<dyn Image> = |disk| disk;
