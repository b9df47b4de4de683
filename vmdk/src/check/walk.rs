//! The structure of an extent with directory and tables: bounds, overlaps, the redundant copies, leaks.

use std::ops::Range;

use super::{
    inspection::Inspection,
    packed::{Packed, Verdict},
    problem::Problem,
    report::{Place, Report},
    space::{Space, Use},
    tables::Entry,
};
use crate::{SECTOR, error::Result};

/// A walk over directories and tables of one file.
///
/// First over the directories, to find which tables are where they should be; then over the tables of those. Each
/// table is read for one directory entry only, so that the work is bounded by the size of the file.
pub(super) struct Walk<'a> {
    pub(super) report: &'a mut Report,
    pub(super) found: Inspection,
    pub(super) memory: usize,
    /// How to judge compressed grains.
    pub(super) packed: Option<Packed>,
    /// The sector after the last one that a table or grain uses.
    pub(super) last: u64,
}

/// One of the two directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Redundant,
}

/// Why a table cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    None,
    Outside,
    Overlap,
    /// It is the first table, so that there is nothing to read twice.
    Shared,
}

impl Walk<'_> {
    pub(super) fn run(&mut self) -> Result<()> {
        self.find_lost()?;
        // What is left of a stream is told from its markers.
        let from = if self.packed.is_some() { u64::MAX } else { self.found.data_sector };
        let mut leak = Leak { from, grain: self.found.file.shape.grain_sectors, run: 0..0 };
        for window in Space::windows(self.found.sectors(), self.memory) {
            let space = self.place_grains(window)?;
            for gap in space.gaps() {
                leak.gap(gap, self.report, &self.found.file.backing.name);
            }
        }
        leak.end(self.report, &self.found.file.backing.name);
        Ok(())
    }

    /// Finds the tables that cannot be read.
    pub(super) fn find_lost(&mut self) -> Result<()> {
        Space::windows(self.found.sectors(), self.memory).try_for_each(|window| self.place_metadata(window))
    }

    fn name(&self) -> std::sync::Arc<str> {
        std::sync::Arc::clone(&self.found.file.backing.name)
    }

    /// Header, descriptor and directories.
    fn claim_fixed(&mut self, space: &mut Space, report: bool) {
        let name = self.name();
        for (sectors, what) in self.found.fixed() {
            self.last = self.last.max(sectors.end);
            if space.claim(sectors.clone(), Use::Metadata).is_some() && report {
                let detail = format!("{what} lies on other metadata");
                self.report.add(Problem::HeaderDamaged, &name, Place::sector(sectors.start), detail);
            }
        }
    }

    /// Finds the tables that are outside of the file or on other metadata.
    fn place_metadata(&mut self, window: Range<u64>) -> Result<()> {
        let is_first_window = window.start == 0;
        let mut space = Space::new(window);
        self.claim_fixed(&mut space, true);
        for number in 0..self.found.file.shape.tables {
            if let Some(sector) = self.found.first_entry(number)? {
                let sectors = self.found.table_sectors(sector);
                let conflict = self.conflict(sector, || space.claim(sectors, Use::Metadata));
                let problem = match conflict {
                    Conflict::Outside => Problem::TableOutside,
                    _ => Problem::TableOverlap,
                };
                let place = Place::table(number).at(u64::from(sector));
                self.lose(Which::First, conflict, problem, place, is_first_window);
            }
        }
        for number in 0..self.found.file.shape.tables {
            if let Some(sector) = self.found.redundant_entry(number)? {
                let place = Place::table(number).at(u64::from(sector));
                let (conflict, problem) = if self.found.first_entry(number)? == Some(sector) {
                    (Conflict::Shared, Problem::NotRedundant)
                } else {
                    let sectors = self.found.table_sectors(sector);
                    let conflict = self.conflict(sector, || space.claim(sectors, Use::Metadata));
                    (conflict, Problem::RedundantTableLost)
                };
                self.lose(Which::Redundant, conflict, problem, place, is_first_window);
            }
        }
        Ok(())
    }

    fn conflict(&self, sector: u32, claim: impl FnOnce() -> Option<Use>) -> Conflict {
        if !self.found.file.holds_table(sector) {
            Conflict::Outside
        } else if claim().is_some() {
            Conflict::Overlap
        } else {
            Conflict::None
        }
    }

    /// Notes that a table cannot be read, and says so once.
    fn lose(&mut self, which: Which, conflict: Conflict, problem: Problem, place: Place, is_first_window: bool) {
        let lost = match which {
            Which::First => &mut self.found.lost.first,
            Which::Redundant => &mut self.found.lost.redundant,
        };
        let number = place.table.unwrap_or(0) as usize;
        let known = lost.get(number);
        let detail = match conflict {
            Conflict::None => return,
            Conflict::Outside => {
                format!("the table does not lie inside the file of {} sectors", self.found.file.sectors())
            }
            Conflict::Overlap => "the table lies on other metadata".to_owned(),
            Conflict::Shared => "both directories name the same table".to_owned(),
        };
        lost.set(number..number + 1);
        // An overlap shows in the window where it is, all else in every window.
        if !known && (is_first_window || conflict == Conflict::Overlap) {
            let name = self.name();
            self.report.add(problem, &name, place, detail);
        }
    }

    /// Looks at all grains and finds those that are outside of the file, on metadata or on each other.
    fn place_grains(&mut self, window: Range<u64>) -> Result<Space> {
        let judge = window.start == 0;
        let mut space = Space::new(window);
        self.claim_fixed(&mut space, false);
        for number in 0..self.found.file.shape.tables {
            let (first, redundant) = self.tables(number)?;
            for sector in [first, redundant].into_iter().flatten() {
                let sectors = self.found.table_sectors(sector);
                self.last = self.last.max(sectors.end);
                space.claim(sectors, Use::Metadata);
            }
        }
        let (mut entries, mut copy) = (Vec::new(), Vec::new());
        for number in 0..self.found.file.shape.tables {
            let (first, redundant) = self.tables(number)?;
            let Some(sector) = first.or(redundant) else { continue };
            let stored = self.found.file.read_table(sector, &mut entries)?;
            if judge && let Some(other) = redundant.filter(|_| first.is_some()) {
                let copied = self.found.file.read_table(other, &mut copy)?;
                if (stored || copied) && entries != copy {
                    self.report_difference(number, &entries, &copy);
                }
            }
            if judge {
                self.report_lost_copy(number, first, redundant, stored);
            }
            if stored {
                self.place_table(number, &entries, &mut space, judge)?;
            }
        }
        Ok(space)
    }

    /// Sectors of a table and of its copy, as far as they can be read.
    fn tables(&mut self, number: u64) -> Result<(Option<u32>, Option<u32>)> {
        let first = self.found.first_entry(number)?.filter(|_| !self.found.lost.is_first(number));
        let redundant = self.found.redundant_entry(number)?.filter(|_| !self.found.lost.is_redundant(number));
        Ok((first, redundant))
    }

    /// Says when one directory has a table and the other none.
    fn report_lost_copy(&mut self, number: u64, first: Option<u32>, redundant: Option<u32>, stored: bool) {
        let name = self.name();
        let place = Place::table(number);
        if first.is_none() && stored && self.found.first.is_some() && !self.found.lost.is_first(number) {
            self.report.add(Problem::TableMissing, &name, place, "only the redundant directory has the table");
        }
        if redundant.is_none() && self.found.redundant.is_some() && !self.found.lost.is_redundant(number) {
            let detail = "the redundant directory has no copy of the table";
            self.report.add(Problem::RedundantTableLost, &name, place, detail);
        }
    }

    fn report_difference(&mut self, number: u64, entries: &[u32], copy: &[u32]) {
        let name = self.name();
        let different = entries.iter().zip(copy).filter(|(first, second)| first != second).count();
        let (wrong, wrong_copy) = (self.unsound(number, entries), self.unsound(number, copy));
        let verdict = match (wrong, wrong_copy) {
            (0, 0) => "both are possible; readers use the first",
            (0, _) => "the first is right",
            (_, 0) => "the redundant one is right",
            _ => "both have entries that cannot be right",
        };
        let detail = format!("the two tables differ in {different} entries: {verdict}");
        self.report.add(Problem::TablesDiffer, &name, Place::table(number), detail);
    }

    /// Number of entries that cannot be right.
    fn unsound(&self, number: u64, entries: &[u32]) -> usize {
        let shape = &self.found.file.shape;
        let wrong = |(index, value): (usize, &u32)| {
            let grain = number * shape.entries + index as u64;
            match shape.entry(*value, grain, self.found.file.len) {
                Entry::Absent => false,
                Entry::Outside(_) => true,
                Entry::At(sectors) => sectors.start < self.found.data_sector || grain >= shape.grains(),
            }
        };
        entries.iter().enumerate().filter(|entry| wrong(*entry)).count()
    }

    fn place_table(&mut self, number: u64, entries: &[u32], space: &mut Space, judge: bool) -> Result<()> {
        let shape = self.found.file.shape;
        let name = self.name();
        for (index, value) in entries.iter().enumerate() {
            let grain = number * shape.entries + index as u64;
            let place = Place { table: Some(number), ..Place::grain(grain).at(u64::from(*value)) };
            if grain >= shape.grains() {
                if judge && *value != 0 {
                    let detail = format!("the disk has {} grains", shape.grains());
                    self.report.add(Problem::EntryBeyondEnd, &name, place, detail);
                }
                continue;
            }
            let sectors = match shape.entry(*value, grain, self.found.file.len) {
                Entry::Absent => continue,
                Entry::Outside(_) => {
                    if judge {
                        let detail = format!("the file has {} sectors", self.found.file.sectors());
                        self.report.add(Problem::GrainOutside, &name, place, detail);
                    }
                    continue;
                }
                Entry::At(sectors) => sectors.range(),
            };
            let sectors = match self.packed.is_some() {
                true => self.packed_sectors(sectors.start, place, judge)?,
                false => sectors,
            };
            if sectors.is_empty() {
                continue;
            }
            if judge {
                self.report.usage_mut().grains += 1;
                if self.packed.is_none() && !sectors.start.is_multiple_of(shape.grain_sectors) {
                    let detail = format!("grains have {} sectors", shape.grain_sectors);
                    self.report.add(Problem::GrainUnaligned, &name, place, detail);
                }
            }
            self.last = self.last.max(sectors.end);
            match space.claim(sectors.clone(), Use::Grain) {
                Some(Use::Metadata) => {
                    self.report.add(Problem::GrainInMetadata, &name, place, "the grain lies on metadata");
                }
                Some(Use::Grain) => {
                    let detail = "the grain lies on one that comes before it on the disk";
                    self.report.add(Problem::GrainOverlap, &name, place, detail);
                }
                None if judge && sectors.start < self.found.data_sector => {
                    let detail = format!("the header says that grains begin at sector {}", self.found.data_sector);
                    self.report.add(Problem::OverheadWrong, &name, place, detail);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The sectors of a compressed grain; none when what is there is not the grain.
    fn packed_sectors(&mut self, sector: u64, place: Place, judge: bool) -> Result<Range<u64>> {
        let name = self.name();
        let (shape, grain) = (self.found.file.shape, place.grain.unwrap_or(0));
        let Some(packed) = &mut self.packed else { return Ok(sector..sector) };
        let disk_sector = grain * shape.grain_sectors;
        // What was inflated for the first window need not be for the others.
        let verdict =
            if judge { packed.judge(sector, disk_sector)? } else { packed.judge_marker(sector, disk_sector)? };
        let (problem, detail, sectors) = match verdict {
            Verdict::Sound(found) => return Ok(found.sectors()),
            Verdict::NoMarker => {
                let detail = "the tables have a grain here, but there is no marker of one";
                (Problem::MarkerDamaged, detail.to_owned(), sector..sector)
            }
            Verdict::Other(found) => {
                let other = found.disk_sector / shape.grain_sectors;
                (Problem::MarkerMismatch, format!("the marker is that of grain {other}"), sector..sector)
            }
            Verdict::Damaged(found, problem) => (Problem::GrainDamaged, problem, found.sectors()),
        };
        if judge {
            self.report.add(problem, &name, place, detail);
        }
        Ok(sectors)
    }
}

/// Gaps between the users of a file, put together across windows. What is too small for a grain is alignment.
struct Leak {
    from: u64,
    grain: u64,
    run: Range<u64>,
}

impl Leak {
    fn gap(&mut self, gap: Range<u64>, report: &mut Report, file: &str) {
        if gap.start == self.run.end {
            self.run.end = gap.end;
            return;
        }
        self.end(report, file);
        self.run = gap;
    }

    fn end(&mut self, report: &mut Report, file: &str) {
        let start = self.run.start.max(self.from);
        let aligned = start.checked_next_multiple_of(self.grain).unwrap_or(u64::MAX);
        if self.run.end >= aligned.saturating_add(self.grain) {
            let sectors = self.run.end - start;
            report.usage_mut().leaked += sectors * SECTOR;
            let detail = format!("{sectors} sectors are used by nothing");
            report.add(Problem::Leaked, file, Place::sector(start), detail);
        }
        self.run = 0..0;
    }
}
