//! The head of `$LogFile`: whether all that was begun was also brought to its place. The records are not read.

use super::{
    attribute::kind,
    mft::{Body, Mft},
    plain::Plain,
    record::{Reference, fix_up},
};
use crate::{
    bytes::{le_u16, le_u32, le_u64},
    error::{Error, Result},
    fs::Content,
};

/// What the log says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// Nothing is left to be done or undone.
    Closed,
    /// The volume was in use. From the last checkpoint to where the log's head says it ended are so many bytes, where it
    /// says so; more may follow.
    Open(Option<u64>),
    /// Nobody knows.
    Unreadable,
}

impl Log {
    pub(super) fn read(mft: &Mft) -> Result<Self> {
        let file = mft.file(Reference(NUMBER))?;
        match mft.attribute(&file, kind::DATA, &[])?.map(|found| found.body) {
            Some(Body::Mapped(log, _)) => Self::of(&log),
            _ => Err(Error::damaged("$LogFile", "it has no clusters")),
        }
    }

    fn of(log: &Plain) -> Result<Self> {
        let first = Restart::read(log, 0)?;
        let size = match &first {
            Page::Restart(restart) => restart.page,
            _ => DEFAULT_PAGE,
        };
        Ok(match (first, Restart::read(log, size)?) {
            // Whoever formats or checks a volume fills the log with ones.
            (Page::Empty, Page::Empty) => Self::Closed,
            (Page::Restart(one), Page::Restart(other)) => if other.lsn > one.lsn { other } else { one }.log,
            (Page::Restart(one), _) | (_, Page::Restart(one)) => one.log,
            _ => Self::Unreadable,
        })
    }
}

/// A page at the start of the log.
enum Page {
    Empty,
    Restart(Restart),
    Other,
}

/// What such a page says; there are two, written by turns.
#[derive(Debug)]
struct Restart {
    page: u64,
    lsn: u64,
    log: Log,
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
        let lsn = le_u64(area, 0)?;
        let (in_use, flags) = (le_u16(area, 0xc)?, le_u16(area, 0xe)?);
        let is_closed = in_use == NOBODY || flags & CLOSED != 0;
        let log = if is_closed { Log::Closed } else { Log::Open(Self::pending(area, in_use, lsn)) };
        Some(Self { page: u64::from(le_u32(page, 0x10)?), lsn, log })
    }

    /// Bytes of the log from where its client, the file system, would begin to replay it.
    fn pending(area: &[u8], client: u16, end: u64) -> Option<u64> {
        let client = usize::from(le_u16(area, 0x16)?) + usize::from(client) * CLIENT_BYTES;
        let start = le_u64(area, client + 8)?;
        let (sequence_bits, size) = (le_u32(area, 0x10)?, le_u64(area, 0x18)?);
        // A number in the log is how often it went round, and the place in units of eight bytes.
        let place = |lsn: u64| lsn.checked_shl(sequence_bits)?.checked_shr(sequence_bits)?.checked_mul(8);
        let round = |lsn: u64| lsn.checked_shr(64_u32.checked_sub(sequence_bits)?);
        match round(end)?.checked_sub(round(start)?)? {
            0 => place(end)?.checked_sub(place(start)?),
            1 => size.checked_sub(place(start)?)?.checked_add(place(end)?),
            _ => None,
        }
        .filter(|bytes| *bytes <= size)
    }
}

/// Number of its record.
const NUMBER: u64 = 2;
/// No client uses the log.
const NOBODY: u16 = 0xffff;
/// `RESTART_VOLUME_IS_CLEAN`.
const CLOSED: u16 = 2;
const CLIENT_BYTES: usize = 0xa0;
const DEFAULT_PAGE: u64 = 4096;
const LARGEST_PAGE: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of a log of 4 MiB, of which 41 bits of a number count the rounds.
    fn page(in_use: u16, flags: u16, start: u64, end: u64) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[0x10..0x14].copy_from_slice(&4096_u32.to_le_bytes());
        page[0x18] = 0x30;
        let mut put = |at: usize, bytes: &[u8]| page[0x30 + at..][..bytes.len()].copy_from_slice(bytes);
        put(0, &end.to_le_bytes());
        put(0xc, &in_use.to_le_bytes());
        put(0xe, &flags.to_le_bytes());
        put(0x10, &45_u32.to_le_bytes());
        put(0x16, &[0x40]);
        put(0x18, &(4_u64 << 20).to_le_bytes());
        put(0x48, &start.to_le_bytes());
        page
    }

    #[test]
    fn a_log_is_closed_when_nobody_uses_it_or_the_volume_was_dismounted() {
        for (in_use, flags, log) in [(NOBODY, 0, Log::Closed), (0, CLOSED, Log::Closed), (0, 0, Log::Open(Some(0)))] {
            assert_eq!(Restart::parse(&page(in_use, flags, 9, 9)).unwrap().log, log);
        }
    }

    #[test]
    fn what_is_pending_goes_around_the_end_of_the_log() {
        let lsn = |round: u64, at: u64| round << 19 | at >> 3;
        for (start, end, pending) in [
            (lsn(7, 0x5000), lsn(7, 0x6008), Some(0x1008)),
            (lsn(7, 0x3f_f000), lsn(8, 0x4000), Some(0x5000)),
            (lsn(7, 0x6000), lsn(8, 0x7000), None),
            (lsn(7, 0x6000), lsn(7, 0x5000), None),
            (lsn(7, 0), lsn(9, 0), None),
        ] {
            assert_eq!(Restart::parse(&page(0, 0, start, end)).unwrap().log, Log::Open(pending), "{start:#x} {end:#x}");
        }
        for end in 0x30..0x100 {
            // Cut off anywhere it is no page or says less.
            let _ = Restart::parse(&page(0, 0, 1, 2)[..end]);
        }
        let mut absurd = page(0, 0, u64::MAX, u64::MAX);
        for bits in [0, 64, u32::MAX] {
            absurd[0x40..0x44].copy_from_slice(&u32::to_le_bytes(bits));
            assert!(matches!(Restart::parse(&absurd).unwrap().log, Log::Open(None)), "{bits}");
        }
    }
}
