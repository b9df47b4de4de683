//! Streams: tables, directory and footer made again from the markers, which stand beside the grains.

use std::{collections::HashSet, ops::Range};

use super::{
    action::ActionKind,
    medium::Medium,
    sparse::{Mender, Scanned},
};
use crate::{
    SECTOR,
    check::{
        CheckOptions, Place, Problem, Severity,
        internal::{
            Bits, Inflater, Markers, Packed, PackedGrain, Piece, TableLookup, Verdict, inspect, is_same_disk,
            read_footer, stream_report,
        },
    },
    error::{Error, Result},
    extent::Backing,
    layout::{ENTRIES_PER_TABLE, GRAIN_MARKER_BYTES, Marker, MetadataKind, SparseFlags, SparseHeader},
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

/// What a walk over the markers tells.
struct Survey {
    /// The sector after the last whole grain.
    end: u64,
    ascending: bool,
    /// Where the rest of the file makes no sense.
    damaged_end: Option<u64>,
    /// Sectors of grains that come twice, and that the old tables do not use.
    unused: HashSet<u64>,
    /// How many grains are where the old tables say.
    in_tables: u64,
}

/// The grains that the old tables use, where these can be read.
struct Chosen {
    lookup: TableLookup,
    packed: Packed,
    grains: u64,
    grain_sectors: u64,
}

impl Chosen {
    /// The grains of the tables that `tables` names: the header itself, or a footer.
    fn of(
        backing: &Backing,
        header: &SparseHeader,
        tables: &SparseHeader,
        options: &CheckOptions,
    ) -> Result<Option<Self>> {
        let found = inspect(backing, header, tables, options.memory_bytes)?;
        let packed = Packed::new(backing, Markers::new(backing, header)?, true);
        let (grains, grain_sectors) = (header.grain_count(), header.grain_sectors);
        let lookup = |first| TableLookup::new(found.file, first, found.lost.into_first());
        Ok(found.first.map(lookup).map(|lookup| Self { lookup, packed, grains, grain_sectors }))
    }

    /// Where the tables have a grain of the disk; 0 for nowhere.
    fn place(&mut self, disk_sector: u64) -> Result<u64> {
        Ok(self.lookup.entry(disk_sector / self.grain_sectors)?.unwrap_or(0).into())
    }

    /// Whether readers use another whole grain for the same place.
    fn is_other(&mut self, grain: &PackedGrain) -> Result<bool> {
        let sector = self.place(grain.disk_sector)?;
        Ok(sector != 0
            && sector != grain.sector
            && matches!(self.packed.judge(sector, grain.disk_sector)?, Verdict::Sound(_)))
    }

    /// How many grains the tables lead to.
    fn count(mut self) -> Result<u64> {
        let mut count = 0;
        let per_table = u64::from(ENTRIES_PER_TABLE);
        for table in 0..self.grains.div_ceil(per_table) {
            if !self.lookup.has_table(table)? {
                continue;
            }
            for grain in table * per_table..((table + 1) * per_table).min(self.grains) {
                let disk_sector = grain * self.grain_sectors;
                let sector = self.place(disk_sector)?;
                if sector > 1 && matches!(self.packed.judge_marker(sector, disk_sector)?, Verdict::Sound(_)) {
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

/// Walks over the markers; covers what is damaged between grains, so that forward readers get over it.
struct Surveyor {
    markers: Markers,
    inflater: Inflater,
    chosen: Option<Chosen>,
    grain_sectors: u64,
}

impl Surveyor {
    fn new(
        medium: &Medium,
        header: &SparseHeader,
        tables: Option<&SparseHeader>,
        options: &CheckOptions,
    ) -> Result<Self> {
        let markers = Markers::new(&medium.backing, header)?;
        let chosen = tables.map(|tables| Chosen::of(&medium.backing, header, tables, options)).transpose()?;
        let (inflater, grain_sectors) = (Inflater::new(&markers), header.grain_sectors);
        Ok(Self { inflater, markers, chosen: chosen.flatten(), grain_sectors })
    }

    /// Walks; with `acts` it covers and corrects too.
    fn run(mut self, medium: &mut Medium, acts: bool) -> Result<Survey> {
        let end = self.markers.position();
        let mut found = Survey { end, ascending: true, damaged_end: None, unused: HashSet::new(), in_tables: 0 };
        let (mut next, mut holes) = (0, Vec::new());
        let mut grains = 0_u64;
        while let Some(piece) = self.markers.next()? {
            match piece {
                Piece::Grain(grain) => {
                    let grain = self.trim(medium, grain, acts)?;
                    found.ascending &= grain.disk_sector >= next;
                    next = grain.disk_sector + self.grain_sectors;
                    // Only what lies between whole grains has to be passed.
                    let between = holes.drain(..).filter(|_| acts && grains > 0);
                    between.into_iter().try_for_each(|hole| bridge(medium, hole))?;
                    grains += 1;
                    found.end = grain.sectors().end;
                    self.compare(medium, &grain, &mut found)?;
                }
                Piece::Damage(range) => holes.push(range),
                Piece::Metadata { .. } | Piece::End { .. } => {}
            }
        }
        let end = self.markers.position();
        found.damaged_end = holes.iter().find(|hole: &&Range<u64>| hole.end == end).map(|hole| hole.start);
        Ok(found)
    }

    /// A grain whose size is damaged may claim the place of the next: what the tables lead to, and what follows data
    /// that cannot be inflated, is believed.
    fn trim(&mut self, medium: &mut Medium, grain: PackedGrain, acts: bool) -> Result<PackedGrain> {
        let Some(hidden) = self.markers.hidden(&grain)? else { return Ok(grain) };
        let is_known = match &mut self.chosen {
            Some(chosen) => chosen.place(hidden.disk_sector)? == hidden.sector,
            None => false,
        };
        if !is_known && self.inflater.problem(&medium.backing, &grain)?.is_none() {
            return Ok(grain);
        }
        self.markers.go_to(hidden.sector);
        let bytes = (hidden.sector - grain.sector) * SECTOR - GRAIN_MARKER_BYTES as u64;
        // Less than what the grain claimed, which has 32 bits.
        let trimmed = PackedGrain { bytes: bytes as u32, ..grain };
        if acts {
            medium.note(ActionKind::TrimGrains, Place::sector(grain.sector));
            medium.write(grain.sector * SECTOR + SIZE_FIELD, &trimmed.bytes.to_le_bytes())?;
        }
        Ok(trimmed)
    }

    fn compare(&mut self, medium: &Medium, grain: &PackedGrain, found: &mut Survey) -> Result<()> {
        let Some(chosen) = &mut self.chosen else { return Ok(()) };
        found.in_tables += u64::from(chosen.place(grain.disk_sector)? == grain.sector);
        if chosen.is_other(grain)? {
            found.unused.insert(grain.sector);
            if found.unused.len() > MOST_UNUSED {
                let reason = "copy the disk to a new stream instead";
                let what = "a stream with more than a million grains that come twice";
                return Err(Error::not_supported(&*medium.backing.name, what, reason));
            }
        }
        Ok(())
    }
}

/// Covers damaged sectors with progress markers, which every forward reader skips; each announces few sectors, as
/// readers bound that.
fn bridge(medium: &mut Medium, hole: Range<u64>) -> Result<()> {
    medium.note(ActionKind::BridgeDamage, Place::sector(hole.start));
    let mut at = hole.start;
    while at < hole.end {
        let sectors = (hole.end - at - 1).min(MOST_SECTORS);
        let marker = Marker::Metadata { kind: MetadataKind::Progress, sectors };
        medium.write(at * SECTOR, &marker.encode())?;
        at += 1 + sectors;
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

/// The places of grains by their markers, some tables at a time. A stream in order is read once; one out of order once
/// for each window of tables, so that memory is bounded.
struct Scan {
    markers: Markers,
    start: Markers,
    pending: Option<PackedGrain>,
    inflater: Inflater,
    backing: Backing,
    grain_sectors: u64,
    tables: u64,
    next: u64,
    survey: Survey,
}

impl Scan {
    fn new(backing: &Backing, header: &SparseHeader, survey: Survey) -> Result<Self> {
        let markers = Markers::new(backing, header)?;
        Ok(Self {
            start: markers.clone(),
            pending: None,
            inflater: Inflater::new(&markers),
            markers,
            backing: backing.clone(),
            grain_sectors: header.grain_sectors,
            tables: header.directory_entries(),
            next: 0,
            survey,
        })
    }

    /// The entries of the next tables; `None` behind the last.
    fn next_window(&mut self) -> Result<Option<Scanned>> {
        if self.next >= self.tables {
            return Ok(None);
        }
        let tables = self.next..(self.next + WINDOW_TABLES).min(self.tables);
        self.next = tables.end;
        if !self.survey.ascending {
            (self.markers, self.pending) = (self.start.clone(), None);
        }
        let per_table = u64::from(ENTRIES_PER_TABLE);
        let mut entries = vec![0; ((tables.end - tables.start) * per_table) as usize];
        let mut whole = Bits::new(entries.len());
        let first = tables.start * per_table;
        while let Some(grain) = self.next_grain()? {
            let number = grain.disk_sector / self.grain_sectors;
            if self.survey.ascending && number >= tables.end * per_table {
                self.pending = Some(grain);
                break;
            }
            let Some(index) = number.checked_sub(first).map(|index| index as usize) else { continue };
            let Some(entry) = entries.get_mut(index) else { continue };
            let Ok(sector) = u32::try_from(grain.sector) else { continue };
            if self.survey.unused.contains(&grain.sector) || (*entry != 0 && whole.get(index)) {
                continue;
            }
            // Of two grains the first whole one is taken. Data that are damaged stay an error for readers: zeros in
            // their place would hide it.
            let is_whole = self.inflater.problem(&self.backing, &grain)?.is_none();
            if *entry == 0 || is_whole {
                *entry = sector;
            }
            if is_whole {
                whole.set(index..index + 1);
            }
        }
        Ok(Some(Scanned { tables, entries }))
    }

    fn next_grain(&mut self) -> Result<Option<PackedGrain>> {
        if let Some(grain) = self.pending.take() {
            return Ok(Some(grain));
        }
        // Behind the last grain new tables are being written.
        while self.markers.position() < self.survey.end {
            match self.markers.next()? {
                Some(Piece::Grain(grain)) => return Ok(Some(grain)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }
}

/// Tables whose entries are in memory at once: 8 MiB.
const WINDOW_TABLES: u64 = 4096;

/// Sectors that a covering marker announces; every reader takes those of a grain table.
const MOST_SECTORS: u64 = 4;

/// Where the header says where grains begin, and a marker how long its grain is.
const OVERHEAD_FIELD: u64 = 64;
const SIZE_FIELD: u64 = 8;

/// Bounds the memory for grains that come twice.
const MOST_UNUSED: usize = 1 << 20;
