//! Random changes to disks that a peer and we can make alike, and what the disk then is.

use std::{fs, ops::Range, path::Path};

use proptest::{prelude::*, sample::select};
use vmdk::Disk;

use crate::support::Random;

/// One write, or one range made zero.
#[derive(Debug, Clone)]
pub(super) struct Change {
    at: Place,
    len: u64,
    /// Both ends are on borders of this many bytes.
    align: u64,
    /// Which pattern is written; `None` makes zero.
    pattern: Option<usize>,
}

/// Where a change begins.
#[derive(Debug, Clone)]
enum Place {
    /// So many 65536ths of the disk.
    Part(u16),
    Offset(u64),
}

impl Change {
    /// What it changes in a disk of `capacity` bytes. Never empty.
    pub(super) fn range(&self, capacity: u64) -> Range<u64> {
        let start = match self.at {
            Place::Part(part) => (capacity * u64::from(part)) >> 16,
            Place::Offset(offset) => offset.min(capacity - 1),
        };
        let start = start / self.align * self.align;
        start..(start + self.len).next_multiple_of(self.align).min(capacity)
    }

    /// The bytes afterwards; `None` for zeros.
    pub(super) fn bytes(&self, capacity: u64) -> Option<Vec<u8>> {
        let range = self.range(capacity);
        let pattern = pattern(self.pattern?);
        Some(pattern.into_iter().cycle().take((range.end - range.start) as usize).collect())
    }

    /// Makes it in the model of a disk.
    pub(super) fn apply(&self, content: &mut [u8]) {
        let capacity = content.len() as u64;
        let range = self.range(capacity);
        let place = &mut content[range.start as usize..range.end as usize];
        match self.bytes(capacity) {
            Some(bytes) => place.copy_from_slice(&bytes),
            None => place.fill(0),
        }
    }

    /// Makes it through this crate.
    pub(super) fn write(&self, disk: &Disk) {
        let range = self.range(disk.capacity());
        match self.bytes(disk.capacity()) {
            Some(bytes) => disk.write_at(range.start, &bytes).unwrap(),
            None => disk.zero_at(range).unwrap(),
        }
    }

    /// As qemu-io is told; its working directory has the [patterns](store_patterns).
    pub(super) fn command(&self, capacity: u64) -> String {
        let Range { start, end } = self.range(capacity);
        match self.pattern {
            Some(pattern) => format!("write -s pattern{pattern} {start} {}", end - start),
            None => format!("write -z {start} {}", end - start),
        }
    }
}

/// Makes all changes in the model.
pub(super) fn apply(changes: &[Change], content: &mut [u8]) {
    changes.iter().for_each(|change| change.apply(content));
}

/// Sizes of disks: seldom whole grains (64 KiB) or tables (32 MiB), mostly small.
pub(super) fn capacity() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1_u64..20_000, 1 => 65_000_u64..82_000].prop_map(|sectors| sectors * 512)
}

pub(super) fn changes(count: Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(any::<u16>().prop_map(Place::Part)), count)
}

/// Changes that begin near one of the `borders`, before it more often than not.
pub(super) fn changes_near(borders: &[u64], count: Range<usize>) -> impl Strategy<Value = Vec<Change>> + use<> {
    let near = (select(borders.to_vec()), 0_u64..300_000);
    let place = near.prop_map(|(border, distance)| Place::Offset(border + 100_000 - distance));
    prop::collection::vec(change(place), count)
}

fn change(at: impl Strategy<Value = Place>) -> impl Strategy<Value = Change> {
    let pattern = prop_oneof![3 => (0..PATTERNS).prop_map(Some), 1 => Just(None)];
    (at, 1_u64..300_000, select(&[1, 512, 4096, 65536][..]), pattern).prop_map(|(at, len, align, pattern)| Change {
        at,
        len,
        align,
        pattern,
    })
}

/// Writes the patterns where qemu-io looks for them.
pub(super) fn store_patterns(dir: &Path) {
    for number in 0..PATTERNS {
        fs::write(dir.join(format!("pattern{number}")), pattern(number)).unwrap();
    }
}

/// No two sectors alike, so that a sector in a wrong place is noticed. qemu-io begins it anew at each write.
fn pattern(number: usize) -> Vec<u8> {
    Random::new(number as u64 + 1).bytes(70_001)
}

const PATTERNS: usize = 3;
