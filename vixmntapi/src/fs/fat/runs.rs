//! Where the bytes of a file lie, run by run, and files that are nothing but such runs.

use std::{ops::Range, sync::Arc};

use crate::{
    device::Device,
    error::{Error, Result},
    fs::{Content, Extent, ExtentKind, within},
};

/// Runs of bytes of a device, which one after the other are a file.
#[derive(Clone, Debug, Default)]
pub(in crate::fs) struct Runs(Vec<Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    /// In the file.
    start: u64,
    /// On the device.
    place: u64,
    len: u64,
}

impl Runs {
    /// One run.
    pub(in crate::fs) fn one(place: u64, len: u64) -> Self {
        Self(vec![Run { start: 0, place, len }])
    }

    /// Bytes of all runs.
    pub(in crate::fs) fn len(&self) -> u64 {
        self.0.last().map_or(0, |run| run.start + run.len)
    }

    /// Runs that do not lie side by side.
    pub(in crate::fs) fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds bytes at the end.
    pub(in crate::fs) fn push(&mut self, place: u64, len: u64) {
        match self.0.last_mut() {
            Some(last) if last.place + last.len == place => last.len += len,
            _ => self.0.push(Run { start: self.len(), place, len }),
        }
    }

    /// Where a byte lies, and how many lie side by side from there on.
    pub(in crate::fs) fn find(&self, offset: u64) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|run| run.start <= offset);
        let run = self.0.get(after.checked_sub(1)?)?;
        let into = offset - run.start;
        (into < run.len).then(|| (run.place + into, run.len - into))
    }
}

/// A file in runs.
pub(in crate::fs) struct RunContent {
    device: Arc<dyn Device>,
    runs: Runs,
    size: u64,
    /// Bytes that were written; the rest reads as zeros, whatever is stored there.
    valid: u64,
}

impl RunContent {
    /// Takes runs that hold at least `valid` bytes of a file of `size`.
    pub(in crate::fs) fn open(device: Arc<dyn Device>, runs: Runs, size: u64, valid: u64) -> Arc<dyn Content> {
        Arc::new(Self { device, runs, size, valid: valid.min(size) })
    }

    fn find(&self, offset: u64) -> Result<(u64, u64)> {
        let (place, len) = self.runs.find(offset).ok_or_else(|| {
            Error::damaged(format!("a file of {}", self.device.name()), format!("byte {offset} has no place"))
        })?;
        Ok((place, len.min(self.valid - offset)))
    }
}

impl Content for RunContent {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut rest = within(self.size, offset, buf);
        let len = rest.len();
        let mut at = offset;
        while !rest.is_empty() {
            if at >= self.valid {
                rest.fill(0);
                break;
            }
            let (place, there) = self.find(at)?;
            let (now, later) = rest.split_at_mut(there.min(rest.len() as u64) as usize);
            self.device.read_at(place, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(len)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let end = range.end.min(self.size);
        let mut extents = Vec::new();
        let mut at = range.start;
        while at < end {
            let (kind, len) = if at >= self.valid {
                (ExtentKind::Unwritten, end - at)
            } else {
                let (place, len) = self.find(at)?;
                (ExtentKind::Stored(place), len.min(end - at))
            };
            extents.push(Extent::new(at..at + len, kind));
            at += len;
        }
        Ok(extents)
    }
}
