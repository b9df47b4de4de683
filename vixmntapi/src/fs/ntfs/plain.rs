//! Attributes whose bytes lie on the volume as they are, or in their record.

use std::{ops::Range, sync::Arc};

use super::{attribute::Sizes, boot::Volume, runs::Runs};
use crate::{
    error::{Error, Result},
    fs::{Content, Extent, ExtentKind},
};

/// An attribute in clusters.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) volume: Arc<Volume>,
    pub(super) runs: Runs,
    pub(super) sizes: Sizes,
    /// For messages.
    pub(super) what: String,
}

impl Plain {
    pub(super) fn new(volume: &Arc<Volume>, runs: Runs, sizes: Sizes, what: &str) -> Self {
        Self { volume: volume.clone(), runs, sizes, what: what.to_owned() }
    }

    /// Checks that all of it is mapped.
    pub(super) fn check(&self) -> Result<()> {
        let mapped = u128::from(self.runs.end()) * u128::from(self.volume.cluster);
        if u128::from(self.sizes.data) > mapped {
            let problem = format!("{} bytes, of which {mapped} are mapped", self.sizes.data);
            return Err(Error::damaged(&self.what, problem));
        }
        Ok(())
    }

    /// Fills `buf`, which must not leave the attribute.
    pub(super) fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        if self.read_at(offset, buf)? == len {
            return Ok(());
        }
        let problem = format!("{len} bytes at byte {offset} of {}", self.sizes.data);
        Err(Error::damaged(&self.what, problem))
    }

    /// All of a short one.
    pub(super) fn whole(&self, limit: u64) -> Result<Vec<u8>> {
        if self.sizes.data > limit {
            let problem = format!("{} bytes, where {limit} are the most", self.sizes.data);
            return Err(Error::damaged(&self.what, problem));
        }
        let mut bytes = vec![0; self.sizes.data as usize];
        self.fill(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads clusters that are there, whether they were written or not.
    pub(super) fn read_mapped(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let cluster = self.volume.cluster;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let run = self.runs.at(at / cluster);
            let run = run.ok_or_else(|| Error::damaged(&self.what, format!("byte {at} is not mapped")))?;
            let into = at % cluster;
            let rest = buf.get_mut(done..).unwrap_or_default();
            let len = run.len.saturating_mul(cluster).saturating_sub(into).min(rest.len() as u64) as usize;
            let piece = rest.get_mut(..len).unwrap_or_default();
            match run.at {
                Some(place) => self.volume.device.read_at(place * cluster + into, piece)?,
                None => piece.fill(0),
            }
            done += len;
        }
        Ok(())
    }
}

impl Content for Plain {
    fn size(&self) -> u64 {
        self.sizes.data
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.sizes.data.saturating_sub(offset).min(buf.len() as u64) as usize;
        let written = self.sizes.initialized.saturating_sub(offset).min(len as u64) as usize;
        self.read_mapped(offset, buf.get_mut(..written).unwrap_or_default())?;
        buf.get_mut(written..len).unwrap_or_default().fill(0);
        Ok(len)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let cluster = self.volume.cluster;
        let end = range.end.min(self.sizes.data);
        let mut at = range.start;
        let mut extents = Vec::new();
        while at < end {
            let run = self.runs.at(at / cluster);
            let run = run.ok_or_else(|| Error::damaged(&self.what, format!("byte {at} is not mapped")))?;
            let mut stop = (run.first + run.len).saturating_mul(cluster).min(end);
            let kind = match run.at {
                None => ExtentKind::Hole,
                Some(_) if at >= self.sizes.initialized => ExtentKind::Unwritten,
                Some(place) => {
                    stop = stop.min(self.sizes.initialized);
                    ExtentKind::Stored(place * cluster + at % cluster)
                }
            };
            extents.push(Extent::new(at..stop, kind));
            at = stop;
        }
        Ok(extents)
    }
}

/// An attribute that lies in its record.
#[derive(Debug)]
pub(super) struct Resident(pub(super) Vec<u8>);

impl Content for Resident {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(from..).unwrap_or_default();
        Ok(buf.iter_mut().zip(rest).map(|(to, from)| *to = *from).count())
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let range = range.start..range.end.min(self.size());
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent::new(range, ExtentKind::Encoded)] })
    }
}
