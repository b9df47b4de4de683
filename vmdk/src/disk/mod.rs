//! A virtual disk: one link, or a chain of links with its parents.

mod link;
mod map;
mod open;
mod options;

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) use self::open::{MAX_LINKS, read_descriptor};
use self::{link::Link, open::Opener};
pub use self::{
    map::MapIter,
    options::{Access, Format, LocalFiles, OpenOptions, PathPolicy, Resolver},
};
use crate::{
    descriptor::{Cid, CreateType, Descriptor},
    error::{Error, OPEN_READ_ONLY, Result},
    extent::{Backing, Extent},
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
    /// The disk itself first, then its parents.
    links: Vec<Link>,
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
        let links = Opener::new(options).chain(path.as_ref())?;
        Ok(Self::from_links(links, options.access == Access::ReadWrite, options.update_cid))
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
        let link = Opener::raw(Path::new(&name), Backing::new(name.as_str(), source))?;
        Ok(Self::from_links(vec![link], writable, false))
    }

    fn from_links(links: Vec<Link>, writable: bool, update_cid: bool) -> Self {
        Self { links, writable, cid_updated: AtomicBool::new(!update_cid), cid_lock: Mutex::new(()) }
    }

    /// Size in bytes. Disks of vSphere have whole sectors; raw files may have any size.
    pub fn capacity(&self) -> u64 {
        self.links[0].capacity
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
        self.change("write", offset..offset.saturating_add(data.len() as u64), |link, slot, part| {
            let from = (slot.range.start + part.start - offset) as usize;
            let len = (part.end - part.start) as usize;
            slot.extent.write(part.start, &data[from..from + len], &|at, buf| link(slot.range.start + at, buf))
        })
    }

    /// Makes `range` read as zero and gives its space back where the storage can.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    pub fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let has_parent = self.links.len() > 1;
        self.change("zero", range, |link, slot, part| {
            slot.extent.zero(part, has_parent, &|at, buf| link(slot.range.start + at, buf))
        })
    }

    /// Returns when all completed writes are on stable storage.
    ///
    /// # Errors
    /// [`Error::Io`]; the state of the completed writes is then unknown.
    #[doc(alias = "VixDiskLib_Flush")]
    pub fn flush(&self) -> Result<()> {
        if self.writable { self.links[0].flush() } else { Ok(()) }
    }

    /// Flushes, marks sparse extents as cleanly closed, and closes the disk.
    ///
    /// # Errors
    /// [`Error::Io`]; the files are closed all the same.
    #[doc(alias = "VixDiskLib_Close")]
    pub fn close(self) -> Result<()> {
        if self.writable { self.links[0].close() } else { Ok(()) }
    }

    /// Whether the disk was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// A copy of the disk's own descriptor; `None` for raw disks and bare sparse extents.
    pub fn descriptor(&self) -> Option<Descriptor> {
        self.links[0].descriptor.as_ref().map(|file| file.read(Clone::clone))
    }

    /// A value of the disk data base, from the first link that has it, the disk itself first.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn ddb_get(&self, key: &str) -> Option<String> {
        let value =
            |link: &Link| link.descriptor.as_ref()?.read(|found| found.ddb_get(key).map(|text| text.into_owned()));
        self.links.iter().find_map(value)
    }

    /// Sets a value of the disk's own data base, in the file at once.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] for disks without a descriptor or not open for writing, [`Error::InvalidInput`]
    /// for values that cannot be written or do not fit.
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub fn ddb_set(&self, key: &str, value: &str) -> Result<()> {
        self.edit_descriptor(|descriptor| descriptor.ddb_set(key, value))
    }

    /// Removes a value of the disk's own data base, in the file at once; returns whether it was there.
    ///
    /// # Errors
    /// As [`Disk::ddb_set`].
    pub fn ddb_remove(&self, key: &str) -> Result<bool> {
        let mut removed = false;
        self.edit_descriptor(|descriptor| {
            removed = descriptor.ddb_remove(key);
            Ok(())
        })?;
        Ok(removed)
    }

    /// The links of the chain, the disk itself first.
    pub fn links(&self) -> impl ExactSizeIterator<Item = LinkInfo> {
        self.links.iter().map(|link| LinkInfo {
            path: link.path.clone(),
            format: link.format,
            create_type: link.descriptor.as_ref().and_then(|file| file.read(Descriptor::create_type)),
            capacity: link.capacity,
            data_files: link.slots().iter().filter_map(|slot| Some(slot.extent.backing()?.name.to_string())).collect(),
        })
    }

    /// Reads from `link` and, where it has nothing, from the links under it.
    fn read_from(&self, link: usize, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let Some(this) = self.links.get(link) else {
            buf.fill(0);
            return Ok(());
        };
        while !buf.is_empty() {
            let Some((_, slot)) = this.slot(offset) else {
                // Past the end of a parent that is smaller than its child.
                buf.fill(0);
                return Ok(());
            };
            let part = slot.part(&(offset..offset + buf.len() as u64));
            let run = slot.extent.run(part)?;
            let (now, rest) = buf.split_at_mut(run.len as usize);
            match (run.place, slot.extent.backing()) {
                (Place::At(at), Some(backing)) => backing.read(at, now)?,
                (Place::Unallocated, _) => self.read_from(link + 1, offset, now)?,
                (Place::Zero | Place::At(_), _) => now.fill(0),
            }
            offset += run.len;
            buf = rest;
        }
        Ok(())
    }

    /// Checks, prepares and applies a change extent by extent. `apply` gets a reader of the parents, the
    /// extent and the part of the range in it.
    fn change(
        &self,
        operation: &'static str,
        range: Range<u64>,
        apply: impl Fn(&dyn Fn(u64, &mut [u8]) -> Result<()>, &link::Slot, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        self.check_writable(operation)?;
        let len = range.end.saturating_sub(range.start);
        self.check(operation, range.start, len)?;
        if len == 0 {
            return Ok(());
        }
        let this = &self.links[0];
        let read_only = |slot: &&link::Slot| !slot.writable && !matches!(slot.extent, Extent::Zero);
        let first = this.slots().partition_point(|slot| slot.range.end <= range.start);
        let touched = || this.slots()[first..].iter().take_while(|slot| slot.range.start < range.end);
        if let Some(slot) = touched().find(read_only) {
            let object = slot.extent.backing().map_or_else(String::new, |backing| backing.name.to_string());
            return Err(Error::ReadOnly { operation, object, reason: "its descriptor says RDONLY" });
        }
        self.note_change()?;
        let under = |offset: u64, buf: &mut [u8]| self.read_from(1, offset, buf);
        touched().try_for_each(|slot| apply(&under, slot, slot.part(&range)))
    }

    /// Gives the disk a new content id before its first change, so that no crash can leave changed bytes
    /// under the old one.
    fn note_change(&self) -> Result<()> {
        if self.cid_updated.load(Ordering::Acquire) {
            return Ok(());
        }
        let _lock = self.cid_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.cid_updated.load(Ordering::Acquire) {
            if let Some(file) = &self.links[0].descriptor {
                file.edit(|descriptor| descriptor.set_cid(Cid::random()))?;
            }
            self.cid_updated.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn edit_descriptor(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        const OPERATION: &str = "change the descriptor of";
        self.check_writable(OPERATION)?;
        match &self.links[0].descriptor {
            Some(file) => file.edit(change),
            None => Err(Error::ReadOnly { operation: OPERATION, object: self.name(), reason: "it has none" }),
        }
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
        self.links[0].path.display().to_string()
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
            .field("path", &self.links[0].path)
            .field("capacity", &self.capacity())
            .field("links", &self.links.len())
            .field("writable", &self.writable)
            .finish()
    }
}

// Handed to other crates as `Arc<dyn Image>`.
const _: fn(Arc<Disk>) -> Arc<dyn Image> = |disk| disk;
