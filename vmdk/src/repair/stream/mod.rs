//! Streams: tables, directory and footer made again from the markers, which stand beside the grains.

mod scan;
mod survey;

use self::{
    scan::Scan,
    survey::{Chosen, Survey, Surveyor},
};
use super::{action::ActionKind, medium::Medium, sparse::Mender};
use crate::{
    SECTOR,
    check::{
        CheckOptions, Place, Problem, Severity,
        internal::{Markers, Packed, Piece, inspect, is_same_disk, read_footer, stream_report},
    },
    error::{Error, Result},
    extent::Backing,
    layout::{ENTRIES_PER_TABLE, Marker, MetadataKind, SparseFlags, SparseHeader},
};

/// Makes the header of a stream again from its footer; `None` when that is no footer of a stream.
pub(super) fn restore_header(
    medium: &mut Medium,
    footer: impl FnOnce(&Backing) -> Result<Result<SparseHeader>>,
) -> Result<Option<SparseHeader>> {
    let Ok(footer) = footer(&medium.backing)? else { return Ok(None) };
    if !is_stream(&footer) || footer.directory_sector == SparseHeader::DIRECTORY_AT_END {
        return Ok(None);
    }
    let header = SparseHeader { directory_sector: SparseHeader::DIRECTORY_AT_END, ..footer };
    // The file of a flat disk may end in what its guest wrote: only a file that is a stream throughout is one.
    if damage(&medium.backing, &header)? > 0 {
        return Ok(None);
    }
    medium.note(ActionKind::RestoreHeader, Place::sector(0));
    medium.write(0, &header.encode())?;
    Ok(Some(header))
}

/// Repairs a stream that begins with `header`.
pub(super) fn mend_stream(medium: &mut Medium, mut header: SparseHeader, options: &CheckOptions) -> Result<()> {
    if !is_stream(&header) {
        return Ok(());
    }
    if is_sound(&medium.backing, &header, options)? {
        return Ok(());
    }
    if header.directory_sector == SparseHeader::DIRECTORY_AT_END {
        if let Ok(footer) = read_footer(&medium.backing)?
            && is_stream(&footer)
            && !is_same_disk(&header, &footer)
            && damage(&medium.backing, &footer)? < damage(&medium.backing, &header)?
        {
            header = SparseHeader { directory_sector: SparseHeader::DIRECTORY_AT_END, ..footer };
            medium.note(ActionKind::RestoreHeader, Place::sector(0));
            medium.write(0, &header.encode())?;
        }
        if restore_beginning(medium, &mut header, options)? {
            return Ok(());
        }
        let tables = read_footer(&medium.backing)?.ok().filter(|footer| is_same_disk(&header, footer));
        // First only to see whether anything would be lost.
        let found = Surveyor::new(medium, &header, tables.as_ref(), options)?.run(medium, false)?;
        if let Some(tables) = &tables {
            let in_tables = Chosen::of(&medium.backing, &header, tables, options)?.map_or(Ok(0), Chosen::count)?;
            if in_tables > found.in_tables {
                let what = format!("{} grains that only the tables lead to", in_tables - found.in_tables);
                let reason = "making them again from the markers would lose these: copy the disk to a new stream";
                return Err(Error::not_supported(&*medium.backing.name, what, reason));
            }
        }
        let survey = Surveyor::new(medium, &header, tables.as_ref(), options)?.run(medium, true)?;
        return rebuild_tail(medium, &header, survey);
    }
    if restore_beginning(medium, &mut header, options)? {
        return Ok(());
    }
    refuse_tables_among_grains(medium, &header, options)?;
    let tables = header.clone();
    let survey = Surveyor::new(medium, &header, Some(&tables), options)?.run(medium, true)?;
    mend_front(medium, header, survey, options)
}

fn is_sound(backing: &Backing, header: &SparseHeader, options: &CheckOptions) -> Result<bool> {
    let report = stream_report(backing, header, options)?;
    Ok(report.worst() < Some(Severity::Damaged) && report.count(Problem::EndMarkerMissing) == 0)
}

/// Lets the header say where the first grain is; tells whether the stream is sound then.
fn restore_beginning(medium: &mut Medium, header: &mut SparseHeader, options: &CheckOptions) -> Result<bool> {
    let first = Markers::new(&medium.backing, header)?.position();
    if first == header.overhead_sectors.max(1) {
        return Ok(false);
    }
    header.overhead_sectors = first;
    medium.note(ActionKind::RestoreHeader, Place::sector(0));
    medium.write(OVERHEAD_FIELD, &first.to_le_bytes())?;
    is_sound(&medium.backing, header, options)
}

