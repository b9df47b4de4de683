//! The volume's name, and whether it was left as it should be.

use super::{
    attribute::{kind, units},
    mft::{Body, Mft},
    plain::Plain,
    record::{Reference, fix_up},
};
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
    fs::{Consistency, Content, FileName},
};

/// What `$Volume` and `$LogFile` say.
#[derive(Debug)]
pub(super) struct State {
    pub(super) label: Option<String>,
    pub(super) consistency: Consistency,
}

impl State {
    pub(super) fn open(mft: &Mft) -> Result<Self> {
        let file = mft.file(Reference(VOLUME))?;
        let name = mft.values(&file, kind::VOLUME_NAME)?.into_iter().next().unwrap_or_default();
        let label = FileName::from_utf16(units(&name)).to_string_lossy().into_owned();
        let information = mft.values(&file, kind::VOLUME_INFORMATION)?.into_iter().next().unwrap_or_default();
        let flags = le_u16(&information, 10);
        let flags = flags.ok_or_else(|| Error::damaged("$Volume", "it has no $VOLUME_INFORMATION"))?;
        // What was in flight is not read; a log that cannot be read only means that nobody knows whether there is any.
        let closed = match was_closed(mft) {
            Err(Error::Damaged { .. } | Error::NotFound(_)) => false,
            known => known?,
        };
        let clean = flags & DIRTY == 0 && closed;
        let consistency = if clean { Consistency::Clean } else { Consistency::DirtyIgnored };
        Ok(Self { label: Some(label).filter(|label| !label.is_empty()), consistency })
    }
}

/// Whether the log says that nothing is left to be done or undone.
fn was_closed(mft: &Mft) -> Result<bool> {
    let file = mft.file(Reference(LOG))?;
    let Some(Body::Mapped(log, _)) = mft.attribute(&file, kind::DATA, &[])?.map(|found| found.body) else {
        return Err(Error::damaged("$LogFile", "it has no clusters"));
    };
    let first = Restart::read(&log, 0)?;
    let size = match &first {
        Page::Restart(restart) => restart.page,
        _ => DEFAULT_PAGE,
    };
    Ok(match (first, Restart::read(&log, size)?) {
        // Whoever formats or checks a volume fills the log with ones.
        (Page::Empty, Page::Empty) => true,
        (Page::Restart(one), Page::Restart(other)) => {
            if other.lsn > one.lsn {
                other.closed
            } else {
                one.closed
            }
        }
        (Page::Restart(one), _) | (_, Page::Restart(one)) => one.closed,
        _ => false,
    })
}

/// A page at the start of the log.
enum Page {
    Empty,
    Restart(Restart),
    Other,
}

/// What the log says of itself.
struct Restart {
    page: u64,
    lsn: u64,
    closed: bool,
}

impl Restart {
    fn read(log: &Plain, at: u64) -> Result<Page> {
        let mut head = [0; 32];
        if log.read_at(at, &mut head)? < head.len() {
            return Ok(Page::Other);
        }
        if head == [0xff; 32] {
            return Ok(Page::Empty);
        }
        let size = le_u32(&head, 0x10).unwrap_or(0);
        if head.first_chunk() != Some(b"RSTR") || !size.is_power_of_two() || !(512..=LARGEST_PAGE).contains(&size) {
            return Ok(Page::Other);
        }
        let mut page = vec![0; size as usize];
        if log.read_at(at, &mut page)? < page.len() || fix_up(&mut page, String::new).is_err() {
            return Ok(Page::Other);
        }
        Ok(Self::parse(&page).map_or(Page::Other, Page::Restart))
    }

    fn parse(page: &[u8]) -> Option<Self> {
        let area = page.get(usize::from(le_u16(page, 0x18)?)..)?;
        let (in_use, flags) = (le_u16(area, 0xc)?, le_u16(area, 0xe)?);
        let closed = in_use == NOBODY || flags & CLOSED != 0;
        Some(Self { page: u64::from(le_u32(page, 0x10)?), lsn: le_u64(area, 0)?, closed })
    }
}

/// Numbers of records.
const LOG: u64 = 2;
const VOLUME: u64 = 3;
/// `VOLUME_IS_DIRTY`.
const DIRTY: u16 = 1;
/// No client uses the log.
const NOBODY: u16 = 0xffff;
/// `RESTART_VOLUME_IS_CLEAN`.
const CLOSED: u16 = 2;
const DEFAULT_PAGE: u64 = 4096;
const LARGEST_PAGE: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_closed_when_nobody_uses_it_or_the_volume_was_dismounted() {
        for (in_use, flags, closed) in [(NOBODY, 0, true), (0, CLOSED, true), (0, 0, false)] {
            let mut page = vec![0; 4096];
            page[0x10..0x14].copy_from_slice(&4096_u32.to_le_bytes());
            page[0x18] = 0x30;
            page[0x3c..0x3e].copy_from_slice(&u16::to_le_bytes(in_use));
            page[0x3e..0x40].copy_from_slice(&u16::to_le_bytes(flags));
            assert_eq!(Restart::parse(&page).unwrap().closed, closed);
        }
    }
}
