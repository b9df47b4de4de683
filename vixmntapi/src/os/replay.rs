//! The logs of a hive: what Windows had still to write into it.
//!
//! Places are those of Maxim Suhanov's "Windows registry file format specification", "Format of transaction log files".
//! Since Windows 8.1 a log is a row of entries with a hash each; before, it is one set of dirty pages. Two logs
//! (`.LOG1`, `.LOG2`) take turns.

use std::{collections::BTreeMap, sync::Arc};

use super::marvin::marvin32;
use crate::{
    bytes::{le_u32, le_u64, slice},
    error::{Error, Result},
    fs::Content,
};

/// What a hive begins with, which its logs have as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// They differ when there is more to be written.
    pub(super) first_sequence: u32,
    pub(super) second_sequence: u32,
    /// Major and minor version.
    pub(super) version: (u32, u32),
    pub(super) root: u32,
    /// Bytes of all cells.
    pub(super) len: u32,
    kind: u32,
    /// Sectors of 512 bytes that are written at once.
    cluster: u32,
}

impl Base {
    /// `None` for what is no such thing, or not whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let field = |at| le_u32(bytes, at);
        if !bytes.starts_with(b"regf") {
            return None;
        }
        let words = bytes.get(..508)?.as_chunks::<4>().0.iter();
        // Sums of nothing but zeros or ones are stored as others.
        let sum = match words.fold(0, |sum, word| sum ^ u32::from_le_bytes(*word)) {
            0 => 1,
            u32::MAX => u32::MAX - 1,
            sum => sum,
        };
        let base = Self {
            first_sequence: field(4)?,
            second_sequence: field(8)?,
            version: (field(20)?, field(24)?),
            kind: field(28)?,
            root: field(36)?,
            len: field(40)?,
            cluster: field(44)?,
        };
        (field(508)? == sum).then_some(base)
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.first_sequence != self.second_sequence
    }
}

/// A hive with its logs in it.
pub(super) struct Replayed {
    content: Arc<dyn Content>,
    /// As the logs leave it.
    pub(super) base: Base,
    /// By their numbers, from the first cell on.
    pages: BTreeMap<u32, [u8; PAGE]>,
}

impl Replayed {
    /// A hive as it is stored.
    pub(super) fn stored(content: Arc<dyn Content>, base: Base) -> Self {
        Self { content, base, pages: BTreeMap::new() }
    }

    /// Applies what logs have for it; whether that was all there is to be written.
    ///
    /// # Errors
    /// [`Error::Read`]; a log that is damaged is taken as far as it is whole, as Windows does it.
    pub(super) fn apply(&mut self, logs: &[Arc<dyn Content>]) -> Result<bool> {
        let logs = logs.iter().map(|log| read(&**log)).collect::<Result<Vec<_>>>()?;
        let logs: Vec<_> = logs.iter().filter_map(|log| Some((Base::parse(log)?, &log[..]))).collect();
        let mut entries: Vec<Vec<Entry<'_>>> = logs
            .iter()
            .filter(|(base, _)| base.kind == ENTRIES)
            .map(|(_, log)| Entry::all(log))
            .filter(|entries| !entries.is_empty())
            .collect();
        if !entries.is_empty() {
            entries.sort_by_key(|entries| entries[0].sequence);
            return Ok(self.apply_entries(entries.into_iter().flatten()));
        }
        let old = logs.iter().filter(|(base, _)| matches!(base.kind, 1 | 2) && !base.is_dirty());
        let old = old.filter(|(base, _)| base.first_sequence >= self.base.second_sequence);
        let Some((base, log)) = old.max_by_key(|(base, _)| base.first_sequence) else { return Ok(false) };
        Ok(self.apply_dirty_pages(*base, log).is_some())
    }

    fn apply_entries<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> bool {
        let mut applied: Option<u32> = None;
        for entry in entries {
            let wanted = applied.map_or(self.base.second_sequence, |last| last.wrapping_add(1));
            if entry.sequence < wanted {
                continue;
            }
            if applied.is_some() && entry.sequence != wanted {
                break;
            }
            for (page, bytes) in entry.pages {
                self.pages.insert(page, bytes);
            }
            self.base.len = entry.len;
            applied = Some(entry.sequence);
        }
        applied.is_some()
    }

