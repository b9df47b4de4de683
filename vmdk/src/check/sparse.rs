//! Hosted sparse extents: the header, and what it says about the rest.

use super::{
    CheckOptions,
    inspection::Inspection,
    problem::Problem,
    report::{Place, Report},
    stream::check_stream,
    walk::Walk,
};
use crate::{
    descriptor::Descriptor,
    disk::read_descriptor,
    error::{Error, Result},
    extent::Backing,
    layout::{HEADER_BYTES, SparseHeader},
};

/// What the check of an extent tells the rest.
#[derive(Debug, Default)]
pub(super) struct ExtentFacts {
    pub(super) capacity_sectors: Option<u64>,
    pub(super) descriptor: Option<Descriptor>,
}

/// Checks a file that begins with `KDMV`.
pub(super) fn check_sparse(backing: &Backing, options: &CheckOptions, report: &mut Report) -> Result<ExtentFacts> {
    let Some(header) = header(backing, report)? else { return Ok(ExtentFacts::default()) };
    let facts = ExtentFacts {
        capacity_sectors: Some(header.capacity_sectors),
        descriptor: descriptor(backing, &header, report)?,
    };
    let name = &*backing.name;
    if let Err(error @ Error::NotSupported { .. }) = header.directory_offset(1, u64::MAX, name) {
        report.add(Problem::NotSupported, name, Place::default(), error.to_string());
        return Ok(facts);
    }
    if header.is_stream_optimized() {
        check_stream(backing, &header, options, report)?;
        return Ok(facts);
    }
    if header.unclean_shutdown {
        report.add(Problem::UncleanShutdown, name, Place::sector(0), "the header has the mark of an open file");
    }
    let found = Inspection::of_sparse(backing, &header, &header)?;
    let sectors = found.file.sectors();
    if header.overhead_sectors > sectors {
        let detail = format!("{} sectors of metadata in a file of {sectors}", header.overhead_sectors);
        report.add(Problem::OverheadWrong, name, Place::sector(0), detail);
    }
    let detail = || format!("{} entries do not fit in the file of {sectors} sectors", header.directory_entries());
    if found.first.is_none() {
        report.add(Problem::DirectoryOutside, name, Place::sector(header.directory_sector), detail());
    }
    if found.keeps_redundant && found.redundant.is_none() {
        let place = Place::sector(header.redundant_directory_sector);
        if header.redundant_directory_sector == header.directory_sector {
            report.add(Problem::NotRedundant, name, place, "both directories are one");
        } else {
            report.add(Problem::RedundantDirectoryOutside, name, place, detail());
        }
    }
    Walk { report, found, memory: options.memory_bytes, packed: None, last: 0 }.run()?;
    Ok(facts)
}

/// Reads and judges the header.
fn header(backing: &Backing, report: &mut Report) -> Result<Option<SparseHeader>> {
    let name = &*backing.name;
    let mut bytes = [0; HEADER_BYTES];
    if backing.len()? < HEADER_BYTES as u64 {
        report.add(Problem::HeaderDamaged, name, Place::sector(0), "the file ends inside of its header");
        return Ok(None);
    }
    backing.read(0, &mut bytes)?;
    match SparseHeader::parse(&bytes, name) {
        Ok(header) => Ok(Some(header)),
        Err(error) => {
            let problem = match error {
                Error::NotSupported { .. } => Problem::NotSupported,
                _ if !SparseHeader::kept_newlines(&bytes) => Problem::TextTransfer,
                _ => Problem::HeaderDamaged,
            };
            report.add(problem, name, Place::sector(0), error.to_string());
            Ok(None)
        }
    }
}

/// The embedded descriptor, if there is one that can be read.
fn descriptor(backing: &Backing, header: &SparseHeader, report: &mut Report) -> Result<Option<Descriptor>> {
    let place = Place::sector(header.descriptor_sector);
    match header.descriptor_range(backing.len()?, &backing.name) {
        Ok(None) => Ok(None),
        Ok(Some(range)) => read_descriptor(backing, range.start, range.end - range.start).map(Some),
        Err(error) => {
            report.add(Problem::DescriptorDamaged, &backing.name, place, error.to_string());
            Ok(None)
        }
    }
}

/// Where directories and tables of a sparse file are, and which tables cannot be read; for a repair.
pub(crate) fn inspect(
    backing: &Backing,
    header: &SparseHeader,
    tables: &SparseHeader,
    memory: usize,
) -> Result<Inspection> {
    let mut report = Report::new(0);
    let found = Inspection::of_sparse(backing, header, tables)?;
    let mut walk = Walk { report: &mut report, found, memory, packed: None, last: 0 };
    walk.find_lost()?;
    Ok(walk.found)
}
