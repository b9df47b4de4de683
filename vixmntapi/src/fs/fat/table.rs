//! The file allocation table: which cluster of a file comes after which.

use std::sync::Arc;

use super::runs::Runs;
use crate::{
    bytes::{le_u16, le_u32},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// A file allocation table and the clusters that it is about.
#[derive(Clone, Debug)]
pub(in crate::fs) struct Table {
    pub(in crate::fs) device: Arc<dyn Device>,
    /// Where it lies, in bytes of the device.
    pub(in crate::fs) start: u64,
    pub(in crate::fs) width: Width,
    /// Clusters of the volume; their numbers begin with 2.
    pub(in crate::fs) clusters: u32,
    /// Where cluster 2 lies.
    pub(in crate::fs) heap: u64,
    /// Bytes of a cluster.
    pub(in crate::fs) cluster_size: u32,
}

/// How entries are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Width {
    /// Of FAT12: two in three bytes.
    Twelve,
    /// Of FAT16.
    Sixteen,
    /// Of FAT32, where four of the 32 bits mean nothing.
    TwentyEight,
    /// Of exFAT.
    ThirtyTwo,
}

/// How much of a chain is wanted.
#[derive(Clone, Copy, Debug)]
pub(in crate::fs) enum Wanted {
    /// As many clusters as hold so many bytes.
    Bytes(u64),
    /// Everything, which has to be at most so many bytes.
    AtMost(u64),
}

impl Table {
    /// Where a cluster lies.
    pub(in crate::fs) fn place(&self, cluster: u32) -> Result<u64> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters);
        let index = index.ok_or_else(|| self.damaged(format!("there is no cluster {cluster}")))?;
        Ok(self.heap + u64::from(index) * u64::from(self.cluster_size))
    }

    /// So many bytes from a cluster on, without asking the table.
    pub(in crate::fs) fn contiguous(&self, first: u32, bytes: u64) -> Result<Runs> {
        if bytes == 0 {
            return Ok(Runs::default());
        }
        let start = self.place(first)?;
        let last = (bytes - 1) / u64::from(self.cluster_size) + u64::from(first);
        self.place(u32::try_from(last).unwrap_or(u32::MAX))?;
        Ok(Runs::one(start, bytes.next_multiple_of(u64::from(self.cluster_size))))
    }

    /// Follows a chain from its first cluster on.
    pub(in crate::fs) fn chain(&self, first: u32, wanted: Wanted) -> Result<Runs> {
        let size = u64::from(self.cluster_size);
        let most = match wanted {
            Wanted::Bytes(bytes) | Wanted::AtMost(bytes) => bytes.div_ceil(size),
        };
        let mut runs = Runs::default();
        let mut window = Window::default();
        let mut cluster = first;
        // Brent's way to notice a circle: a cluster that the chain may come back to, replaced ever more rarely.
        let (mut mark, mut next_mark) = (0, 1_u64);
        let mut count = 0_u64;
        while count < most {
            runs.push(self.place(cluster)?, size);
            count += 1;
            if runs.count() > MOST_RUNS {
                return Err(Error::unsupported("a file in so many parts", format!("more than {MOST_RUNS} of FAT")));
            }
            if count == next_mark {
                (mark, next_mark) = (cluster, next_mark * 2);
            }
            match (self.next(cluster, &mut window)?, wanted) {
                (Some(next), _) if next == mark => {
                    return Err(self.damaged(format!("the chain from cluster {first} on comes back to {next}")));
                }
                (Some(next), _) => cluster = next,
                (None, Wanted::Bytes(_)) if count < most => {
                    return Err(
                        self.damaged(format!("the chain from cluster {first} on has {count} of {most} clusters"))
                    );
                }
                (None, _) => return Ok(runs),
            }
        }
        match wanted {
            Wanted::Bytes(_) => Ok(runs),
            Wanted::AtMost(bytes) => {
                Err(self.damaged(format!("the chain from cluster {first} on is longer than {bytes} bytes")))
            }
        }
    }

    /// An entry as it is stored, also one of the first two, which are about the volume.
    pub(in crate::fs) fn entry(&self, cluster: u32) -> Result<u32> {
        self.raw(cluster, &mut Window::default())
    }

    /// The cluster after this one.
    fn next(&self, cluster: u32, window: &mut Window) -> Result<Option<u32>> {
        let entry = self.raw(cluster, window)?;
        let end = match self.width {
            Width::Twelve => 0xff8,
            Width::Sixteen => 0xfff8,
            Width::TwentyEight => 0x0fff_fff8,
            Width::ThirtyTwo => 0xffff_fff8,
        };
        if entry >= end {
            return Ok(None);
        }
        if entry < 2 || entry - 2 >= self.clusters {
            return Err(self.damaged(format!("after cluster {cluster} there is {entry:#x}")));
        }
        Ok(Some(entry))
    }

    fn raw(&self, cluster: u32, window: &mut Window) -> Result<u32> {
        let number = u64::from(cluster);
        let at = match self.width {
            Width::Twelve => number + number / 2,
            Width::Sixteen => number * 2,
            Width::TwentyEight | Width::ThirtyTwo => number * 4,
        };
        let bytes = window.at(self, at)?;
        let entry = match self.width {
            Width::Twelve => {
                le_u16(bytes, 0).map(|pair| u32::from(if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }))
            }
            Width::Sixteen => le_u16(bytes, 0).map(u32::from),
            Width::TwentyEight => le_u32(bytes, 0).map(|entry| entry & 0x0fff_ffff),
            Width::ThirtyTwo => le_u32(bytes, 0),
        };
        entry.ok_or_else(|| self.damaged(format!("it ends before cluster {cluster}")))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::damaged(format!("the file allocation table of {}", self.device.name()), problem)
    }
}

/// The part of a table that was read last: chains mostly go on where they are.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// What is stored at a byte of the table; at least as many bytes as an entry has.
    fn at(&mut self, table: &Table, at: u64) -> Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + 4 > end {
            // Two bytes more than a step, because those of FAT12 may lie across.
            self.start = at / WINDOW * WINDOW;
            let place = table.start + self.start;
            let len = (WINDOW + 4).min(table.device.size().saturating_sub(place));
            self.bytes = table.device.read_vec(place, len as usize)?;
        }
        Ok(usize::try_from(at - self.start).ok().and_then(|from| self.bytes.get(from..)).unwrap_or_default())
    }
}

/// Bytes of a table that are read at once.
const WINDOW: u64 = 4096;
/// No file is in more parts: 100 MB of memory.
const MOST_RUNS: usize = 1 << 22;