    /// Applies a log of the old kind: a bit for each page of the hive, and the pages that have one.
    fn apply_dirty_pages(&mut self, base: Base, log: &[u8]) -> Option<()> {
        let start = PAGE.checked_mul(base.cluster.clamp(1, 8) as usize)?;
        if slice(log, start, 4)? != b"DIRT" {
            return None;
        }
        let bits = slice(log, start + 4, (base.len as usize).div_ceil(PAGE * 8))?;
        let mut at = (start + 4 + bits.len()).next_multiple_of(PAGE);
        let mut pages = BTreeMap::new();
        for page in 0..base.len / PAGE as u32 {
            if bits.get(page as usize / 8)? >> (page % 8) & 1 != 0 {
                pages.insert(page, *log.get(at..)?.first_chunk()?);
                at += PAGE;
            }
        }
        self.pages = pages;
        self.base = base;
        Some(())
    }

    /// How many bytes there are, with those before the first cell.
    pub(super) fn size(&self) -> u64 {
        let logged = self.pages.last_key_value().map_or(0, |(page, _)| (u64::from(*page) + 1) * PAGE as u64);
        self.content.size().max(START + logged)
    }

    /// Fills `buf` with the bytes at `offset`; fewer only at the end.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if self.pages.is_empty() {
            return self.content.read_at(offset, buf);
        }
        let len = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..len];
        // What grew by its logs is not there yet.
        buf.fill(0);
        self.content.read_at(offset, buf)?;
        let end = offset + len as u64;
        let page_of = |at: u64| u32::try_from(at.saturating_sub(START) / PAGE as u64).unwrap_or(u32::MAX);
        for (page, bytes) in self.pages.range(page_of(offset)..=page_of(end)) {
            let start = START + u64::from(*page) * PAGE as u64;
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(end));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(len)
    }
}

/// A set of pages that were written together.
struct Entry<'a> {
    sequence: u32,
    /// Bytes of all cells after it.
    len: u32,
    pages: Pages<'a>,
}

impl<'a> Entry<'a> {
    /// The entries of a log, as far as they are whole and follow each other.
    fn all(log: &'a [u8]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut rest = log.get(PAGE..).unwrap_or_default();
        while let Some((entry, after)) = Self::parse(rest) {
            if all.last().is_some_and(|last| last.sequence.wrapping_add(1) != entry.sequence) {
                break;
            }
            all.push(entry);
            rest = after;
        }
        all
    }

    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let field = |at| le_u32(bytes, at);
        let (len, count) = (field(4)? as usize, field(20)? as usize);
        if !bytes.starts_with(b"HvLE") || len == 0 || !len.is_multiple_of(PAGE) {
            return None;
        }
        let entry = bytes.get(..len)?;
        if le_u64(entry, 24) != Some(marvin32(entry.get(40..)?, SEED))
            || le_u64(entry, 32) != Some(marvin32(&entry[..32], SEED))
        {
            return None;
        }
        let references = slice(entry, 40, count.checked_mul(8)?)?;
        let pages = Pages { references, bytes: entry.get(40 + references.len()..)?, page: 0, left: 0 };
        // All of it is there and fits in the hive that it makes, or nothing of it is taken.
        let hive_len = field(16)?;
        let mut wanted = 0_usize;
        for reference in references.as_chunks::<8>().0 {
            let (at, len) = (le_u32(reference, 0)?, le_u32(reference, 4)?);
            if !at.is_multiple_of(PAGE as u32) || !len.is_multiple_of(PAGE as u32) || at.checked_add(len)? > hive_len {
                return None;
            }
            wanted = wanted.checked_add(len as usize)?;
        }
        if wanted > pages.bytes.len() {
            return None;
        }
        let entry = Self { sequence: field(12)?, len: hive_len, pages };
        Some((entry, bytes.get(len..)?))
    }
}

/// The pages of an entry with their numbers.
struct Pages<'a> {
    references: &'a [u8],
    bytes: &'a [u8],
    /// What is left of the reference before.
    page: u32,
    left: u32,
}

