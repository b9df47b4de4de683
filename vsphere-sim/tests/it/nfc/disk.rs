//! A disk in memory for the 902 server, and bytes that tell where they belong.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use vsphere_sim::nfc::NfcFile;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const CHUNK: u64 = 64 * 1024;

/// A disk in memory; sectors that were never written are not allocated.
pub(super) struct MemoryDisk {
    pub(super) capacity: u64,
    pub(super) sector_size: u32,
    pub(super) chunks: Mutex<BTreeMap<u64, Vec<u8>>>,
    pub(super) ddb: BTreeMap<String, String>,
    pub(super) fail_writes_at: Mutex<Option<Range<u64>>>,
    pub(super) flushes: AtomicU32,
}

impl MemoryDisk {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            sector_size: 512,
            chunks: Mutex::default(),
            ddb: BTreeMap::from([
                ("adapterType".to_owned(), "lsilogic".to_owned()),
                ("comment".to_owned(), "ä".repeat(2048)),
            ]),
            fail_writes_at: Mutex::default(),
            flushes: AtomicU32::new(0),
        }
    }

    /// A disk whose first `len` bytes have a content that differs from sector to sector.
    pub(super) fn filled(capacity: u64, len: u64) -> Self {
        let disk = Self::new(capacity);
        disk.write_at(0, &pattern(0, len)).unwrap();
        disk
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read_at(range.start, &mut bytes).unwrap();
        bytes
    }
}

impl NfcFile for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let chunks = self.chunks.lock().unwrap();
        for (at, part) in parts(offset, buf.len()) {
            let within = (at % CHUNK) as usize;
            let target = &mut buf[part.clone()];
            match chunks.get(&(at / CHUNK)) {
                Some(chunk) => target.copy_from_slice(&chunk[within..within + part.len()]),
                None => target.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(bad) = &*self.fail_writes_at.lock().unwrap()
            && bad.start < offset + data.len() as u64
            && offset < bad.end
        {
            return Err(io::Error::other("no space left on the datastore"));
        }
        let mut chunks = self.chunks.lock().unwrap();
        for (at, part) in parts(offset, data.len()) {
            let within = (at % CHUNK) as usize;
            let chunk = chunks.entry(at / CHUNK).or_insert_with(|| vec![0; CHUNK as usize]);
            chunk[within..within + part.len()].copy_from_slice(&data[part]);
        }
        Ok(())
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let chunks = self.chunks.lock().unwrap();
        let numbers = chunks.range(range.start / CHUNK..range.end.div_ceil(CHUNK));
        Ok(numbers.map(|(number, _)| number * CHUNK..(number + 1) * CHUNK).collect())
    }

    fn ddb(&self, key: &str) -> Option<String> {
        self.ddb.get(key).cloned()
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Cuts `len` bytes at `offset` on the chunk grid: disk offset and place in the buffer.
pub(super) fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = done..len.min(done + (CHUNK - at % CHUNK) as usize);
        done = part.end;
        (!part.is_empty()).then_some((at, part))
    })
}

/// Bytes that tell where they belong.
pub(super) fn pattern(offset: u64, len: u64) -> Vec<u8> {
    (offset / 8..(offset + len) / 8).flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}
