//! Compressed grains one by one: the marker against the table, and the data against their checksum.

use super::markers::{Markers, PackedGrain, Piece};
use crate::{SECTOR, error::Result, extent::Backing, stream::GrainInflater};

/// Judges the grains that tables point to.
#[derive(Debug)]
pub(crate) struct Packed {
    backing: Backing,
    markers: Markers,
    inflater: Option<Inflater>,
}

/// What stands where a table says that a grain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The grain.
    Sound(PackedGrain),
    /// No marker of a grain.
    NoMarker,
    /// The marker of another grain.
    Other(PackedGrain),
    /// The grain, with data that cannot be inflated.
    Damaged(PackedGrain, String),
}

impl Packed {
    /// Judges by markers alone, or with `deep` by the data too.
    pub(crate) fn new(backing: &Backing, markers: Markers, deep: bool) -> Self {
        Self { backing: backing.clone(), inflater: deep.then(|| Inflater::new(&markers)), markers }
    }

    /// Judges the grain that starts at `disk_sector` and should stand at `sector`.
    pub(crate) fn judge(&mut self, sector: u64, disk_sector: u64) -> Result<Verdict> {
        let verdict = self.judge_marker(sector, disk_sector)?;
        let (Verdict::Sound(grain), Some(inflater)) = (&verdict, &mut self.inflater) else { return Ok(verdict) };
        let grain = *grain;
        Ok(match inflater.problem(&self.backing, &grain)? {
            None => Verdict::Sound(grain),
            Some(problem) => Verdict::Damaged(grain, problem),
        })
    }

    /// As [`judge`](Self::judge), by the marker alone.
    pub(crate) fn judge_marker(&self, sector: u64, disk_sector: u64) -> Result<Verdict> {
        Ok(match self.markers.at(sector)? {
            Some(Piece::Grain(grain)) if grain.disk_sector == disk_sector => Verdict::Sound(grain),
            Some(Piece::Grain(grain)) => Verdict::Other(grain),
            _ => Verdict::NoMarker,
        })
    }
}

/// Inflates grains to see whether that works.
#[derive(Debug)]
pub(crate) struct Inflater {
    inflate: GrainInflater,
    packed: Vec<u8>,
    grain: Vec<u8>,
    capacity_sectors: u64,
}

impl Inflater {
    pub(crate) fn new(markers: &Markers) -> Self {
        let grain = vec![0; (markers.grain_sectors() * SECTOR) as usize];
        let capacity_sectors = markers.capacity_sectors();
        Self { inflate: GrainInflater::new(), packed: Vec::new(), grain, capacity_sectors }
    }

    /// What is wrong with the data of a possible grain, checksum included.
    pub(crate) fn problem(&mut self, backing: &Backing, grain: &PackedGrain) -> Result<Option<String>> {
        // The size was bounded when the marker was read.
        self.packed.resize(grain.bytes as usize, 0);
        backing.read(grain.data().start, &mut self.packed)?;
        let wanted = ((self.capacity_sectors - grain.disk_sector) * SECTOR).min(self.grain.len() as u64);
        Ok(self.inflate.unpack_whole(&self.packed, &mut self.grain, wanted as usize).err())
    }
}
