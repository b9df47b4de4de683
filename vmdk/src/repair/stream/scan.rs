//! The places of grains by their markers, in windows of tables.

use super::survey::Survey;
use crate::{
    check::internal::{Bits, Inflater, Markers, PackedGrain, Piece},
    error::Result,
    extent::Backing,
    layout::{ENTRIES_PER_TABLE, SparseHeader},
    repair::sparse::Scanned,
};

/// The places of grains by their markers, some tables at a time. A stream in order is read once; one out of order once
/// for each window of tables, so that memory is bounded.
pub(super) struct Scan {
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
    pub(super) fn new(backing: &Backing, header: &SparseHeader, survey: Survey) -> Result<Self> {
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
    pub(super) fn next_window(&mut self) -> Result<Option<Scanned>> {
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
