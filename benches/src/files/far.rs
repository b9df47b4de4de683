//! A disk at the other end of a line.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmdk::{Image, MapEntry, Result};

/// A disk each read of which takes a while; it counts them.
pub(super) struct Far<I> {
    disk: I,
    round_trip: Duration,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl<I> Far<I> {
    pub(super) fn new(disk: I, round_trip: Duration) -> Self {
        Self { disk, round_trip, reads: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Reads and their bytes since this was last asked.
    pub(super) fn reset(&self) -> (u64, u64) {
        (self.reads.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

impl<I: Image> Image for Far<I> {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        std::thread::sleep(self.round_trip);
        self.disk.read_at(offset, buf)
    }

    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Result<MapEntry>> + Send + '_> {
        self.disk.map(range)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk.write_at(offset, data)
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        self.disk.zero_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn is_writable(&self) -> bool {
        self.disk.is_writable()
    }

    fn ddb_get(&self, key: &str) -> Option<String> {
        self.disk.ddb_get(key)
    }
}