impl Iterator for Pages<'_> {
    type Item = (u32, [u8; PAGE]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left == 0 {
            let (reference, rest) = self.references.split_at_checked(8)?;
            self.page = le_u32(reference, 0)? / PAGE as u32;
            self.left = le_u32(reference, 4)? / PAGE as u32;
            self.references = rest;
        }
        let (bytes, rest) = self.bytes.split_first_chunk()?;
        let page = self.page;
        self.bytes = rest;
        self.left -= 1;
        self.page = self.page.checked_add(1)?;
        Some((page, *bytes))
    }
}

/// Reads a whole log; nothing of one that is larger than any.
fn read(log: &dyn Content) -> Result<Vec<u8>> {
    let len = usize::try_from(log.size()).ok().filter(|len| *len <= LARGEST).unwrap_or_default();
    let mut bytes = vec![0; len];
    match log.read_at(0, &mut bytes) {
        Ok(len) => bytes.truncate(len),
        Err(error @ Error::Read { .. }) => return Err(error),
        Err(_) => bytes.clear(),
    }
    Ok(bytes)
}

/// Bytes of what is written at once at least.
const PAGE: usize = 512;
/// Where cells begin.
const START: u64 = 4096;
/// The kind of logs with entries.
const ENTRIES: u32 = 6;
/// What hashes of entries begin with.
const SEED: u64 = 0xc555_4e7a_884d_ef82;
/// Bytes of a log that is read, twice what Windows makes of it.
const LARGEST: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::fs::Extent;

    struct Bytes(Vec<u8>);

    impl Content for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
        fn extents(&self, _: Range<u64>) -> Result<Vec<Extent>> {
            Ok(Vec::new())
        }
    }

    fn base(kind: u32, sequences: [u32; 2], len: u32, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..4].copy_from_slice(b"regf");
        let [first, second] = sequences;
        for (at, number) in [(4, first), (8, second), (20, 1), (24, 5), (28, kind), (36, 32), (40, len), (44, 1)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
        bytes[508..512].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// An entry that sets pages, each to one byte.
    fn entry(sequence: u32, len: u32, pages: &[(u32, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[..4].copy_from_slice(b"HvLE");
        for (page, _) in pages {
            bytes.extend((page * PAGE as u32).to_le_bytes());
            bytes.extend((PAGE as u32).to_le_bytes());
        }
        pages.iter().for_each(|(_, byte)| bytes.extend([*byte; PAGE]));
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let size = bytes.len() as u32;
        for (at, number) in [(4, size), (12, sequence), (16, len), (20, pages.len() as u32)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let first = marvin32(&bytes[40..], SEED);
        bytes[24..32].copy_from_slice(&first.to_le_bytes());
        let second = marvin32(&bytes[..32], SEED);
        bytes[32..40].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    fn replayed(hive: &[u8], logs: &[Vec<u8>]) -> (Replayed, bool) {
        let base = Base::parse(hive).unwrap();
        let mut replayed = Replayed::stored(Arc::new(Bytes(hive.to_vec())), base);
        let logs: Vec<_> = logs.iter().map(|log| Arc::new(Bytes(log.clone())) as Arc<dyn Content>).collect();
        let all = replayed.apply(&logs).unwrap();
        (replayed, all)
    }

    fn read(replayed: &Replayed, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0xee; range.len()];
        let len = replayed.read_at(range.start as u64, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    const PAGES: u32 = 16;
    const LEN: u32 = PAGES * PAGE as u32;

    fn hive() -> Vec<u8> {
        let mut hive = base(0, [11, 10], LEN, START as usize);
        hive.resize(hive.len() + LEN as usize, 0xaa);
        hive
    }

    /// The hive after entries.
    fn expected(entries: &[Vec<(u32, u8)>]) -> Vec<u8> {
        let mut expected = hive();
        for (page, byte) in entries.iter().flatten() {
            let at = START as usize + *page as usize * PAGE;
            expected.resize(expected.len().max(at + PAGE), 0);
            expected[at..at + PAGE].fill(*byte);
        }
        expected
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn entries_of_two_logs_are_applied_in_their_order(
            entries in prop::collection::vec(prop::collection::vec((0..PAGES + 8, any::<u8>()), 0..6), 1..8),
            in_first in any::<prop::sample::Index>(),
            starts_with_second in any::<bool>(),
            first_sequence in 8..12_u32,
            from in 0..20_000_usize,
        ) {
            let split = in_first.index(entries.len() + 1);
            let mut logs = vec![Vec::new(), Vec::new()];
            for (number, pages) in entries.iter().enumerate() {
                let sequence = first_sequence + number as u32;
                let log = &mut logs[usize::from((number >= split) != starts_with_second)];
                if log.is_empty() {
                    *log = base(ENTRIES, [sequence, sequence], LEN, PAGE);
                }
                log.extend(entry(sequence, LEN + 8 * PAGE as u32, pages));
            }
            logs.retain(|log| !log.is_empty());
            // What is older than the hive is in it already.
            let newer = entries.get((10_u32.saturating_sub(first_sequence) as usize)..).unwrap_or_default();
            let expected = expected(newer);
            let (replayed, all) = replayed(&hive(), &logs);
            prop_assert_eq!((all, replayed.size()), (!newer.is_empty(), expected.len() as u64));
            prop_assert!(read(&replayed, 0..expected.len() + 10) == expected);
            let from = from.min(expected.len());
            prop_assert!(read(&replayed, from..from + 700) == expected[from..expected.len().min(from + 700)]);
        }

        #[test]
        fn a_log_that_is_damaged_is_applied_up_to_there(
            entries in prop::collection::vec(prop::collection::vec((0..PAGES, any::<u8>()), 1..6), 1..8),
            damaged in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let damaged = damaged.index(entries.len());
            let mut log = base(ENTRIES, [10, 10], LEN, PAGE);
            for (number, pages) in entries.iter().enumerate() {
                let mut bytes = entry(10 + number as u32, LEN, pages);
                if number == damaged {
                    let place = place.index(bytes.len());
                    bytes[place] ^= 1 << bit;
                }
                log.extend(bytes);
            }
            let expected = expected(&entries[..damaged]);
            let (replayed, all) = replayed(&hive(), &[log]);
            prop_assert_eq!(all, damaged > 0);
            prop_assert!(read(&replayed, 0..expected.len()) == expected);
        }

        #[test]
        fn logs_of_any_bytes_are_no_panic(
            kind in prop::sample::select(vec![1, 2, 6]),
            body in prop::collection::vec(any::<u8>(), 0..3000),
            magic in prop::sample::select(vec![&b"HvLE"[..], b"DIRT"]),
        ) {
            let mut log = base(kind, [10, 10], LEN, PAGE);
            log.extend(magic);
            log.extend(body);
            let (replayed, _) = replayed(&hive(), &[log]);
            read(&replayed, 0..20_000);
        }
    }

    #[test]
    fn dirty_pages_of_the_newer_of_two_old_logs_are_applied() {
        let log = |sequence: u32, pages: &[(usize, u8)]| {
            let mut log = base(1, [sequence; 2], LEN, PAGE);
            log.extend(b"DIRT");
            let mut bits = vec![0_u8; PAGES as usize / 8];
            pages.iter().for_each(|(page, _)| bits[page / 8] |= 1 << (page % 8));
            log.extend(bits);
            log.resize(2 * PAGE, 0);
            pages.iter().for_each(|(_, byte)| log.extend([*byte; PAGE]));
            log
        };
        let (replayed, all) = replayed(&hive(), &[log(11, &[(0, 1), (9, 2), (15, 3)]), log(10, &[(1, 4)])]);
        assert!(all);
        let mut expected = hive();
        for (page, byte) in [(0, 1), (9, 2), (15, 3)] {
            expected[START as usize + page * PAGE..][..PAGE].fill(byte);
        }
        assert!(read(&replayed, 0..expected.len()) == expected);
        // One that ends early or is older is left alone.
        let mut short = log(11, &[(0, 1), (9, 2)]);
        short.truncate(short.len() - 1);
        for log in [short, log(9, &[(1, 1)])] {
            let (replayed, all) = super::tests::replayed(&hive(), &[log]);
            assert!(!all && read(&replayed, 0..30_000) == hive());
        }
    }
}
