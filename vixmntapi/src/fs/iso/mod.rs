//! ISO 9660 with Rock Ridge, else Joliet: ECMA-119, IEEE P1282, Microsoft's Joliet specification.
//!
//! The first session of a disc is read, and of a disc with UDF too what ISO 9660 says of it.

mod record;
mod rock;

use std::sync::Arc;

use self::{
    record::{Record, Records, SECTOR},
    rock::{Rock, short_time},
};
use super::{
    Content, Entries, Entry, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId,
    fat::{RunContent, Runs},
    no_streams,
};
use crate::{
    bytes::{le_u16, le_u32, slice},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// Opens a device that holds ISO 9660.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    let (mut primary, mut joliet) = (None, None);
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MOST_DESCRIPTORS {
        let place = number * SECTOR;
        if place + SECTOR > device.size() {
            break;
        }
        let raw = device.read_vec(place, SECTOR as usize)?;
        match (raw.first(), raw.get(1..6)) {
            (Some(1), Some(b"CD001")) if primary.is_none() => primary = Some((place, raw)),
            (Some(2), Some(b"CD001")) if matches!(raw.get(88..91), Some(b"%/@" | b"%/C" | b"%/E")) => {
                joliet = Some((place, raw));
            }
            (Some(255), _) => break,
            (_, Some(b"CD001")) => {}
            _ => break,
        }
    }
    let Some((place, raw)) = primary else { return Ok(None) };
    let mut disc = Iso::open(device, place, &raw, Names::Plain)?;
    if let Some(skip) = disc.rock_ridge()? {
        disc.names = Names::RockRidge(skip);
    } else if let Some((place, raw)) = joliet {
        disc = Iso { info: disc.info, ..Iso::open(device, place, &raw, Names::Joliet)? };
    }
    Ok(Some(Arc::new(disc)))
}

/// A disc.
#[derive(Debug)]
struct Iso {
    device: Arc<dyn Device>,
    block: u64,
    /// Where the record of the root directory lies.
    root: u64,
    names: Names,
    info: FileSystemInfo,
}

/// Whose names count.
#[derive(Clone, Copy, Debug)]
enum Names {
    /// Those of ISO 9660, without their versions.
    Plain,
    /// UTF-16.
    Joliet,
    /// Of POSIX, behind so many bytes of each record.
    RockRidge(usize),
}

impl Iso {
    fn open(device: &Arc<dyn Device>, place: u64, raw: &[u8], names: Names) -> Result<Self> {
        let block = le_u16(raw, 128).filter(|block| matches!(block, 512 | 1024 | 2048));
        let damaged = || Error::damaged("the volume descriptor of ISO 9660", "its blocks have no legal size");
        let block = block.ok_or_else(damaged)?;
        let blocks = le_u32(raw, 80).unwrap_or_default();
        let mut info = FileSystemInfo::new("iso9660", block.into(), u64::from(blocks) * u64::from(block));
        info.free = Some(0);
        let label = String::from_utf8_lossy(slice(raw, 40, 32).unwrap_or_default()).trim_end().to_owned();
        info.label = (!label.is_empty()).then_some(label);
        Ok(Self { device: device.clone(), block: block.into(), root: place + 156, names, info })
    }

