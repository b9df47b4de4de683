//! Space-efficient sparse extents: headers, the journal, and tables against the areas that the header names.
//!
//! The free bitmap and the back map are left alone: their format is not public, and no reader needs them.

use std::ops::Range;

use super::{
    CheckOptions,
    problem::Problem,
    report::{Place, Report},
    space::{Bits, Space, Use},
    sparse::ExtentFacts,
};
use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{
        MAX_DIRECTORY_ENTRIES, SESPARSE_ENTRIES_PER_TABLE, SESPARSE_GRAIN_SECTORS, SESPARSE_HEADER_BYTES,
        SeSparseDirectoryEntry, SeSparseEntry, SeSparseHeader, SeSparseVolatileHeader,
    },
};

/// Checks a file with the magic of an `seSparse` extent.
pub(super) fn check_sesparse(backing: &Backing, options: &CheckOptions, report: &mut Report) -> Result<ExtentFacts> {
    let name = &*backing.name;
    let Some(bytes) = read_sector(backing, 0, report)? else { return Ok(ExtentFacts::default()) };
    let header = match SeSparseHeader::parse(&bytes, name) {
        Ok(header) => header,
        Err(error) => {
            report.add_refused_header(name, &error);
            return Ok(ExtentFacts::default());
        }
    };
    let facts = ExtentFacts { capacity_sectors: Some(header.capacity_sectors), descriptor: None };
    check_volatile(backing, &header, report)?;
    match header.directory_range(backing.len()?, name) {
        Ok(directory) => {
            let (len, tables) = (backing.len()?, header.directory_entries());
            if tables > MAX_DIRECTORY_ENTRIES || len > MAX_FILE_BYTES {
                let detail = format!("{tables} grain tables in a file of {len} bytes");
                report.add(Problem::NotSupported, name, Place::default(), detail);
                return Ok(facts);
            }
            let lost = Bits::new(tables as usize);
            SeSparseWalk { backing, len, directory: directory.start, header, report, lost }
                .run(options.memory_bytes)?;
        }
        Err(error) => {
            report.add(Problem::DirectoryOutside, name, Place::sector(header.directory.sector), error.to_string());
        }
    }
    Ok(facts)
}

fn check_volatile(backing: &Backing, header: &SeSparseHeader, report: &mut Report) -> Result<()> {
    let (name, place) = (&*backing.name, Place::sector(header.volatile_header.sector));
    let Some(bytes) = read_sector(backing, header.volatile_header.sector, report)? else { return Ok(()) };
    match SeSparseVolatileHeader::parse(&bytes, name) {
        Ok(found) if found.replay_journal => {
            let detail = "a host has it open, or died before the journal was applied";
            report.add(Problem::JournalPending, name, place, detail);
        }
        Ok(_) => {}
        Err(error) => report.add(Problem::HeaderDamaged, name, place, error.to_string()),
    }
    Ok(())
}

fn read_sector(backing: &Backing, sector: u64, report: &mut Report) -> Result<Option<[u8; SESPARSE_HEADER_BYTES]>> {
    let start = sector.saturating_mul(SECTOR);
    let mut bytes = [0; SESPARSE_HEADER_BYTES];
    if start.saturating_add(SECTOR) > backing.len()? {
        let detail = "the file ends inside of its headers";
        report.add(Problem::HeaderDamaged, &backing.name, Place::sector(sector), detail);
        return Ok(None);
    }
    backing.read(start, &mut bytes)?;
    Ok(Some(bytes))
}

struct SeSparseWalk<'a> {
    backing: &'a Backing,
    len: u64,
    /// Where the directory is, in bytes.
    directory: u64,
    header: SeSparseHeader,
    report: &'a mut Report,
    /// Directory entries without a table that can be read, or with one that was read for another.
    lost: Bits,
}

