//! What takes the room: of each point, of each machine, of all.

use std::collections::{BTreeMap, HashMap};

use futures_util::TryStreamExt;
use serde::Serialize;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    Repository,
    id::{ChunkId, PointId, VmId},
    page::{SLOTS, Slot},
    point::RecoveryPoint,
    tree::Visited,
};

/// What the points of a repository hold and take.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Statistics {
    /// The points, by machine and time. A point whose manifest cannot be read is not among them.
    pub points: Vec<PointStatistics>,
    /// The machines.
    pub vms: BTreeMap<VmId, Volume>,
    /// All points together.
    pub total: Volume,
    /// Bytes of all packs, those included that nobody needs any more.
    pub packs: u64,
    /// Bytes of all pages of disks' indexes.
    pub pages: u64,
    /// Bytes of the chunk index.
    pub index: u64,
    /// Chunks that points need and no pack holds: damage.
    pub missing: u64,
}

/// What a point holds and takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PointStatistics {
    /// The point.
    pub point: PointId,
    /// When its snapshot was taken, in seconds since 1970, UTC.
    pub created: u64,
    /// What it holds; what is `unique` goes when it is deleted and garbage collected.
    pub volume: Volume,
    /// Bytes that were stored for it when it was made, its part of the index included.
    pub added: u64,
}

/// How much some points hold. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Volume {
    /// Of the disks as the machine sees them, of all points.
    pub capacity: u64,
    /// In chunks that are neither zero nor unallocated, each as often as it lies on a disk of a point.
    pub data: u64,
    /// In different chunks, each once.
    pub distinct: u64,
    /// What those take in packs.
    pub stored: u64,
    /// The part of `stored` that only these points need.
    pub unique: u64,
}

impl Volume {
    /// Returns the part of what is stored that others need as well.
    pub fn shared(&self) -> u64 {
        self.stored - self.unique
    }

    /// Returns how many times what is stored once would have to be stored if nothing was shared; 1 when nothing is stored.
    pub fn deduplication(&self) -> f64 {
        ratio(self.data, self.distinct)
    }

    /// Returns by how much compression makes chunks smaller: 2 is to half.
    pub fn compression(&self) -> f64 {
        ratio(self.distinct, self.stored)
    }
}

impl Statistics {
    /// Returns how many bytes a day the points of a machine added, over the time from the first to the last of its points
    /// and without the first, which stores all; `None` with less than two points, or no time between them.
    pub fn growth_per_day(&self, vm: &VmId) -> Option<f64> {
        let points: Vec<_> = self.points.iter().filter(|point| point.point.vm() == vm).collect();
        let (first, last) = (points.first()?.created, points.last()?.created);
        let days = last.checked_sub(first).filter(|&seconds| seconds > 0)? as f64 / 86_400.0;
        Some(points[1..].iter().map(|point| point.added as f64).sum::<f64>() / days)
    }
}

impl Repository {
    /// Reads the indexes of all points and adds up what they hold.
    ///
    /// Takes some 60 bytes of memory for each different chunk, beside the chunk index.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Cancelled`]; a page that is damaged is passed over, and what is below it not counted.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn statistics(&self, cancel: &CancelToken) -> Result<Statistics> {
        self.refresh_index().await?;
        let mut statistics = Statistics::default();
        for (prefix, sum) in
            [("packs", &mut statistics.packs), ("pages", &mut statistics.pages), ("index", &mut statistics.index)]
        {
            let mut listing = self.storage().list(prefix);
            while let Some(object) = listing.try_next().await? {
                *sum += object.size;
            }
        }
        let mut count =
            Count { repository: self, chunks: HashMap::new(), machines: Vec::new(), of: Vec::new(), missing: 0 };
        for id in self.list_points("points").await? {
            match self.point(&id).await {
                Ok(point) => statistics.points.push(count.point(&point, cancel).await?),
                Err(Error::PointNotFound { .. }) => {}
                Err(error) if error.is_damage() => tracing::warn!(%error, "a recovery point is not counted"),
                Err(error) => return Err(error),
            }
        }
        count.settle(&mut statistics);
        Ok(statistics)
    }
}

