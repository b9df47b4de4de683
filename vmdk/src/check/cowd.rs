//! ESXi's redo logs (COWD): one directory, no copies, and a header that knows where the next grain goes.

use super::{
    CheckOptions,
    inspection::{Inspection, Lost},
    problem::Problem,
    report::{Place, Report},
    sparse::ExtentFacts,
    tables::{Directory, Shape, TableFile},
    walk::Walk,
};
use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{COWD_ENTRIES_PER_TABLE, COWD_HEADER_BYTES, CowdHeader},
};

/// Checks a file that begins with `COWD`.
pub(super) fn check_cowd(backing: &Backing, options: &CheckOptions, report: &mut Report) -> Result<ExtentFacts> {
    let name = &*backing.name;
    let len = backing.len()?;
    let mut bytes = [0; COWD_HEADER_BYTES];
    if len < COWD_HEADER_BYTES as u64 {
        report.add(Problem::HeaderDamaged, name, Place::sector(0), "the file ends inside of its header");
        return Ok(ExtentFacts::default());
    }
    backing.read(0, &mut bytes)?;
    let header = match CowdHeader::parse(&bytes, name) {
        Ok(header) => header,
        Err(error) => {
            report.add_refused_header(name, &error);
            return Ok(ExtentFacts::default());
        }
    };
    let facts = ExtentFacts { capacity_sectors: Some(header.capacity_sectors.into()), descriptor: None };
    if header.unclean_shutdown {
        report.add(Problem::UncleanShutdown, name, Place::sector(0), "the header has the mark of an open file");
    }
    let shape = Shape::of_cowd(&header);
    let Some(first) = Directory::locate(header.directory_sector.into(), shape.tables, len) else {
        let detail = format!("{} entries do not fit in the file of {} sectors", shape.tables, len / SECTOR);
        report.add(Problem::DirectoryOutside, name, Place::sector(header.directory_sector.into()), detail);
        return Ok(facts);
    };
    // The directory has room for more tables than the capacity needs.
    let fixed = vec![(0..COWD_HEADER_BYTES as u64 / SECTOR, "the header"), (room(&header, &first), "the directory")];
    let found = Inspection {
        data_sector: (COWD_HEADER_BYTES as u64 / SECTOR).min(len / SECTOR),
        fixed,
        first: Some(first),
        redundant: None,
        keeps_redundant: false,
        lost: Lost::new(shape.tables),
        file: TableFile::new(backing.clone(), shape)?,
    };
    let mut walk = Walk { report, found, memory: options.memory_bytes, packed: None, last: 0 };
    walk.run()?;
    let last = walk.last;
    let free = u64::from(header.free_sector);
    if free < last || free > len.div_ceil(SECTOR) {
        let detail = format!("the next grain would go to sector {free}; used are those before {last}");
        report.add(Problem::FreeSectorWrong, name, Place::sector(free), detail);
    }
    Ok(facts)
}

/// The sectors of the directory that are behind its used part.
fn room(header: &CowdHeader, used: &Directory) -> std::ops::Range<u64> {
    let start = used.sectors().end;
    let end = u64::from(header.directory_sector) + (u64::from(header.directory_capacity) * 4).div_ceil(SECTOR);
    start..end.max(start)
}

impl Shape {
    /// The sizes of a redo log.
    pub(crate) fn of_cowd(header: &CowdHeader) -> Self {
        Self {
            tables: header.directory_entries(),
            entries: u64::from(COWD_ENTRIES_PER_TABLE),
            grain_sectors: header.grain_sectors.into(),
            capacity_sectors: header.capacity_sectors.into(),
            is_packed: false,
        }
    }
}
