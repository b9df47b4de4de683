//! Changing directories and tables, in the file and in memory.

use std::sync::atomic::Ordering;

use super::{
    SparseExtent,
    allocator::{Claim, Locked},
};
use crate::{
    SECTOR,
    cache::Block,
    error::{Error, Result},
    extent::tables::TablesLocked,
    grains::Directory,
    layout::TABLE_BYTES,
};

impl SparseExtent {
    /// Sets consecutive entries, all in the table of `grain`: the redundant ones first.
    pub(super) fn store_entries(&self, grain: u64, entries: &[u32], _claim: &Claim<'_>) -> Result<()> {
        let (number, first) = self.grains.entry(grain);
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let mut locked = self.tables.lock();
        let redundant = self.redundant.map(|directory| self.table(directory, number, &mut locked)).transpose()?;
        let own = self.table(self.directory, number, &mut locked)?;
        let table = self.tables.get_for_change(own, &mut locked)?;
        for table in redundant.into_iter().chain([own]) {
            self.backing.write(table.offset + first as u64 * 4, &bytes)?;
        }
        for (slot, &entry) in table[first..].iter().zip(entries) {
            slot.store(entry, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the table of `grain` when there is none. Hosted extents have all tables from the start; other writers
    /// leave some out.
    pub(super) fn add_table(&self, grain: u64, locked: &mut Locked<'_>) -> Result<()> {
        let (number, _) = self.grains.entry(grain);
        let mut tables = self.tables.lock();
        for directory in self.redundant.into_iter().chain([self.directory]) {
            if self.directory_entry(directory, number, &mut tables)? == 0 {
                self.add_table_to(directory, number, locked, &mut tables)?;
            }
        }
        Ok(())
    }

    fn add_table_to(
        &self,
        directory: u64,
        number: u64,
        locked: &mut Locked<'_>,
        tables: &mut TablesLocked<'_>,
    ) -> Result<()> {
        let at = self.allocator.reserve(TABLE_BYTES, SECTOR, &self.backing.name, locked)?;
        self.backing.write(at, &[0; TABLE_BYTES as usize])?;
        // Sectors of reserved bytes fit in 32 bits.
        let sector = (at / SECTOR) as u32;
        let (page, index) = self.page(directory, number);
        let page = self.tables.get_for_change(page, tables)?;
        self.backing.write(directory + number * 4, &sector.to_le_bytes())?;
        page[index].store(sector, Ordering::Release);
        Ok(())
    }

    /// Where the table is that `directory` names.
    fn table(&self, directory: u64, number: u64, tables: &mut TablesLocked<'_>) -> Result<Block> {
        let offset = u64::from(self.directory_entry(directory, number, tables)?) * SECTOR;
        if offset == 0 || offset + TABLE_BYTES > self.allocator.end() {
            let problem = format!("grain table {number} is missing in one of the directories");
            return Err(Error::malformed(&*self.backing.name, problem));
        }
        Ok(Block { offset, len: TABLE_BYTES as u32 })
    }

    fn directory_entry(&self, directory: u64, number: u64, tables: &mut TablesLocked<'_>) -> Result<u32> {
        let (page, index) = self.page(directory, number);
        Ok(self.tables.get_locked(page, tables)?[index].load(Ordering::Acquire))
    }

    /// The page of `directory` with the entry of table `number`, and where it is there.
    fn page(&self, directory: u64, number: u64) -> (Block, usize) {
        Directory { offset: directory, len: self.header.directory_entries() }.page(number, 4)
    }
}
