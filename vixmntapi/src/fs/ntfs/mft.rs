//! The MFT: records by number, and attributes put together from all records that hold parts of them.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    attribute::{RawAttribute, RawBody, RawMapping, Sizes, flag, is_name, kind, units},
    boot::Volume,
    plain::Plain,
    record::{Record, Reference},
    runs::Runs,
};
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    device::DeviceExt,
    error::{Error, Result},
};

/// The table of all files.
#[derive(Debug)]
pub(super) struct Mft {
    volume: Arc<Volume>,
    table: Plain,
}

/// A file: its base record, and where its other records are.
#[derive(Debug)]
pub(super) struct File {
    pub(super) base: Record,
    /// The attribute list, in its order, when not all is in the base record.
    list: Option<Vec<Listed>>,
}

/// An entry of an attribute list.
#[derive(Clone, Debug)]
struct Listed {
    kind: u32,
    name: Vec<u16>,
    /// The first cluster of the attribute that this part maps.
    first: u64,
    record: Reference,
    id: u16,
}

/// An attribute as a whole.
#[derive(Debug)]
pub(super) struct Attribute {
    /// Bits of [`flag`].
    pub(super) flags: u16,
    pub(super) body: Body,
}

/// What an attribute holds.
#[derive(Debug)]
pub(super) enum Body {
    Resident(Vec<u8>),
    /// Clusters, and the power of two of how many are compressed together.
    Mapped(Plain, u8),
}

impl Mft {
    /// Finds all of the MFT, by its own first record or the copy of that.
    pub(super) fn open(volume: &Arc<Volume>) -> Result<Self> {
        match Self::open_at(volume, volume.mft) {
            Err(Error::Damaged { what, problem }) => Self::open_at(volume, volume.mirror).map_err(|second| {
                tracing::debug!(%second, "the copy of the MFT's first records is of no use either");
                Error::Damaged { what, problem }
            }),
            opened => opened,
        }
    }

    fn open_at(volume: &Arc<Volume>, cluster: u64) -> Result<Self> {
        let at = cluster.checked_mul(volume.cluster).filter(|at| *at < volume.total);
        let at = at.ok_or_else(|| Error::damaged("the boot sector of NTFS", format!("MFT at cluster {cluster}")))?;
        let damaged = |problem: &str| Error::damaged("MFT record 0", problem);
        let first =
            Record::parse(0, volume.device.read_vec(at, volume.record)?)?.ok_or_else(|| damaged("it is free"))?;
        let (runs, sizes) = first_part(volume, &first)?;
        let mut mft = Self { volume: volume.clone(), table: Plain::new(volume, runs, sizes, MFT) };
        let mut list = mft.list(&first)?.unwrap_or_default();
        list.retain(|part| part.kind == kind::DATA && part.name.is_empty() && part.first != 0);
        list.sort_by_key(|part| part.first);
        // Each part of the table is found by those before it.
        for part in &list {
            let record = mft.part(&first, part)?;
            let RawBody::Mapped(mapping) = pick(record.as_ref().unwrap_or(&first), part)?.body else {
                return Err(damaged("a part of the table is resident"));
            };
            append(&mut mft.table.runs, &mapping, volume, MFT)?;
        }
        mft.table.check()?;
        Ok(mft)
    }

