//! What the targets that open disks share: files in memory, and what is done with a disk that opened.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use vmdk::{Access, Disk, Handle, MemSource, OpenOptions, Resolver, check::CheckOptions};

/// Files in memory, by name.
#[derive(Default)]
pub struct Files(HashMap<PathBuf, Arc<MemSource>>);

// Not every target uses all of it.
#[allow(dead_code)]
impl Files {
    /// Takes an input apart that is a list of files, each two bytes of length (little endian) and its bytes, named
    /// `0.vmdk`, `1.vmdk`, …; the last one may be cut.
    pub fn unpack(mut rest: &[u8]) -> Self {
        let mut files = Self::default();
        let mut number = 0;
        while let [low, high, bytes @ ..] = rest {
            let (file, after) = bytes.split_at(bytes.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
            files.add(format!("{number}.vmdk"), file);
            number += 1;
            rest = after;
        }
        files
    }

    pub fn add(&mut self, name: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), Arc::new(MemSource::new(bytes.into())));
    }

    /// Opens `name` and, where that works, maps and reads the disk. Work is bounded: entries of the map, bytes read.
    pub fn exercise(self, name: &str) {
        let options = OpenOptions::new().resolver(Arc::new(self)).cache_bytes(1 << 20);
        let Ok(disk) = Disk::open(name, &options) else { return };
        let capacity = disk.capacity();
        read(&disk, 0);
        read(&disk, capacity / 2);
        read(&disk, capacity.saturating_sub(1));
        let mut end = 0;
        for entry in disk.map(0..capacity).take(MAP_ENTRIES) {
            let Ok(entry) = entry else { break };
            assert!(entry.range.start == end && entry.range.start < entry.range.end && entry.range.end <= capacity);
            end = entry.range.end;
            read(&disk, entry.range.start);
            read(&disk, entry.range.end - 1);
        }
        let _ = (disk.descriptor(), disk.ddb_get("uuid"), disk.links().count());
    }

    /// Checks the disk at `name`, deep or not.
    pub fn check(self, name: &str, deep: bool) {
        let options = CheckOptions::new().resolver(Arc::new(self)).deep(deep).memory_bytes(1 << 20);
        let _ = vmdk::check::check(name, &options);
    }
}

fn read(disk: &Disk, offset: u64) {
    let mut buffer = [0; 3000];
    let len = disk.capacity().saturating_sub(offset).min(buffer.len() as u64) as usize;
    let _ = disk.read_at(offset, &mut buffer[..len]);
}

/// A hostile table can make every grain an entry.
const MAP_ENTRIES: usize = 500;

impl Resolver for Files {
    fn open(&self, path: &Path, _access: Access) -> io::Result<Handle> {
        let file = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Handle::ReadOnly(Arc::clone(file) as _))
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}
