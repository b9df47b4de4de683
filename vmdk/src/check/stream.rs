//! Streams: header and footer, tables against markers, and the order of a forward reader.

use super::{
    CheckOptions,
    inspection::Inspection,
    markers::{Markers, PackedGrain, Piece},
    packed::Packed,
    problem::Problem,
    report::{Place, Report},
    tables::TableLookup,
    walk::Walk,
};
use crate::{
    SECTOR,
    error::Result,
    extent::Backing,
    layout::{HEADER_BYTES, SparseFlags, SparseHeader},
};

/// Checks a stream that begins with `header`.
pub(super) fn check_stream(
    backing: &Backing,
    header: &SparseHeader,
    options: &CheckOptions,
    report: &mut Report,
) -> Result<()> {
    let name = &*backing.name;
    let needed = SparseFlags::COMPRESSED | SparseFlags::MARKERS;
    if !header.flags.has(needed) || header.compression != 1 {
        report.add(Problem::NotSupported, name, Place::sector(0), "compressed, but without markers or deflate");
        return Ok(());
    }
    let at_end = header.directory_sector == SparseHeader::DIRECTORY_AT_END;
    let tables = match at_end {
        true => judge_footer(backing, header, report)?,
        false => Some(header.clone()),
    };
    let markers = Markers::new(backing, header)?;
    if markers.position() != header.overhead_sectors.max(1) {
        let detail = format!("the header says that grains begin at sector {}", header.overhead_sectors);
        report.add(Problem::MarkerDamaged, name, Place::sector(markers.position()), detail);
    }
    let lookup = match tables {
        Some(tables) => check_tables(backing, header, &tables, &markers, options, report)?,
        None => None,
    };
    Forward { report, name, lookup, next: 0, found_end: false }.walk(markers, at_end)
}

/// What is wrong with a stream, its header and descriptor aside; for a repair.
pub(crate) fn stream_report(backing: &Backing, header: &SparseHeader, options: &CheckOptions) -> Result<Report> {
    let mut report = Report::new(0);
    check_stream(backing, header, options, &mut report)?;
    Ok(report)
}

/// Reads the footer of a stream whose directory is at its end; `None` when it is of no use.
pub(crate) fn read_footer(backing: &Backing) -> Result<Result<SparseHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let start = backing.len()?.saturating_sub(2 * SECTOR);
    backing.read(start, &mut bytes)?;
    Ok(SparseHeader::parse(&bytes, &backing.name))
}

/// Whether two headers describe one disk: all that a footer may change is the directory's place.
pub(crate) fn is_same_disk(header: &SparseHeader, footer: &SparseHeader) -> bool {
    let facts = |header: &SparseHeader| (header.capacity_sectors, header.grain_sectors, header.compression);
    facts(header) == facts(footer)
}

fn judge_footer(backing: &Backing, header: &SparseHeader, report: &mut Report) -> Result<Option<SparseHeader>> {
    let name = &*backing.name;
    let place = Place::sector((backing.len()? / SECTOR).saturating_sub(2));
    match read_footer(backing)? {
        Err(error) => {
            report.add(Problem::StreamTruncated, name, place, format!("there is no footer: {error}"));
            Ok(None)
        }
        Ok(footer) if !is_same_disk(header, &footer) => {
            let detail = format!(
                "{} sectors in grains of {} in the header, {} in grains of {} in the footer",
                header.capacity_sectors, header.grain_sectors, footer.capacity_sectors, footer.grain_sectors
            );
            report.add(Problem::FooterDiffers, name, place, detail);
            Ok(None)
        }
        Ok(footer) => Ok(Some(footer)),
    }
}

/// Follows the tables to the grains.
fn check_tables(
    backing: &Backing,
    header: &SparseHeader,
    tables: &SparseHeader,
    markers: &Markers,
    options: &CheckOptions,
    report: &mut Report,
) -> Result<Option<TableLookup>> {
    let name = &*backing.name;
    let found = Inspection::of_sparse(backing, header, tables)?;
    let Some(first) = found.first.clone() else {
        let (entries, sectors) = (header.directory_entries(), found.file.sectors());
        let detail = format!("{entries} entries do not fit in the file of {sectors} sectors");
        report.add(Problem::DirectoryOutside, name, Place::sector(tables.directory_sector), detail);
        return Ok(None);
    };
    let packed = Some(Packed::new(backing, markers.clone(), options.deep));
    let mut walk = Walk { report, found, memory: options.memory_bytes, packed, last: 0 };
    walk.run()?;
    let Inspection { file, lost, .. } = walk.found;
    Ok(Some(TableLookup::new(file, first, lost.into_first())))
}

/// A forward reader that looks every grain up in the tables.
struct Forward<'a> {
    report: &'a mut Report,
    name: &'a str,
    lookup: Option<TableLookup>,
    /// Where the next grain of an ascending stream may be.
    next: u64,
    found_end: bool,
}

impl Forward<'_> {
    fn walk(mut self, mut markers: Markers, at_end: bool) -> Result<()> {
        while let Some(piece) = markers.next()? {
            match piece {
                Piece::Grain(grain) => self.grain(&grain, markers.grain_sectors())?,
                Piece::Metadata { .. } => {}
                Piece::End { .. } => self.found_end = true,
                Piece::Damage(range) => {
                    let detail = format!("no marker that is possible in {} sectors", range.end - range.start);
                    self.report.add(Problem::MarkerDamaged, self.name, Place::sector(range.start), detail);
                }
            }
        }
        if at_end && !self.found_end {
            let detail = "the file ends without an end marker";
            self.report.add(Problem::EndMarkerMissing, self.name, Place::sector(markers.position()), detail);
        }
        let rest = markers.rest()?;
        if rest > 0 {
            let detail = format!("{rest} bytes behind the end marker");
            self.report.add(Problem::Leaked, self.name, Place::sector(markers.position()), detail);
        }
        Ok(())
    }

    fn grain(&mut self, grain: &PackedGrain, grain_sectors: u64) -> Result<()> {
        let number = grain.disk_sector / grain_sectors;
        let place = Place::grain(number).at(grain.sector);
        if grain.disk_sector < self.next {
            self.report.add(Problem::OutOfOrder, self.name, place, "it comes after one at or behind it");
        }
        self.next = grain.disk_sector + grain_sectors;
        let Some(lookup) = &mut self.lookup else {
            self.report.usage_mut().grains += 1;
            return Ok(());
        };
        match lookup.entry(number)? {
            Some(entry) if u64::from(entry) == grain.sector => {}
            // Zero is not stored.
            Some(0) => self.report.add(Problem::GrainNotInTable, self.name, place, "its entry is empty"),
            Some(entry) => {
                let detail = format!("the tables use the one at sector {entry}");
                self.report.add(Problem::GrainTwice, self.name, place, detail);
            }
            None => {} // Its table is lost, which was said.
        }
        Ok(())
    }
}
