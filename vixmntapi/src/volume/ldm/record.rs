//! Records: volumes, the components that each is a copy of it, the partitions that those are made of, disks.

use super::privhead::plain;
use crate::bytes::{array, slice};

/// All that a group has.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) volumes: Vec<Volume>,
    pub(super) components: Vec<Component>,
    pub(super) partitions: Vec<Partition>,
    pub(super) disks: Vec<DiskRecord>,
}

/// What one record is about.
pub(super) enum Record {
    Volume(Volume),
    Component(Component),
    Partition(Partition),
    Disk(DiskRecord),
    /// The group itself, or nothing.
    Other,
}

/// A volume.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) id: u64,
    pub(super) name: String,
    /// `gen`, or `raid5`.
    pub(super) kind: String,
    /// In sectors.
    pub(super) size: u64,
    pub(super) guid: [u8; 16],
    /// The drive letter that Windows is to give it.
    pub(super) hint: Option<String>,
}

/// A copy of a volume; most have one.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: u64,
    pub(super) state: String,
    pub(super) layout: Layout,
    /// How many partitions it has.
    pub(super) count: u64,
    pub(super) volume: u64,
}

/// How a component lies on its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In turns, after so many sectors.
    Striped {
        chunk: u64,
    },
    /// One after the other.
    Spanned,
    /// With parity.
    Parity,
    Other(u8),
}

/// A part of a disk.
#[derive(Debug)]
pub(super) struct Partition {
    /// In sectors of the disk's data.
    pub(super) start: u64,
    /// In sectors of the component.
    pub(super) offset: u64,
    /// In sectors.
    pub(super) size: u64,
    pub(super) component: u64,
    pub(super) disk: u64,
    /// Its turn, where there are turns.
    pub(super) index: u64,
}

/// A disk, as the group knows it.
#[derive(Debug)]
pub(super) struct DiskRecord {
    pub(super) id: u64,
    pub(super) name: String,
    /// Digits without hyphens.
    pub(super) guid: String,
}

impl Objects {
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Volume(volume) => self.volumes.push(volume),
            Record::Component(component) => self.components.push(component),
            Record::Partition(partition) => self.partitions.push(partition),
            Record::Disk(disk) => self.disks.push(disk),
            Record::Other => {}
        }
    }

    /// How many there are of each, in the order in which the database counts them.
    pub(super) fn counts(&self) -> [usize; 4] {
        [self.volumes.len(), self.components.len(), self.partitions.len(), self.disks.len()]
    }
}

impl Record {
    /// Reads a record; `None` when it ends too early or is of a kind or version that is not known.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [_, _, flags, kind, ..] = *bytes else { return None };
        let mut fields = Fields { bytes, at: 8 };
        Some(match kind {
            0 | 0x35 | 0x45 => Self::Other,
            0x51 => Self::Volume(Volume::parse(&mut fields, flags)?),
            0x32 => Self::Component(Component::parse(&mut fields, flags)?),
            0x33 => Self::Partition(Partition::parse(&mut fields, flags)?),
            0x34 => {
                Self::Disk(DiskRecord { id: fields.number()?, name: fields.text()?, guid: plain(fields.variable()?) })
            }
            0x44 => {
                let (id, name) = (fields.number()?, fields.text()?);
                let guid = fields.fixed::<16>()?;
                Self::Disk(DiskRecord { id, name, guid: guid.iter().map(|byte| format!("{byte:02x}")).collect() })
            }
            _ => return None,
        })
    }
}

impl Volume {
    fn parse(fields: &mut Fields<'_>, flags: u8) -> Option<Self> {
        let (id, name, kind) = (fields.number()?, fields.text()?, fields.text()?);
        fields.variable()?;
        // State, number and flags, then how many components, when it was changed, its size.
        fields.fixed::<21>()?;
        fields.variable()?;
        fields.fixed::<16>()?;
        let size = fields.number()?;
        fields.fixed::<5>()?;
        let guid = fields.fixed()?;
        for flag in [0x08, 0x20, 0x80] {
            if flags & flag != 0 {
                fields.variable()?;
            }
        }
        let hint = if flags & 0x02 != 0 { Some(fields.text()?) } else { None };
        Some(Self { id, name, kind, size, guid, hint: hint.filter(|hint| !hint.is_empty()) })
    }
}

impl Component {
    fn parse(fields: &mut Fields<'_>, flags: u8) -> Option<Self> {
        let id = fields.number()?;
        fields.variable()?;
        let state = fields.text()?;
        let [layout, ..] = fields.fixed::<5>()?;
        let count = fields.number()?;
        fields.fixed::<16>()?;
        let volume = fields.number()?;
        fields.fixed::<1>()?;
        let chunk = if flags & 0x10 != 0 { fields.number()? } else { 0 };
        let layout = match layout {
            1 => Layout::Striped { chunk },
            2 => Layout::Spanned,
            3 => Layout::Parity,
            other => Layout::Other(other),
        };
        Some(Self { id, state, layout, count, volume })
    }
}

impl Partition {
    fn parse(fields: &mut Fields<'_>, flags: u8) -> Option<Self> {
        fields.variable()?;
        fields.variable()?;
        fields.fixed::<12>()?;
        let start = u64::from_be_bytes(fields.fixed()?);
        let offset = u64::from_be_bytes(fields.fixed()?);
        let (size, component, disk) = (fields.number()?, fields.number()?, fields.number()?);
        let index = if flags & 0x08 != 0 { fields.number()? } else { 0 };
        Some(Self { start, offset, size, component, disk, index })
    }
}

/// Fields one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Bytes that come after their number.
    fn variable(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(*self.bytes.get(self.at)?);
        let value = slice(self.bytes, self.at + 1, len)?;
        self.at += 1 + len;
        Some(value)
    }

    fn number(&mut self) -> Option<u64> {
        let value = self.variable().filter(|value| value.len() <= 8)?;
        Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Option<String> {
        self.variable().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let value = array(self.bytes, self.at)?;
        self.at += N;
        Some(value)
    }
}
