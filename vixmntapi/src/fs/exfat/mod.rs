//! exFAT: Microsoft's "exFAT file system specification", revision 1.00.
//!
//! There is no journal: a volume that was in use is [`Consistency::DirtyIgnored`]. Times without a zone are told as if
//! they were in UTC.

mod boot;
mod directory;
mod upcase;

use std::sync::Arc;

use self::{
    boot::Boot,
    directory::{FileEntry, Item, Listing},
    upcase::Upcase,
};
use super::{
    Consistency, Content, Entries, Entry, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId,
    fat::{self, ENTRY, RawEntries, RunContent, Runs, Table, Wanted, node, units},
};
use crate::{
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Opens a device that holds exFAT.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    Ok(Boot::read(device)?.map(|boot| Arc::new(ExFat::open(boot)) as _))
}

/// A volume.
#[derive(Debug)]
struct ExFat {
    table: Table,
    root: u32,
    info: FileSystemInfo,
    /// `None` when it cannot be read: then no name can be looked up.
    upcase: Option<Upcase>,
}

impl ExFat {
    fn open(boot: Boot) -> Self {
        let Boot { table, root, serial, total, dirty } = boot;
        let mut info = FileSystemInfo::new("exfat", table.cluster_size, total);
        info.uuid = Some(fat::serial(serial));
        if dirty {
            info.consistency = Consistency::DirtyIgnored;
        }
        let mut volume = Self { table, root, info, upcase: None };
        // What is wrong with the root directory is said when it is listed.
        let Ok(mut listing) = volume.list(volume.root()) else { return volume };
        while let Some(Ok(item)) = listing.next() {
            match item {
                Item::Label(label) if !label.is_empty() => {
                    volume.info.label = Some(FileName::from_utf16(label).to_string_lossy().into_owned());
                }
                Item::Upcase { checksum, first, len } => volume.upcase = volume.capitals(checksum, first, len).ok(),
                _ => {}
            }
        }
        volume
    }

    fn capitals(&self, checksum: u32, first: u32, len: u64) -> Result<Upcase> {
        if len > LARGEST_UPCASE {
            return Err(Error::damaged("the up-case table", format!("it has {len} bytes")));
        }
        let runs = self.table.chain(first, Wanted::Bytes(len))?;
        let mut raw = vec![0; len as usize];
        RunContent::open(self.table.device.clone(), runs, len, len).read_at(0, &mut raw)?;
        Upcase::parse(&raw, checksum)
    }

    fn list(&self, directory: NodeId) -> Result<Listing> {
        let runs = if directory == self.root() {
            self.table.chain(self.root, Wanted::AtMost(LARGEST_DIRECTORY))?
        } else {
            let entry = self.entry(directory)?;
            if !entry.is_directory() {
                return Err(Error::NotADirectory(self.table.describe(directory)));
            }
            if entry.size > LARGEST_DIRECTORY {
                return Err(Error::damaged(self.table.describe(directory), format!("it has {} bytes", entry.size)));
            }
            self.runs(&entry)?
        };
        Ok(Listing::new(RawEntries::new(self.table.device.clone(), runs)))
    }

    /// Where the bytes of a file or directory lie.
    fn runs(&self, entry: &FileEntry) -> Result<Runs> {
        match entry {
            FileEntry { size: 0, .. } => Ok(Runs::default()),
            FileEntry { contiguous: true, .. } => self.table.contiguous(entry.first, entry.size),
            _ => self.table.chain(entry.first, Wanted::Bytes(entry.size)),
        }
    }

    /// The set of entries that begins where the number of a node says.
    fn entry(&self, node: NodeId) -> Result<FileEntry> {
        let Table { device, heap, clusters, cluster_size, .. } = &self.table;
        let size = u64::from(*cluster_size);
        let missing = || Error::NotFound(self.table.describe(node));
        let into = node.number.checked_sub(*heap).filter(|into| into / size < u64::from(*clusters));
        let into = into.filter(|into| node.tree == 0 && into.is_multiple_of(ENTRY as u64)).ok_or_else(missing)?;
        let [_, count, ..] = device.read_array::<ENTRY>(node.number)?;
        let (cluster, start) = ((into / size) as u32 + 2, into % size);
        let end = start + (u64::from(count) + 1) * ENTRY as u64;
        let read = |runs| {
            let raw = RawEntries::new(device.clone(), runs).starting_at(start);
            FileEntry::read(raw)?.ok_or_else(missing)
        };
        // Whether the clusters of the directory lie side by side is not said here, but one way only leads to the set's
        // checksum.
        let side_by_side = self.table.contiguous(cluster, end).and_then(read);
        if side_by_side.is_err() && end > size {
            return self.table.chain(cluster, Wanted::Bytes(end)).and_then(read);
        }
        side_by_side
    }
}

impl FileSystem for ExFat {
    fn info(&self) -> FileSystemInfo {
        self.info.clone()
    }

    fn root(&self) -> NodeId {
        NodeId::default()
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        if node == self.root() {
            return Ok(Metadata::new(FileKind::Directory, 0));
        }
        Ok(self.entry(node)?.metadata(self.table.cluster_size))
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        let listing = self.list(directory)?;
        let problem =
            || Error::damaged("the up-case table", "it cannot be read, and names cannot be compared without it");
        let upcase = self.upcase.as_ref().ok_or_else(problem)?;
        let Some(wanted) = units(name).map(|name| upcase.name(&name)) else { return Ok(None) };
        let hash = upcase::hash(&wanted);
        for item in listing {
            match item? {
                Item::File(file) if file.is(&wanted, hash, upcase) => return Ok(Some(node(file.place))),
                _ => {}
            }
        }
        Ok(None)
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        Ok(Box::new(self.list(directory)?.filter_map(|item| match item {
            Ok(Item::File(file)) => {
                let name = FileName::from_utf16(file.name.iter().copied());
                Some(Ok(Entry::new(name, node(file.place), Some(file.kind()))))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })))
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        self.table.no_link(node)
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        self.table.may_be_file(node, stream)?;
        let entry = self.entry(node)?;
        if entry.is_directory() {
            return Err(self.table.is_directory(node));
        }
        Ok(RunContent::open(self.table.device.clone(), self.runs(&entry)?, entry.size, entry.valid))
    }
}

/// The largest directory: chapter 7.4.
const LARGEST_DIRECTORY: u64 = 256 << 20;
/// 65 536 characters that are not packed.
const LARGEST_UPCASE: u64 = 128 << 10;
