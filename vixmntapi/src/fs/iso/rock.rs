//! Rock Ridge: what POSIX knows of files, kept behind the records of directories (IEEE P1281 and P1282).

use crate::{
    bytes::{le_u32, slice},
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::{FileKind, FileName, Metadata, Timestamp, fat::days},
};

/// What stands behind a record.
#[derive(Debug, Default)]
pub(super) struct Rock {
    pub(super) name: Option<FileName>,
    /// Mode with the kind, links, owner, group.
    posix: Option<[u32; 4]>,
    pub(super) link: Option<FileName>,
    device: Option<(u32, u32)>,
    modified: Option<Timestamp>,
    accessed: Option<Timestamp>,
    changed: Option<Timestamp>,
    created: Option<Timestamp>,
    /// The block to which a directory was moved that would be too deep.
    pub(super) moved_to: Option<u32>,
    /// Whether this is such a directory at its new place.
    pub(super) moved: bool,
    /// Whether the content is packed by zisofs.
    pub(super) packed: bool,
}

impl Rock {
    /// Reads the fields, also those that are continued elsewhere. `skip` bytes of each record are of somebody else.
    pub(super) fn read(device: &dyn Device, area: &[u8], skip: usize, block: u64) -> Result<Self> {
        let mut rock = Self::default();
        let (mut name, mut link) = (Vec::new(), Link::default());
        let mut area = area.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..MOST_CONTINUATIONS {
            let mut next = None;
            let mut rest = &area[..];
            while let [a, b, len, _, ..] = *rest {
                let Some((field, after)) = rest.split_at_checked(usize::from(len)).filter(|_| len >= 4) else { break };
                rest = after;
                let number = |at| le_u32(field, at).unwrap_or_default();
                let flags = field.get(4).copied().unwrap_or_default();
                match &[a, b] {
                    b"CE" => next = Some((number(4), number(12), number(20))),
                    b"ST" => break,
                    b"NM" if flags & 6 == 0 => name.extend_from_slice(field.get(5..).unwrap_or_default()),
                    b"PX" => rock.posix = Some([number(4), number(12), number(20), number(28)]),
                    b"PN" => rock.device = Some(device_number(number(4), number(12))),
                    b"SL" => link.add(field.get(5..).unwrap_or_default()),
                    b"TF" => rock.times(flags, field.get(5..).unwrap_or_default()),
                    b"CL" => rock.moved_to = Some(number(4)),
                    b"RE" => rock.moved = true,
                    b"ZF" => rock.packed = true,
                    _ => {}
                }
            }
            let Some((at, offset, len)) = next else {
                rock.name = (!name.is_empty()).then(|| FileName::new(name));
                rock.link = (!link.path.is_empty()).then(|| FileName::new(link.path));
                return Ok(rock);
            };
            if len > LONGEST_CONTINUATION {
                return Err(Error::damaged("a continuation area of Rock Ridge", format!("it has {len} bytes")));
            }
            area = device.read_vec(u64::from(at) * block + u64::from(offset), len as usize)?;
        }
        Err(Error::damaged("Rock Ridge", "a record is continued without end"))
    }

    /// What the file is, if that is said.
    pub(super) fn kind(&self) -> Option<FileKind> {
        let [mode, ..] = self.posix?;
        Some(FileKind::from_mode(mode))
    }

    /// Puts what is known into what is told.
    pub(super) fn apply(&self, metadata: &mut Metadata) {
        if let Some([mode, links, uid, gid]) = self.posix {
            (metadata.mode, metadata.links, metadata.uid, metadata.gid) = (mode & 0o7777, links, uid, gid);
        }
        if matches!(metadata.kind, FileKind::BlockDevice | FileKind::CharDevice) {
            metadata.device = self.device;
        }
        if let Some(link) = &self.link {
            metadata.size = link.as_bytes().len() as u64;
        }
        metadata.times.modified = self.modified.unwrap_or(metadata.times.modified);
        metadata.times.accessed = self.accessed.unwrap_or(metadata.times.modified);
        metadata.times.changed = self.changed.unwrap_or(metadata.times.modified);
        metadata.times.created = self.created;
    }

    fn times(&mut self, flags: u8, stored: &[u8]) {
        let long = flags & 0x80 != 0;
        let mut stored = stored.chunks_exact(if long { 17 } else { 7 });
        let places = [&mut self.created, &mut self.modified, &mut self.accessed, &mut self.changed];
        for (bit, place) in places.into_iter().enumerate() {
            if flags & (1 << bit) != 0 {
                *place = stored.next().and_then(if long { long_time } else { short_time });
            }
        }
    }
}

/// Major and minor of a device. Writers with wide numbers of devices keep the whole number in the low half, packed as
/// Linux does it.
fn device_number(high: u32, low: u32) -> (u32, u32) {
    if high != 0 || low <= 0xff {
        return (high, low);
    }
    (low >> 8 & 0xfff, low & 0xff | low >> 12 & 0xf_ff00)
}

/// The target of a link, which is stored component by component.
#[derive(Default)]
struct Link {
    path: Vec<u8>,
    /// Whether the last component goes on in the next field.
    open: bool,
}

impl Link {
    fn add(&mut self, mut rest: &[u8]) {
        while let [flags, len, after @ ..] = rest {
            let Some((text, after)) = after.split_at_checked(usize::from(*len)) else { return };
            rest = after;
            if !self.open && !self.path.is_empty() && self.path != b"/" {
                self.path.push(b'/');
            }
            match flags & 0x0e {
                0x02 => self.path.push(b'.'),
                0x04 => self.path.extend_from_slice(b".."),
                0x08 => self.path.push(b'/'),
                _ => self.path.extend_from_slice(text),
            }
            self.open = flags & 1 != 0;
        }
    }
}

/// The seven bytes of a record: years since 1900, and quarters of an hour from UTC.
pub(super) fn short_time(raw: &[u8]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone] = *raw.first_chunk()?;
    let day = days(1900 + i64::from(year), month.into(), day.into())?;
    let time = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(Timestamp::new(day * 86_400 + time - i64::from(zone as i8) * 900, 0))
}

/// Seventeen bytes: sixteen digits, and quarters of an hour from UTC.
fn long_time(raw: &[u8]) -> Option<Timestamp> {
    let number = |at, len| std::str::from_utf8(slice(raw, at, len)?).ok()?.parse::<i64>().ok();
    let day = days(number(0, 4)?, number(4, 2)?, number(6, 2)?)?;
    let time = number(8, 2)? * 3600 + number(10, 2)? * 60 + number(12, 2)?;
    let zone = i64::from(*raw.get(16)? as i8) * 900;
    Some(Timestamp::new(day * 86_400 + time - zone, u32::try_from(number(14, 2)?).ok()? * 10_000_000))
}

/// Continuations of one record; more are a circle.
const MOST_CONTINUATIONS: usize = 64;
/// Bytes of one.
const LONGEST_CONTINUATION: u32 = 64 << 10;
