//! What stands in a stream, before anything is made again: its grains, those that the old tables use, and damage.

use std::{collections::HashSet, ops::Range};

use crate::{
    SECTOR,
    check::{
        CheckOptions, Place,
        internal::{Inflater, Markers, Packed, PackedGrain, Piece, TableLookup, Verdict, inspect},
    },
    error::{Error, Result},
    extent::Backing,
    layout::{ENTRIES_PER_TABLE, GRAIN_MARKER_BYTES, Marker, MetadataKind, SparseHeader},
    repair::{action::ActionKind, medium::Medium},
};

/// What a walk over the markers tells.
pub(super) struct Survey {
    /// The sector after the last whole grain.
    pub(super) end: u64,
    pub(super) ascending: bool,
    /// Where the rest of the file makes no sense.
    pub(super) damaged_end: Option<u64>,
    /// Sectors of grains that come twice, and that the old tables do not use.
    pub(super) unused: HashSet<u64>,
    /// How many grains are where the old tables say.
    pub(super) in_tables: u64,
}

/// The grains that the old tables use, where these can be read.
pub(super) struct Chosen {
    lookup: TableLookup,
    packed: Packed,
    grains: u64,
    grain_sectors: u64,
}

impl Chosen {
    /// The grains of the tables that `tables` names: the header itself, or a footer.
    pub(super) fn of(
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
    pub(super) fn count(mut self) -> Result<u64> {
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
pub(super) struct Surveyor {
    markers: Markers,
    inflater: Inflater,
    chosen: Option<Chosen>,
    grain_sectors: u64,
}

impl Surveyor {
    pub(super) fn new(
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
    pub(super) fn run(mut self, medium: &mut Medium, acts: bool) -> Result<Survey> {
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

/// Sectors that a covering marker announces; every reader takes those of a grain table.
const MOST_SECTORS: u64 = 4;

/// Where a marker says how long its grain is.
const SIZE_FIELD: u64 = 8;

/// Bounds the memory for grains that come twice.
const MOST_UNUSED: usize = 1 << 20;