/// What is covered between grains, or cut behind them, must not be a table: those among grains have markers.
fn refuse_tables_among_grains(medium: &Medium, header: &SparseHeader, options: &CheckOptions) -> Result<()> {
    let mut found = inspect(&medium.backing, header, header, options.memory_bytes)?;
    let markers = Markers::new(&medium.backing, header)?;
    let first_grain = markers.position();
    let directories = [&found.first, &found.redundant].into_iter().flatten().map(|found| found.sectors().start);
    let mut places: Vec<u64> = directories.collect();
    for number in 0..found.file.shape.tables {
        let both = [found.first_entry(number)?, found.redundant_entry(number)?];
        places.extend(both.into_iter().flatten().filter(|sector| found.file.holds_table(*sector)).map(u64::from));
        for sector in places.drain(..).filter(|sector| *sector >= first_grain) {
            if !matches!(markers.at(sector - 1)?, Some(Piece::Metadata { .. })) {
                let what = format!("a table among the grains, at sector {sector}, without a marker");
                let reason = "a repair might cover it: copy the disk to a new stream instead";
                return Err(Error::not_supported(&*medium.backing.name, what, reason));
            }
        }
    }
    Ok(())
}

/// Writes tables, directory, footer and end marker behind the last whole grain.
fn rebuild_tail(medium: &mut Medium, header: &SparseHeader, survey: Survey) -> Result<()> {
    medium.note(ActionKind::RebuildTail, Place::sector(survey.end));
    let mut directory = vec![0_u32; header.directory_entries() as usize];
    // Overwriting begins here: what is read from now on lies before it.
    medium.set_end(survey.end * SECTOR);
    let mut scan = Scan::new(&medium.backing, header, survey)?;
    while let Some(window) = scan.next_window()? {
        for (index, table) in window.entries.chunks_exact(ENTRIES_PER_TABLE as usize).enumerate() {
            if table.iter().any(|entry| *entry != 0) {
                let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                let sector = append_marked(medium, MetadataKind::Table, &bytes)?;
                directory[window.tables.start as usize + index] = sector;
            }
        }
    }
    let bytes: Vec<u8> = directory.iter().flat_map(|sector| sector.to_le_bytes()).collect();
    let sector = append_marked(medium, MetadataKind::Directory, &bytes)?;
    let flags = SparseFlags(header.flags.0 & !SparseFlags::REDUNDANT_DIRECTORY);
    let footer = SparseHeader { directory_sector: sector.into(), flags, ..header.clone() };
    append_marked(medium, MetadataKind::Footer, &footer.encode())?;
    medium.append(&Marker::EndOfStream.encode(), SECTOR)?;
    medium.set_len(medium.end())?;
    medium.sync()
}

/// Repairs a stream whose directories are in front: its tables from each other and from the markers.
fn mend_front(medium: &mut Medium, header: SparseHeader, survey: Survey, options: &CheckOptions) -> Result<()> {
    let backing = medium.backing.clone();
    let found = inspect(&backing, &header, &header, options.memory_bytes)?;
    let (tables, memory) = (found.file.shape.tables, options.memory_bytes);
    // New tables go behind the last grain, over the zeros that some writers leave there.
    let mut last = survey.end;
    cut_tail(medium, &survey)?;
    let packed = Some(Packed::new(&backing, Markers::new(&backing, &header)?, false));
    let mut scan = Scan::new(&backing, &header, survey)?;
    let mut mender = Mender::new(medium, header, found, packed, memory);
    for number in 0..tables {
        for sector in [mender.found.first_entry(number)?, mender.found.redundant_entry(number)?].into_iter().flatten() {
            if mender.found.file.holds_table(sector) {
                last = last.max(mender.found.table_sectors(sector).end);
            }
        }
    }
    mender.medium.set_end(last * SECTOR);
    mender.prepare()?;
    for number in 0..tables {
        if number >= mender.scanned.tables.end {
            mender.scanned = scan.next_window()?.unwrap_or_default();
        }
        mender.mend_table(number, None, true)?;
    }
    if mender.medium.end() > last * SECTOR {
        mender.medium.append(&Marker::EndOfStream.encode(), SECTOR)?;
    }
    mender.finish()
}

/// Cuts off a last grain that is not whole: a forward reader would stumble over it.
fn cut_tail(medium: &mut Medium, survey: &Survey) -> Result<()> {
    let Some(start) = survey.damaged_end else { return Ok(()) };
    medium.note(ActionKind::CutTail, Place::sector(start));
    medium.set_len(start * SECTOR)?;
    medium.set_end(start * SECTOR);
    Ok(())
}

fn append_marked(medium: &mut Medium, kind: MetadataKind, bytes: &[u8]) -> Result<u32> {
    let sectors = (bytes.len() as u64).div_ceil(SECTOR);
    let mut padded = bytes.to_vec();
    padded.resize((sectors * SECTOR) as usize, 0);
    medium.append(&Marker::Metadata { kind, sectors }.encode(), SECTOR)?;
    medium.append(&padded, SECTOR)
}

fn is_stream(header: &SparseHeader) -> bool {
    header.flags.has(SparseFlags::COMPRESSED | SparseFlags::MARKERS) && header.compression == 1
}

/// How many places make no sense when the stream is that of `header`.
fn damage(backing: &Backing, header: &SparseHeader) -> Result<u64> {
    let mut markers = Markers::new(backing, header)?;
    let mut count = 0;
    while let Some(piece) = markers.next()? {
        count += u64::from(matches!(piece, Piece::Damage(_)));
    }
    Ok(count)
}

/// Where the header says where grains begin.
const OVERHEAD_FIELD: u64 = 64;