impl SeSparseWalk<'_> {
    /// Tables and grains are in areas of their own, so that grains can only lie on grains, and tables on tables. Both
    /// are numbered, and a bit for each is enough; the file bounds the numbers.
    fn run(&mut self, memory: usize) -> Result<()> {
        for window in Space::windows(self.len / TABLE_BYTES as u64 + 1, memory) {
            self.place_tables(window)?;
        }
        let mut table = vec![0; TABLE_BYTES];
        for window in Space::windows(self.len / (SESPARSE_GRAIN_SECTORS * SECTOR) + 1, memory) {
            let judge = window.start == 0;
            let mut used = Space::new(window);
            let mut block = Vec::new();
            for number in 0..self.header.directory_entries() {
                let entry = self.directory_entry(number, &mut block)?;
                if !self.lost.get(number as usize)
                    && let Some((_, offset)) = self.table_place(entry)
                {
                    self.backing.read(offset, &mut table)?;
                    self.table(number, &table, &mut used, judge);
                }
            }
        }
        Ok(())
    }

    /// Finds the directory entries that lead to no table, or to one of another entry: each table is read once, so that
    /// the work is bounded by the file.
    fn place_tables(&mut self, window: Range<u64>) -> Result<()> {
        let judge = window.start == 0;
        let mut used = Space::new(window);
        let mut block = Vec::new();
        for number in 0..self.header.directory_entries() {
            let entry = self.directory_entry(number, &mut block)?;
            if entry == 0 || self.lost.get(number as usize) {
                continue;
            }
            let place = Place::table(number);
            let (problem, place, detail) = match self.table_place(entry) {
                None if judge => {
                    (Problem::TableOutside, place, format!("the directory has {entry:#x}, which is no table here"))
                }
                Some((index, offset)) if used.claim(index..index + 1, Use::Metadata).is_some() => {
                    let detail = format!("table {index} is that of another entry too");
                    (Problem::TableOverlap, place.at(offset / SECTOR), detail)
                }
                _ => continue,
            };
            self.lost.set(number as usize..number as usize + 1);
            self.report.add(problem, &self.backing.name, place, detail);
        }
        Ok(())
    }

    /// Index and place of the table that a directory entry leads to.
    fn table_place(&self, entry: u64) -> Option<(u64, u64)> {
        let Some(SeSparseDirectoryEntry::Table(index)) = SeSparseDirectoryEntry::decode(entry) else { return None };
        let offset = self.header.table_offset(index)?;
        (offset + TABLE_BYTES as u64 <= self.len).then_some((index.into(), offset))
    }

    fn table(&mut self, number: u64, table: &[u8], used: &mut Space, judge: bool) {
        let name = std::sync::Arc::clone(&self.backing.name);
        let grains = self.header.capacity_sectors.div_ceil(SESPARSE_GRAIN_SECTORS);
        for (index, entry) in words(table).enumerate() {
            let grain = number * u64::from(SESPARSE_ENTRIES_PER_TABLE) + index as u64;
            let place = Place { table: Some(number), ..Place::grain(grain) };
            if grain >= grains {
                if judge && entry != 0 {
                    let detail = format!("the disk has {grains} grains");
                    self.report.add(Problem::EntryBeyondEnd, &name, place, detail);
                }
                continue;
            }
            let offset = match SeSparseEntry::decode(entry) {
                Some(SeSparseEntry::Grain(index)) => self.header.grain_offset(index).map(|offset| (index, offset)),
                Some(_) => continue,
                None => None,
            };
            // Behind the disk's end nothing need be stored.
            let sectors = SESPARSE_GRAIN_SECTORS.min(self.header.capacity_sectors - grain * SESPARSE_GRAIN_SECTORS);
            let Some((index, offset)) = offset.filter(|(_, offset)| offset + sectors * SECTOR <= self.len) else {
                if judge {
                    let detail = format!("the table has {entry:#x}, which is no grain in this file");
                    self.report.add(Problem::GrainOutside, &name, place, detail);
                }
                continue;
            };
            if judge {
                self.report.usage_mut().grains += 1;
            }
            if used.claim(index..index + 1, Use::Grain).is_some() {
                let detail = "the grain lies on one that comes before it on the disk";
                self.report.add(Problem::GrainOverlap, &name, place.at(offset / SECTOR), detail);
            }
        }
    }

    /// An entry of the directory, which is read block by block.
    fn directory_entry(&self, number: u64, block: &mut Vec<u64>) -> Result<u64> {
        const BLOCK: u64 = 8 * 1024;
        if number.is_multiple_of(BLOCK) {
            let entries = (self.header.directory_entries() - number).min(BLOCK);
            let mut bytes = vec![0; entries as usize * 8];
            self.backing.read(self.directory + number * 8, &mut bytes)?;
            *block = words(&bytes).collect();
        }
        Ok(block.get((number % BLOCK) as usize).copied().unwrap_or(0))
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Four times what the largest disk of vSphere needs; bounds the passes over a file that is all hole.
const MAX_FILE_BYTES: u64 = 256 << 40;

const TABLE_BYTES: usize = SESPARSE_ENTRIES_PER_TABLE as usize * 8;