    /// How many bytes of each record are not Rock Ridge's, if the disc has it: its first record says so.
    fn rock_ridge(&self) -> Result<Option<usize>> {
        let root = self.record(self.root())?;
        let Some(first) = self.records(&root)?.next()? else { return Ok(None) };
        let skip = match first.system_use() {
            [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => usize::from(*skip),
            _ => return Ok(None),
        };
        // SUSP alone is no Rock Ridge.
        let rock = Rock::read(&*self.device, first.system_use(), 0, self.block)?;
        Ok(rock.kind().map(|_| skip))
    }

    fn record(&self, node: NodeId) -> Result<Record> {
        let missing = || Error::NotFound(self.describe(node));
        if node.tree != 0 || node.number >= self.device.size() {
            return Err(missing());
        }
        Record::read(&*self.device, node.number)?.ok_or_else(missing)
    }

    /// What Rock Ridge says of a file; of the root it does so in the directory itself.
    fn rock(&self, record: &Record) -> Result<Rock> {
        let Names::RockRidge(skip) = self.names else { return Ok(Rock::default()) };
        if record.place == self.root {
            let first = self.records(record)?.next()?;
            return first.map_or_else(
                || Ok(Rock::default()),
                |first| {
                    // The mark of SUSP comes before everything else there.
                    Rock::read(&*self.device, first.system_use(), 0, self.block)
                },
            );
        }
        Rock::read(&*self.device, record.system_use(), skip, self.block)
    }

    /// The records in a directory.
    fn records(&self, directory: &Record) -> Result<Records> {
        let start = u64::from(directory.block) * self.block;
        let end = start + u64::from(directory.size);
        if end > self.device.size() || directory.size > LARGEST_DIRECTORY {
            let what = format!("the directory of ISO 9660 in block {}", directory.block);
            return Err(Error::damaged(what, format!("it has {} bytes", directory.size)));
        }
        Ok(Records::new(self.device.clone(), start, end))
    }

    /// The same for a directory by its record, also one that was moved because it was too deep.
    fn list(&self, node: NodeId) -> Result<Records> {
        let record = self.record(node)?;
        let rock = self.rock(&record)?;
        if let Some(block) = rock.moved_to {
            let there = Record::read(&*self.device, u64::from(block) * self.block)?;
            let there = there.filter(|record| record.is_directory() && record.is_dot());
            let damaged =
                || Error::damaged(self.describe(node), format!("it was moved to block {block}, which is none"));
            return self.records(&there.ok_or_else(damaged)?);
        }
        if !record.is_directory() {
            return Err(Error::NotADirectory(self.describe(node)));
        }
        self.records(&record)
    }

    /// The next file of a directory.
    fn next(&self, records: &mut Records) -> Result<Option<Entry>> {
        let mut within = false;
        while let Some(record) = records.next()? {
            // Of a file of several records the first one stands for it.
            let first = !std::mem::replace(&mut within, record.goes_on());
            if !first || record.is_dot() || record.is_associated() {
                continue;
            }
            let rock = self.rock(&record)?;
            if rock.moved {
                continue;
            }
            let kind = kind(&record, &rock);
            let name = rock.name.unwrap_or_else(|| self.name(&record));
            return Ok(Some(Entry::new(name, NodeId { tree: 0, number: record.place }, Some(kind))));
        }
        Ok(None)
    }

    /// A name without its version.
    fn name(&self, record: &Record) -> FileName {
        let raw = record.name();
        if let Names::Joliet = self.names {
            let units = raw.chunks_exact(2).map(|pair| pair.iter().fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
            return FileName::from_utf16(units.take_while(|unit| *unit != u16::from(b';')));
        }
        let name = raw.split(|byte| *byte == b';').next().unwrap_or_default();
        FileName::from(name.strip_suffix(b".").unwrap_or(name))
    }

    /// All records of a file.
    fn parts(&self, first: Record) -> Result<Vec<Record>> {
        let mut rest = Records::after(self.device.clone(), &first);
        let mut parts = vec![first];
        while parts.last().is_some_and(Record::goes_on) {
            match rest.next()? {
                Some(next) if parts.len() < MOST_PARTS => parts.push(next),
                _ => return Err(Error::damaged("a file of ISO 9660", "its last part is missing")),
            }
        }
        Ok(parts)
    }

    fn describe(&self, node: NodeId) -> String {
        format!("the file whose record is at byte {} of {}", node.number, self.device.name())
    }
}

impl FileSystem for Iso {
    fn info(&self) -> FileSystemInfo {
        self.info.clone()
    }

    fn root(&self) -> NodeId {
        NodeId { tree: 0, number: self.root }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let record = self.record(node)?;
        let rock = self.rock(&record)?;
        let kind = kind(&record, &rock);
        let modified = short_time(record.time()).unwrap_or_default();
        let size = match kind {
            FileKind::File => self.parts(record)?.iter().map(|part| u64::from(part.size)).sum(),
            _ => 0,
        };
        let mut metadata = Metadata::new(kind, size);
        metadata.allocated = size.next_multiple_of(self.block);
        metadata.times.modified = modified;
        rock.apply(&mut metadata);
        Ok(metadata)
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        let mut records = self.list(directory)?;
        while let Some(entry) = self.next(&mut records)? {
            let same = match self.names {
                Names::RockRidge(_) => entry.name == *name,
                _ => entry.name.as_bytes().eq_ignore_ascii_case(name.as_bytes()),
            };
            if same {
                return Ok(Some(entry.node));
            }
        }
        Ok(None)
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let mut records = Some(self.list(directory)?);
        Ok(Box::new(std::iter::from_fn(move || {
            let next = self.next(records.as_mut()?);
            if next.is_err() {
                records = None;
            }
            next.transpose()
        })))
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        let link = self.rock(&self.record(node)?)?.link;
        link.ok_or_else(|| Error::Invalid(format!("{} is no link", self.describe(node))))
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        no_streams(stream, || self.describe(node))?;
        let record = self.record(node)?;
        let rock = self.rock(&record)?;
        if kind(&record, &rock) != FileKind::File {
            return Err(Error::NotAFile { what: self.describe(node), kind: "something else" });
        }
        if rock.packed || record.is_interleaved() {
            let how = if rock.packed { "it is packed by zisofs" } else { "it is interleaved with another" };
            return Err(Error::unsupported(self.describe(node), how));
        }
        let mut runs = Runs::default();
        for part in self.parts(record)?.iter().filter(|part| part.size != 0) {
            runs.push(u64::from(part.block) * self.block, part.size.into());
        }
        let size = runs.len();
        Ok(RunContent::open(self.device.clone(), runs, size, size))
    }
}

fn kind(record: &Record, rock: &Rock) -> FileKind {
    let plain = if record.is_directory() { FileKind::Directory } else { FileKind::File };
    if rock.moved_to.is_some() { FileKind::Directory } else { rock.kind().unwrap_or(plain) }
}

/// The sector of the first volume descriptor.
const FIRST_DESCRIPTOR: u64 = 16;
/// More descriptors than any disc has.
const MOST_DESCRIPTORS: u64 = 32;
/// Bytes of the largest directory.
const LARGEST_DIRECTORY: u32 = 256 << 20;
/// Records of one file; each has up to 4 GiB.
const MOST_PARTS: usize = 4096;
