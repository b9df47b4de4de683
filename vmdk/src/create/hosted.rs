//! New hosted sparse files: header, descriptor, both directories and all tables, which are one hole of the file.

use super::CreateSpec;
use crate::{
    SECTOR,
    error::{Error, Result},
    extent::Backing,
    layout::{MAX_DIRECTORY_ENTRIES, SparseFlags, SparseHeader, TABLE_BYTES},
};

/// A new, empty extent.
#[derive(Debug)]
pub(crate) struct NewSparse {
    header: SparseHeader,
    redundant_tables: u64,
    tables: u64,
}

impl NewSparse {
    /// Lays out an extent of `capacity_sectors`, with room for a descriptor of so many bytes if it has one.
    pub(crate) fn lay_out(capacity_sectors: u64, spec: &CreateSpec, descriptor_len: Option<u64>) -> Result<Self> {
        let descriptor_sectors = descriptor_len.map_or(0, |len| len.div_ceil(SECTOR).max(DESCRIPTOR_SECTORS));
        let (version, zeroed) = if spec.zeroed_grains { (2, SparseFlags::ZEROED_GRAINS) } else { (1, 0) };
        let mut header = SparseHeader {
            version,
            flags: SparseFlags(SparseFlags::NEWLINE_TEST | SparseFlags::REDUNDANT_DIRECTORY | zeroed),
            capacity_sectors,
            grain_sectors: spec.grain_bytes / SECTOR,
            descriptor_sector: u64::from(descriptor_len.is_some()),
            descriptor_sectors,
            redundant_directory_sector: 1 + descriptor_sectors,
            directory_sector: 0,
            overhead_sectors: 0,
            unclean_shutdown: false,
            compression: 0,
        };
        let entries = header.directory_entries();
        let directory_sectors = (entries * 4).div_ceil(SECTOR);
        let table_sectors = entries * (TABLE_BYTES / SECTOR);
        let redundant_tables = header.redundant_directory_sector + directory_sectors;
        header.directory_sector = redundant_tables + table_sectors;
        let tables = header.directory_sector + directory_sectors;
        header.overhead_sectors = (tables + table_sectors).next_multiple_of(header.grain_sectors);
        // Sector numbers in the directory have 32 bits.
        if entries > MAX_DIRECTORY_ENTRIES || header.overhead_sectors > u64::from(u32::MAX) {
            let problem = format!("{} bytes are too small for a disk of this size", spec.grain_bytes);
            return Err(Error::invalid("grain size", problem));
        }
        Ok(Self { header, redundant_tables, tables })
    }

    /// Writes the extent to an empty file.
    pub(crate) fn write(&self, backing: &Backing, descriptor: &[u8]) -> Result<()> {
        backing.set_len(self.header.overhead_sectors * SECTOR)?;
        if !descriptor.is_empty() {
            backing.write(self.header.descriptor_sector * SECTOR, descriptor)?;
        }
        self.write_directory(backing, self.header.redundant_directory_sector, self.redundant_tables)?;
        self.write_directory(backing, self.header.directory_sector, self.tables)?;
        // Last: until then the file is no VMDK.
        backing.write(0, &self.header.encode())
    }

    fn write_directory(&self, backing: &Backing, sector: u64, first_table: u64) -> Result<()> {
        const BLOCK: u64 = 64 * 1024;
        let entries = self.header.directory_entries();
        for start in (0..entries).step_by(BLOCK as usize / 4) {
            let block: Vec<u8> = (start..entries.min(start + BLOCK / 4))
                .flat_map(|index| ((first_table + index * (TABLE_BYTES / SECTOR)) as u32).to_le_bytes())
                .collect();
            backing.write(sector * SECTOR + start * 4, &block)?;
        }
        Ok(())
    }
}

/// Room for the descriptor that every program leaves.
const DESCRIPTOR_SECTORS: u64 = 20;
