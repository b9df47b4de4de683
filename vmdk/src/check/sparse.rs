//! Hosted sparse extents: the header, and what it says about the rest.

use super::{
    CheckOptions,
    problem::Problem,
    report::{Place, Report},
    stream::check_stream,
    tables::{Directory, Shape, TableFile},
    walk::{Lost, Walk},
};
use crate::{
    SECTOR,
    descriptor::Descriptor,
    disk::read_descriptor,
    error::{Error, Result},
    extent::Backing,
    layout::{HEADER_BYTES, SparseFlags, SparseHeader},
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
    let file = TableFile::new(backing.clone(), Shape::of(&header))?;
    let shape = file.shape;
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
    if header.overhead_sectors > file.sectors() {
        let detail = format!("{} sectors of metadata in a file of {}", header.overhead_sectors, file.sectors());
        report.add(Problem::OverheadWrong, name, Place::sector(0), detail);
    }
    let locate = |sector| Directory::locate(sector, shape.tables, file.len);
    let first = locate(header.directory_sector);
    if first.is_none() {
        let detail = format!("{} entries do not fit in the file of {} sectors", shape.tables, file.sectors());
        report.add(Problem::DirectoryOutside, name, Place::sector(header.directory_sector), detail);
    }
    let keeps_copy = header.flags.has(SparseFlags::REDUNDANT_DIRECTORY);
    let copied = header.redundant_directory_sector;
    let redundant = locate(copied).filter(|_| keeps_copy);
    if keeps_copy && redundant.is_none() {
        let detail = format!("{} entries do not fit in the file of {} sectors", shape.tables, file.sectors());
        report.add(Problem::RedundantDirectoryOutside, name, Place::sector(copied), detail);
    }
    let is_copy = redundant.as_ref().zip(first.as_ref()).is_some_and(|(copy, first)| copy.offset == first.offset);
    if is_copy {
        report.add(Problem::NotRedundant, name, Place::sector(copied), "both directories are one");
    }
    let fixed = fixed(&header, file.len, name);
    Walk {
        report,
        lost: Lost::new(shape.tables),
        first,
        redundant: redundant.filter(|_| !is_copy),
        fixed,
        data_sector: header.overhead_sectors.min(file.sectors()),
        memory: options.memory_bytes,
        packed: None,
        last: 0,
        file,
    }
    .run()?;
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

/// The places of header and descriptor.
pub(super) fn fixed(header: &SparseHeader, file_len: u64, name: &str) -> Vec<(std::ops::Range<u64>, &'static str)> {
    let descriptor = header.descriptor_range(file_len, name).ok().flatten();
    let descriptor = descriptor.map(|range| (range.start / SECTOR..range.end.div_ceil(SECTOR), "the descriptor"));
    std::iter::once((0..1, "the header")).chain(descriptor).collect()
}