    /// A record in use.
    pub(super) fn record(&self, number: u64) -> Result<Option<Record>> {
        let len = self.volume.record as u64;
        let Some(at) = number.checked_mul(len).filter(|at| *at <= self.table.sizes.initialized.saturating_sub(len))
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.volume.record];
        self.table.fill(at, &mut bytes)?;
        Record::parse(number, bytes)
    }

    /// Opens a file. A sequence of zero stands for any.
    pub(super) fn file(&self, reference: Reference) -> Result<File> {
        let gone = || Error::NotFound(format!("file {:#x} of the NTFS volume", reference.0));
        let base = self.record(reference.number())?.ok_or_else(gone)?;
        let other = reference.sequence() != 0 && reference.sequence() != base.sequence();
        if other || base.base().is_some() {
            return Err(gone());
        }
        let list = self.list(&base)?;
        Ok(File { base, list })
    }

    /// An attribute; `None` when the file has none of this type and name.
    pub(super) fn attribute(&self, file: &File, kind: u32, name: &[u16]) -> Result<Option<Attribute>> {
        let what = describe(file.base.number(), kind, name);
        let mut found: Option<Attribute> = None;
        let mut runs = Runs::default();
        self.parts(file, kind, Some(name), |part| {
            match (part.body, &found) {
                (RawBody::Resident(value), None) => {
                    found = Some(Attribute { flags: part.flags, body: Body::Resident(value.to_vec()) });
                    return Ok(Go::Stop);
                }
                (RawBody::Mapped(mapping), _) => {
                    append(&mut runs, &mapping, &self.volume, &what)?;
                    if found.is_none() {
                        let plain = Plain::new(&self.volume, Runs::default(), mapping.sizes, &what);
                        found = Some(Attribute { flags: part.flags, body: Body::Mapped(plain, mapping.unit) });
                    }
                }
                (RawBody::Resident(_), Some(_)) => return Err(Error::damaged(&what, "a part of it is resident")),
            }
            Ok(Go::On)
        })?;
        if let Some(Attribute { body: Body::Mapped(plain, _), .. }) = &mut found {
            plain.runs = runs;
            plain.check()?;
        }
        Ok(found)
    }

    /// The sizes and flags of an attribute, without finding out where all of it lies.
    pub(super) fn sizes(&self, file: &File, kind: u32, name: &[u16]) -> Result<Option<(Sizes, u16)>> {
        let mut found = None;
        self.parts(file, kind, Some(name), |part| {
            let sizes = match part.body {
                RawBody::Resident(value) => Sizes { data: value.len() as u64, ..Sizes::default() },
                RawBody::Mapped(mapping) if mapping.first == 0 => mapping.sizes,
                RawBody::Mapped(_) => {
                    let what = describe(file.base.number(), kind, name);
                    return Err(Error::damaged(what, "its first part is missing"));
                }
            };
            found = Some((sizes, part.flags));
            Ok(Go::Stop)
        })?;
        Ok(found)
    }

    /// The values of all resident attributes of a type: a file has several names.
    pub(super) fn values(&self, file: &File, kind: u32) -> Result<Vec<Vec<u8>>> {
        let mut values = Vec::new();
        self.parts(file, kind, None, |part| {
            if let RawBody::Resident(value) = part.body {
                values.push(value.to_vec());
            }
            Ok(Go::On)
        })?;
        Ok(values)
    }

    /// The names of all attributes of a type, the empty one as well.
    pub(super) fn names(&self, file: &File, kind: u32) -> Result<BTreeSet<Vec<u16>>> {
        if let Some(list) = &file.list {
            return Ok(list.iter().filter(|part| part.kind == kind).map(|part| part.name.clone()).collect());
        }
        let mut names = BTreeSet::new();
        self.parts(file, kind, None, |part| {
            names.insert(units(part.name).collect());
            Ok(Go::On)
        })?;
        Ok(names)
    }

    /// Shows the parts of attributes of a type, of any name or one, in the order of their clusters.
    fn parts(
        &self,
        file: &File,
        kind: u32,
        name: Option<&[u16]>,
        mut show: impl FnMut(RawAttribute<'_>) -> Result<Go>,
    ) -> Result<()> {
        let Some(list) = &file.list else {
            for attribute in file.base.attributes() {
                let attribute = attribute?;
                let wanted = attribute.kind == kind && name.is_none_or(|name| is_name(attribute.name, name));
                if wanted && show(attribute)? == Go::Stop {
                    break;
                }
            }
            return Ok(());
        };
        let wanted = |part: &&Listed| part.kind == kind && name.is_none_or(|name| part.name == name);
        let mut wanted: Vec<_> = list.iter().filter(wanted).collect();
        if name.is_some() {
            wanted.sort_by_key(|part| part.first);
        }
        let mut last: Option<(Reference, Option<Record>)> = None;
        for part in wanted {
            if last.as_ref().is_none_or(|(reference, _)| *reference != part.record) {
                last = Some((part.record, self.part(&file.base, part)?));
            }
            let record = last.as_ref().and_then(|(_, record)| record.as_ref()).unwrap_or(&file.base);
            if show(pick(record, part)?)? == Go::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The record that holds a part of a file; `None` for the base record.
    fn part(&self, base: &Record, part: &Listed) -> Result<Option<Record>> {
        if part.record.number() == base.number() {
            return Ok(None);
        }
        let record = self.record(part.record.number())?.filter(|record| {
            record.sequence() == part.record.sequence() && record.base().is_some_and(|of| of.number() == base.number())
        });
        let lost = || {
            let what = format!("the attribute list of file {}", base.number());
            Error::damaged(what, format!("record {} is not of this file", part.record.number()))
        };
        record.map(Some).ok_or_else(lost)
    }

    /// The attribute list of a base record, if it has one.
    fn list(&self, base: &Record) -> Result<Option<Vec<Listed>>> {
        let what = format!("the attribute list of file {}", base.number());
        for attribute in base.attributes() {
            let attribute = attribute?;
            if attribute.kind != kind::ATTRIBUTE_LIST {
                continue;
            }
            let bytes = match attribute.body {
                RawBody::Resident(value) => value.to_vec(),
                RawBody::Mapped(mapping) => {
                    let mut runs = Runs::default();
                    append(&mut runs, &mapping, &self.volume, &what)?;
                    let plain = Plain::new(&self.volume, runs, mapping.sizes, &what);
                    plain.check()?;
                    plain.whole(LONGEST_LIST)?
                }
            };
            return parse_list(&bytes, &what).map(Some);
        }
        Ok(None)
    }
}

impl Attribute {
    /// All of a short attribute.
    pub(super) fn whole(self, limit: u64) -> Result<Vec<u8>> {
        match self.body {
            Body::Resident(value) => Ok(value),
            Body::Mapped(plain, _) if self.flags & flag::COMPRESSION == 0 => plain.whole(limit),
            Body::Mapped(plain, _) => Err(Error::unsupported(plain.what, "it is compressed, and is metadata")),
        }
    }
}

/// Whether parts are still wanted.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

/// For messages.
pub(super) fn describe(number: u64, kind: u32, name: &[u16]) -> String {
    let name = String::from_utf16_lossy(name);
    let kind = match kind {
        kind::DATA if name.is_empty() => return format!("the content of file {number}"),
        kind::DATA => return format!("stream {name:?} of file {number}"),
        kind::INDEX_ROOT | kind::INDEX_ALLOCATION => return format!("index {name} of file {number}"),
        kind => kind,
    };
    format!("attribute {kind:#x} of file {number}")
}

fn append(runs: &mut Runs, mapping: &RawMapping<'_>, volume: &Volume, what: &str) -> Result<()> {
    runs.append(mapping.pairs, mapping.first, mapping.end, volume.clusters, what)
}

/// The part of the MFT that its first record tells of, and the sizes of all.
fn first_part(volume: &Volume, first: &Record) -> Result<(Runs, Sizes)> {
    for attribute in first.attributes() {
        let attribute = attribute?;
        if let (true, RawBody::Mapped(mapping)) = (attribute.is(kind::DATA, &[]), attribute.body) {
            let mut runs = Runs::default();
            append(&mut runs, &mapping, volume, MFT)?;
            return Ok((runs, mapping.sizes));
        }
    }
    Err(Error::damaged("MFT record 0", "it does not say where the table is"))
}

/// The part of a record that an entry of an attribute list means.
fn pick<'a>(record: &'a Record, part: &Listed) -> Result<RawAttribute<'a>> {
    for attribute in record.attributes() {
        let attribute = attribute?;
        if attribute.id == part.id && attribute.is(part.kind, &part.name) {
            return Ok(attribute);
        }
    }
    let what = describe(record.number(), part.kind, &part.name);
    Err(Error::damaged(what, format!("part {} is listed and is not there", part.id)))
}

fn parse_list(bytes: &[u8], what: &str) -> Result<Vec<Listed>> {
    let mut list = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (entry, len) = parse_listed(bytes.get(at..).unwrap_or_default())
            .ok_or_else(|| Error::damaged(what, format!("the entry at byte {at}")))?;
        list.push(entry);
        at += len;
    }
    Ok(list)
}

fn parse_listed(bytes: &[u8]) -> Option<(Listed, usize)> {
    let len = usize::from(le_u16(bytes, 4)?);
    let at = usize::from(*bytes.get(7)?);
    let name = match usize::from(*bytes.get(6)?) {
        0 => Vec::new(),
        count => units(bytes.get(at..at + count * 2)?).collect(),
    };
    let entry = Listed {
        kind: le_u32(bytes, 0)?,
        name,
        first: le_u64(bytes, 8)?,
        record: Reference(le_u64(bytes, 0x10)?),
        id: le_u16(bytes, 0x18)?,
    };
    (len >= 0x1a).then_some((entry, len))
}

const MFT: &str = "the MFT";
/// Windows makes none longer.
const LONGEST_LIST: u64 = 256 << 10;
