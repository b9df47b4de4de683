//! Growing a hosted sparse file: more tables, and longer directories at its end.

use crate::{
    SECTOR,
    error::{Error, Result},
    extent::{Backing, free_end},
    layout::{ENTRIES_PER_TABLE, HEADER_BYTES, MAX_DIRECTORY_ENTRIES, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// Makes the extent in `file` at least `capacity_sectors` large. The header is the last to change, in one sector: until
/// then the file is the old extent with unused bytes behind it.
pub(super) fn grow_hosted(file: &Backing, capacity_sectors: u64) -> Result<()> {
    let old = file.sparse_header()?;
    if old.is_stream_optimized() {
        let reason = "its grains have no room to move; copy it to another kind";
        return Err(Error::not_supported(&*file.name, "growing a compressed extent", reason));
    }
    if old.capacity_sectors >= capacity_sectors {
        return Ok(());
    }
    let mut new = SparseHeader { capacity_sectors, ..old.clone() };
    if new.directory_entries() > MAX_DIRECTORY_ENTRIES {
        let reason = "it needs more than 16 million grain tables; copy it to a disk with larger grains";
        return Err(Error::not_supported(&*file.name, "growing an extent with small grains", reason));
    }
    let growth = Growth { file, old: &old };
    growth.clear_behind_the_end()?;
    if new.directory_entries() > old.directory_entries() {
        growth.move_directories(&mut new)?;
    }
    file.sync()?;
    let mut sector = [0; HEADER_BYTES];
    file.read(0, &mut sector)?;
    // What follows the fields belongs to whoever wrote it.
    sector[..SparseHeader::FIELD_BYTES].copy_from_slice(&new.encode()[..SparseHeader::FIELD_BYTES]);
    file.write(0, &sector)?;
    file.sync()
}

struct Growth<'a> {
    file: &'a Backing,
    old: &'a SparseHeader,
}

impl Growth<'_> {
    /// Makes zero what lies behind the disk's end now and will be inside: the rest of a last grain that is short, and
    /// entries of the last table that stand for no grain yet. Writers may have left anything there.
    fn clear_behind_the_end(&self) -> Result<()> {
        let entries = u64::from(ENTRIES_PER_TABLE);
        let Some(directory) = self.directory(self.old.directory_sector)? else { return Ok(()) };
        let last = self.old.capacity_sectors.div_ceil(self.old.grain_sectors) - 1;
        let (table, used) = (last / entries, last % entries + 1);
        for directory in self.redundant()?.into_iter().chain([directory]) {
            let at = u64::from(self.word(directory + table * 4)?) * SECTOR;
            if at == 0 {
                continue;
            }
            let mut rest = vec![0; ((entries - used) * 4) as usize];
            self.file.read(at + used * 4, &mut rest)?;
            if rest.iter().any(|&byte| byte != 0) {
                rest.fill(0);
                self.file.write(at + used * 4, &rest)?;
            }
        }
        let within = self.old.capacity_sectors % self.old.grain_sectors;
        let table = u64::from(self.word(directory + table * 4)?) * SECTOR;
        if within == 0 || table == 0 {
            return Ok(());
        }
        let grain = u64::from(self.word(table + (used - 1) * 4)?);
        if grain >= self.old.overhead_sectors.max(1) {
            // Written and not punched: the file may end inside of the grain.
            let zeros = vec![0; ((self.old.grain_sectors - within) * SECTOR) as usize];
            self.file.write((grain + within) * SECTOR, &zeros)?;
        }
        Ok(())
    }

    /// Writes longer directories behind the last grain, with new tables that are one hole, and names them in `new`.
    fn move_directories(&self, new: &mut SparseHeader) -> Result<()> {
        let added = new.directory_entries() - self.old.directory_entries();
        let directory_sectors = (new.directory_entries() * 4).div_ceil(SECTOR);
        let copy_sectors = directory_sectors + added * (TABLE_BYTES / SECTOR);
        let copies = self.redundant()?.into_iter().chain(self.directory(self.old.directory_sector)?).count() as u64;
        let grain_bytes = self.old.grain_sectors * SECTOR;
        let start = free_end(self.file.len()?, grain_bytes).next_multiple_of(grain_bytes) / SECTOR;
        let end = (start + copies * copy_sectors).next_multiple_of(self.old.grain_sectors);
        if end > u64::from(u32::MAX) {
            let reason = "sector numbers have 32 bits";
            return Err(Error::not_supported(&*self.file.name, "a sparse extent file above 2 TiB", reason));
        }
        self.file.set_len(end * SECTOR)?;
        let mut sector = start;
        if let Some(from) = self.redundant()? {
            new.redundant_directory_sector = sector;
            self.write_directory(from, sector, directory_sectors, added)?;
            sector += copy_sectors;
        }
        if let Some(from) = self.directory(self.old.directory_sector)? {
            new.directory_sector = sector;
            self.write_directory(from, sector, directory_sectors, added)?;
        }
        Ok(())
    }

    /// Writes the directory at byte `from` to `sector`, with `added` entries for the tables that follow it.
    fn write_directory(&self, from: u64, sector: u64, directory_sectors: u64, added: u64) -> Result<()> {
        const BLOCK: u64 = 64 * 1024;
        let kept = self.old.directory_entries();
        let first_table = sector + directory_sectors;
        let mut entry = 0;
        while entry < kept + added {
            let stop = (entry + BLOCK / 4).min(kept + added);
            let mut block = vec![0; ((stop - entry) * 4) as usize];
            let copied = kept.clamp(entry, stop) - entry;
            let (old, new) = block.split_at_mut((copied * 4) as usize);
            if !old.is_empty() {
                self.file.read(from + entry * 4, old)?;
            }
            for (slot, index) in new.chunks_exact_mut(4).zip(entry + copied..) {
                // Checked by the caller: all of the file lies below sector 2^32.
                let table = first_table + (index - kept) * (TABLE_BYTES / SECTOR);
                slot.copy_from_slice(&(table as u32).to_le_bytes());
            }
            self.file.write(sector * SECTOR + entry * 4, &block)?;
            entry = stop;
        }
        Ok(())
    }

    /// Where the redundant directory is, if the extent keeps one.
    fn redundant(&self) -> Result<Option<u64>> {
        if !self.old.flags.has(SparseFlags::REDUNDANT_DIRECTORY) {
            return Ok(None);
        }
        self.directory(self.old.redundant_directory_sector)
    }

    /// Where the directory at `sector` is in the file; `None` for a disk without grains.
    fn directory(&self, sector: u64) -> Result<Option<u64>> {
        if self.old.directory_entries() == 0 {
            return Ok(None);
        }
        self.old.directory_offset(sector, self.file.len()?, &self.file.name).map(Some)
    }

    fn word(&self, at: u64) -> Result<u32> {
        let mut word = [0; 4];
        self.file.read(at, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        ops::Range,
        path::{Path, PathBuf},
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::{
        Access, CreateKind, CreateSpec, Disk, Handle, MemSource, OpenOptions, ReadAt, Resolver, WriteAt, create,
    };

    /// A file that remembers its changes since the last sync, so that any of them can be lost.
    #[derive(Debug)]
    struct Journaled {
        file: MemSource,
        /// The file before each change that was not synced yet.
        history: Mutex<Vec<Vec<u8>>>,
        /// Images that a power failure could leave behind.
        images: Mutex<Vec<Vec<u8>>>,
    }

    impl Journaled {
        fn new(bytes: Vec<u8>) -> Arc<Self> {
            Arc::new(Self { file: MemSource::new(bytes), history: Mutex::default(), images: Mutex::default() })
        }

        fn note(&self) {
            self.history.lock().unwrap().push(self.file.to_vec());
        }

        /// Every state between two syncs, and every state with one of the changes missing.
        fn failures(&self) {
            let mut states = std::mem::take(&mut *self.history.lock().unwrap());
            states.push(self.file.to_vec());
            let last = states[states.len() - 1].clone();
            for pair in states.windows(2) {
                let mut without = last.clone();
                let (old, new) = (&pair[0], &pair[1]);
                for at in 0..new.len() {
                    let before = old.get(at).copied().unwrap_or(0);
                    if before != new[at] {
                        without[at] = before;
                    }
                }
                self.images.lock().unwrap().push(without);
            }
            self.images.lock().unwrap().extend(states);
        }
    }

    impl ReadAt for Journaled {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.file.read_exact_at(buf, offset)
        }
    }

    impl WriteAt for Journaled {
        fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
            self.note();
            self.file.write_all_at(data, offset)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.note();
            self.file.set_len(len)
        }
        fn punch(&self, range: Range<u64>) -> io::Result<()> {
            self.note();
            self.file.punch(range)
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            self.failures();
            Ok(())
        }
    }

    struct One(Arc<MemSource>);

    impl Resolver for One {
        fn open(&self, _: &Path, _: Access) -> io::Result<Handle> {
            Ok(Handle::ReadWrite(self.0.clone()))
        }
        fn identity(&self, path: &Path) -> io::Result<PathBuf> {
            Ok(path.to_owned())
        }
    }

    #[test]
    fn a_growth_that_power_fails_in_leaves_the_old_or_the_new_disk_and_can_be_repeated() {
        const OLD: u64 = 3 * 1024 * 1024 + 512;
        const NEW: u64 = 20 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.vmdk");
        let spec = CreateSpec::new(OLD, CreateKind::MonolithicSparse).grain_bytes(4096);
        let disk = create(&path, &spec).unwrap();
        let mut data = vec![0; OLD as usize];
        for (at, fill) in [(0, 1), (1 << 20, 2), (OLD as usize - 600, 3)] {
            data[at..at + 600].fill(fill);
            disk.write_at(at as u64, &data[at..at + 600]).unwrap();
        }
        disk.close().unwrap();
        let file = Journaled::new(std::fs::read(&path).unwrap());
        grow_hosted(&Backing::new("s", Handle::ReadWrite(file.clone())), NEW / SECTOR).unwrap();
        file.failures();
        let images = std::mem::take(&mut *file.images.lock().unwrap());
        assert!(images.len() > 8, "{}", images.len());
        let mut sizes = Vec::new();
        for image in images {
            let again = Arc::new(MemSource::new(image));
            let options = OpenOptions::new().resolver(Arc::new(One(again.clone())));
            let read = || {
                let disk = Disk::open("s", &options).unwrap();
                let mut all = vec![0xee; disk.capacity() as usize];
                disk.read_at(0, &mut all).unwrap();
                assert!(all[..data.len()] == data && all[data.len()..].iter().all(|&byte| byte == 0));
                disk.capacity()
            };
            sizes.push(read());
            grow_hosted(&Backing::new("s", Handle::ReadWrite(again.clone())), NEW / SECTOR).unwrap();
            assert_eq!(read(), NEW);
        }
        assert!(sizes.contains(&OLD) && sizes.contains(&NEW) && sizes.iter().all(|size| [OLD, NEW].contains(size)));
    }
}