/// A chunk that some point needs.
struct Chunk {
    stored: u32,
    plain: u32,
    /// The first and the last point that need it, by number.
    first: u32,
    last: u32,
    /// Several machines do.
    abroad: bool,
}

struct Count<'a> {
    repository: &'a Repository,
    /// By the first half of their ids, which tells any number of chunks apart that there can be.
    chunks: HashMap<[u8; 16], Chunk>,
    /// In the order of their points, which follow each other.
    machines: Vec<(VmId, Volume)>,
    /// The machine of each point.
    of: Vec<usize>,
    missing: u64,
}

impl Count<'_> {
    async fn point(&mut self, point: &RecoveryPoint, cancel: &CancelToken) -> Result<PointStatistics> {
        if self.machines.last().is_none_or(|(vm, _)| vm != point.id().vm()) {
            self.machines.push((point.id().vm().clone(), Volume::default()));
        }
        let number = u32::try_from(self.of.len()).map_err(|_| Error::invalid("there are too many points"))?;
        let machine = self.machines.len() - 1;
        self.of.push(machine);
        let mut volume = Volume::default();
        for record in point.disks() {
            volume.capacity = volume.capacity.saturating_add(record.capacity);
            let disk = point.disk(record.key).await?;
            let chunks = disk.tree().shape().chunks();
            let mut walk = disk.tree().walk();
            while let Some(visited) = walk.next().await? {
                cancel.check()?;
                let Visited::Leaf { first, page, .. } = visited else { continue };
                for (at, slot) in (first..chunks).zip((0..SLOTS).map(|at| page.slot(at))) {
                    let Slot::Ref(id) = slot else { continue };
                    let plain = disk.tree().shape().chunk_len(at);
                    volume.data += u64::from(plain);
                    self.chunk(ChunkId(id), plain, number, &mut volume);
                }
            }
        }
        let all = &mut self.machines[machine].1;
        all.capacity = all.capacity.saturating_add(volume.capacity);
        all.data += volume.data;
        let added = point.disks().iter().map(|disk| disk.bytes.stored.saturating_add(disk.bytes.index)).sum();
        Ok(PointStatistics { point: point.id().clone(), created: point.manifest().created, volume, added })
    }

    /// Counts a chunk that a point needs.
    fn chunk(&mut self, id: ChunkId, plain: u32, number: u32, volume: &mut Volume) {
        let half = id.0[..16].try_into().expect("half of 32 bytes");
        let machine = self.of[number as usize];
        let mut is_new_here = false;
        let known = self.chunks.entry(half).or_insert_with(|| {
            is_new_here = true;
            let place = self.repository.read_index().find(&id);
            self.missing += u64::from(place.is_none());
            let stored = place.map_or(0, |(_, place)| place.frame_len() as u32);
            Chunk { stored, plain, first: number, last: u32::MAX, abroad: false }
        });
        if known.last == number {
            return;
        }
        if known.last != u32::MAX && self.of[known.last as usize] != machine {
            (known.abroad, is_new_here) = (true, true);
        }
        known.last = number;
        let sums = [Some(volume), is_new_here.then(|| &mut self.machines[machine].1)];
        for sum in sums.into_iter().flatten() {
            sum.distinct += u64::from(known.plain);
            sum.stored += u64::from(known.stored);
        }
    }

    /// Tells what only one point or machine needs, and adds up all.
    fn settle(mut self, statistics: &mut Statistics) {
        let total = &mut statistics.total;
        for (_, volume) in &self.machines {
            total.capacity = total.capacity.saturating_add(volume.capacity);
            total.data += volume.data;
        }
        for chunk in self.chunks.into_values() {
            let stored = u64::from(chunk.stored);
            total.distinct += u64::from(chunk.plain);
            total.stored += stored;
            total.unique += stored;
            if chunk.first == chunk.last {
                statistics.points[chunk.first as usize].volume.unique += stored;
            }
            if !chunk.abroad {
                self.machines[self.of[chunk.first as usize]].1.unique += stored;
            }
        }
        statistics.missing = self.missing;
        statistics.vms = self.machines.into_iter().collect();
    }
}

fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 { 1.0 } else { above as f64 / below as f64 }
}
