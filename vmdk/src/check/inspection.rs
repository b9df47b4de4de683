//! What is known of an extent with directories and tables: where they are, and which of them can be read.

use std::ops::Range;

use super::{
    space::Bits,
    tables::{Directory, Entry, Shape, TableFile},
};
use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{SparseFlags, SparseHeader},
};

/// An extent under inspection, by a check or a repair.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) file: TableFile,
    pub(crate) first: Option<Directory>,
    pub(crate) redundant: Option<Directory>,
    /// The header promises a redundant directory.
    pub(crate) keeps_redundant: bool,
    /// Header and descriptor, with their names.
    pub(crate) fixed: Vec<(Range<u64>, &'static str)>,
    /// Where the header says that grains begin.
    pub(crate) data_sector: u64,
    /// Tables that cannot be read.
    pub(crate) lost: Lost,
}

/// Tables that are outside of the file or on other metadata, by number.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(super) first: Bits,
    pub(super) redundant: Bits,
}

impl Inspection {
    /// The extent that `header` describes, with the directories that `tables` names: the header itself, or a footer.
    /// Directories that do not lie inside the file are left out.
    pub(crate) fn of_sparse(backing: &Backing, header: &SparseHeader, tables: &SparseHeader) -> Result<Self> {
        let shape = Shape { is_packed: header.is_stream_optimized(), ..Shape::of(header) };
        let file = TableFile::new(backing.clone(), shape)?;
        let locate = |sector| Directory::locate(sector, shape.tables, file.len);
        let first = locate(tables.directory_sector);
        let keeps_redundant = tables.flags.has(SparseFlags::REDUNDANT_DIRECTORY);
        let is_other = tables.redundant_directory_sector != tables.directory_sector;
        let redundant = locate(tables.redundant_directory_sector).filter(|_| keeps_redundant && is_other);
        let descriptor = header.descriptor_range(file.len, &backing.name).ok().flatten();
        let descriptor = descriptor.map(|range| (range.start / SECTOR..range.end.div_ceil(SECTOR), "the descriptor"));
        Ok(Self {
            first,
            redundant,
            keeps_redundant,
            fixed: std::iter::once((0..1, "the header")).chain(descriptor).collect(),
            data_sector: header.overhead_sectors.min(file.sectors()),
            lost: Lost::new(shape.tables),
            file,
        })
    }

    /// The table of the first directory; `None` when there is none.
    pub(crate) fn first_entry(&mut self, number: u64) -> Result<Option<u32>> {
        entry(&mut self.first, &self.file, number)
    }

    /// The table of the redundant directory; `None` when there is none.
    pub(crate) fn redundant_entry(&mut self, number: u64) -> Result<Option<u32>> {
        entry(&mut self.redundant, &self.file, number)
    }

    /// Understands the entry of a grain.
    pub(crate) fn entry(&self, value: u32, grain: u64) -> Entry {
        self.file.shape.entry(value, grain, self.file.len)
    }

    /// The sectors of a table.
    pub(crate) fn table_sectors(&self, sector: u32) -> Range<u64> {
        u64::from(sector)..u64::from(sector) + self.file.shape.table_sectors()
    }

    /// Sectors that 32 bits can name: a larger file is mostly hole.
    pub(crate) fn sectors(&self) -> u64 {
        self.file.sectors().min((1 << 32) + self.file.shape.grain_sectors)
    }

    /// Header, descriptor and directories, with their names.
    pub(crate) fn fixed(&self) -> Vec<(Range<u64>, &'static str)> {
        let directories = [(&self.first, "the grain directory"), (&self.redundant, "the redundant grain directory")];
        let directories = directories.iter().filter_map(|(found, name)| Some((found.as_ref()?.sectors(), *name)));
        self.fixed.iter().cloned().chain(directories).collect()
    }
}

impl Lost {
    pub(crate) fn new(tables: u64) -> Self {
        Self { first: Bits::new(tables as usize), redundant: Bits::new(tables as usize) }
    }

    pub(crate) fn is_first(&self, number: u64) -> bool {
        self.first.get(number as usize)
    }

    pub(crate) fn is_redundant(&self, number: u64) -> bool {
        self.redundant.get(number as usize)
    }

    /// A table has a place of its own now.
    pub(crate) fn found_first(&mut self, number: u64) {
        self.first.clear(number as usize);
    }

    /// The same of a redundant table.
    pub(crate) fn found_redundant(&mut self, number: u64) {
        self.redundant.clear(number as usize);
    }

    /// Those of the first directory.
    pub(crate) fn into_first(self) -> Bits {
        self.first
    }
}

/// The entry of a directory; `None` when there is no directory or no table.
fn entry(directory: &mut Option<Directory>, file: &TableFile, number: u64) -> Result<Option<u32>> {
    let Some(directory) = directory else { return Ok(None) };
    Ok(Some(directory.get(&file.backing, number)?).filter(|sector| *sector != 0))
}
