//! A disk that a client stored, behind the 902 server.

use std::io;
use std::ops::Range;
use std::path::Path;

use vmdk::{AdapterType, CreateKind, CreateSpec, Disk, MapKind, OpenOptions};

use crate::nfc::{NewDisk, NfcFile};

/// The disk's files lie in the datastore's directory.
pub(super) struct StoredDisk(Disk);

impl StoredDisk {
    pub(super) fn open(host: &Path, write: bool) -> vmdk::Result<Self> {
        let options = OpenOptions::new();
        Disk::open(host, &if write { options.writable() } else { options }).map(Self)
    }

    pub(super) fn create(host: &Path, new: &NewDisk) -> vmdk::Result<Self> {
        let adapter = match new.adapter {
            Some("ide") => AdapterType::Ide,
            _ => AdapterType::LsiLogic,
        };
        let spec = CreateSpec::new(new.capacity, CreateKind::Vmfs).thin(new.thin).adapter_type(adapter);
        vmdk::create(host, &spec).map(Self)
    }
}

impl NfcFile for StoredDisk {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf).map_err(io::Error::other)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data).map_err(io::Error::other)
    }

    fn allocated(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for entry in self.0.map(range) {
            let entry = entry.map_err(io::Error::other)?;
            match (entry.kind, ranges.last_mut()) {
                (MapKind::Data, Some(last)) if last.end == entry.range.start => last.end = entry.range.end,
                (MapKind::Data, _) => ranges.push(entry.range),
                _ => {}
            }
        }
        Ok(ranges)
    }

    fn ddb(&self, key: &str) -> Option<String> {
        self.0.ddb_get(key)
    }

    fn ddb_entries(&self) -> Vec<(String, String)> {
        self.0.ddb_list()
    }

    fn set_ddb(&self, entries: &[(String, String)]) -> io::Result<()> {
        entries.iter().try_for_each(|(key, value)| self.0.ddb_set(key, value).map_err(io::Error::other))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(io::Error::other)
    }
}
