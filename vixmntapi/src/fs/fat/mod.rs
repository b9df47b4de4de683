//! FAT12, FAT16 and FAT32 with long names: Microsoft's "FAT: General Overview of On-Disk Format", version 1.03.
//!
//! There is no journal: a volume that was in use is [`Consistency::DirtyIgnored`]. Times have no zone and are told as if
//! they were in UTC; short names are in code page 437. What says in which zone and code page a guest writes is in the
//! guest, not on the volume.

mod boot;
mod directory;
mod name;
mod place;
mod raw;
mod runs;
mod table;
mod time;

use std::sync::Arc;

use self::{
    boot::{Boot, Root},
    directory::{Listing, ShortEntry},
};
pub(in crate::fs) use self::{
    name::units,
    place::{node, serial},
    raw::{ENTRY, RawEntries},
    runs::{RunContent, Runs},
    table::{Table, Wanted, Width},
    time::{days, from_dos},
};
use super::{Consistency, Content, Entries, Entry, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId};
use crate::{
    bytes::le_u32,
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Opens a device that holds FAT.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    match Boot::read(device)? {
        Some(boot) => Ok(Some(Arc::new(Fat::open(boot)?))),
        None => Ok(None),
    }
}

/// A volume.
#[derive(Debug)]
struct Fat {
    table: Table,
    root: Root,
    info: FileSystemInfo,
}

impl Fat {
    fn open(boot: Boot) -> Result<Self> {
        let Boot { table, root, serial, label, total, info: free_place, dirty } = boot;
        let mut info = FileSystemInfo::new("vfat", table.cluster_size, total);
        info.uuid = serial.map(place::serial);
        let state = table.entry(1)?;
        let clean = match table.width {
            Width::Twelve => true,
            Width::Sixteen => state & 0x8000 != 0,
            Width::TwentyEight | Width::ThirtyTwo => state & 0x0800_0000 != 0,
        };
        if dirty || !clean {
            info.consistency = Consistency::DirtyIgnored;
        }
        info.free = free_place.and_then(|place| free(&table, place));
        let mut fat = Self { table, root, info };
        fat.info.label = fat.label(&label);
        Ok(fat)
    }

    /// The label in the root directory, else that in the boot sector.
    fn label(&self, boot: &[u8]) -> Option<String> {
        let mut listing = self.list(self.root()).ok()?;
        let of_root = std::iter::from_fn(|| listing.next()?.ok()).find_map(|item| item.entry.label());
        let of_boot = FileName::from_utf16(name::label(boot));
        let label = of_root.unwrap_or(of_boot).to_string_lossy().into_owned();
        (!label.is_empty() && label != "NO NAME").then_some(label)
    }

    fn list(&self, directory: NodeId) -> Result<Listing> {
        let runs = if directory == self.root() {
            match &self.root {
                Root::Fixed(runs) => runs.clone(),
                Root::Chain(first) => self.table.chain(*first, Wanted::AtMost(LARGEST_DIRECTORY))?,
            }
        } else {
            let entry = self.entry(directory)?;
            if !entry.is_directory() {
                return Err(Error::NotADirectory(self.table.describe(directory)));
            }
            self.table.chain(self.first(&entry), Wanted::AtMost(LARGEST_DIRECTORY))?
        };
        Ok(Listing::new(RawEntries::new(self.table.device.clone(), runs)))
    }

    /// The entry whose place is the number of a node.
    fn entry(&self, node: NodeId) -> Result<ShortEntry> {
        let lowest = match &self.root {
            Root::Fixed(runs) => runs.find(0).map_or(self.table.heap, |(place, _)| place),
            Root::Chain(_) => self.table.heap,
        };
        let end = self.table.heap + u64::from(self.table.clusters) * u64::from(self.table.cluster_size);
        if node.tree != 0 || node.number < lowest || node.number >= end || !node.number.is_multiple_of(ENTRY as u64) {
            return Err(Error::NotFound(self.table.describe(node)));
        }
        let raw = self.table.device.read_array(node.number)?;
        ShortEntry::parse(raw).ok_or_else(|| Error::NotFound(self.table.describe(node)))
    }

    /// The first cluster of a file: 16 bits of it, but in FAT32.
    fn first(&self, entry: &ShortEntry) -> u32 {
        entry.cluster(self.table.width == Width::TwentyEight)
    }
}

impl FileSystem for Fat {
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
        let Some(wanted) = units(name) else { return Ok(None) };
        for item in listing {
            let item = item?;
            if !item.entry.is_label() && item.is(&wanted) {
                return Ok(Some(node(item.place)));
            }
        }
        Ok(None)
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        Ok(Box::new(self.list(directory)?.filter_map(|item| match item {
            Ok(item) if item.entry.is_label() => None,
            Ok(item) => {
                let name = FileName::from_utf16(item.units());
                Some(Ok(Entry::new(name, node(item.place), Some(item.entry.kind()))))
            }
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
        let size = entry.size();
        let runs = match size {
            0 => Runs::default(),
            _ => self.table.chain(self.first(&entry), Wanted::Bytes(size))?,
        };
        Ok(RunContent::open(self.table.device.clone(), runs, size, size))
    }
}

/// Free bytes, as the sector says in which FAT32 keeps them.
fn free(table: &Table, place: u64) -> Option<u64> {
    let sector = table.device.read_array::<512>(place).ok()?;
    let signed = le_u32(&sector, 0)? == 0x4161_5252 && le_u32(&sector, 484)? == 0x6141_7272;
    let clusters = le_u32(&sector, 488).filter(|clusters| signed && *clusters <= table.clusters)?;
    Some(u64::from(clusters) * u64::from(table.cluster_size))
}

/// 65 536 entries, more than the format allows, with room for the largest cluster.
const LARGEST_DIRECTORY: u64 = 65_536 * ENTRY as u64 + (256 << 10);
