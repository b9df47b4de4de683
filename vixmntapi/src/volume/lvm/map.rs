//! From extents to bytes: devices for logical volumes.

use std::{collections::HashMap, sync::Arc};

use super::{
    Physical,
    group::{Area, Copy, Group, Layout, LogicalVolume, Segment},
    raid,
};
use crate::{
    error::{Error, Result},
    volume::{Leg, Mapped},
};

/// Makes devices for the logical volumes of a group.
pub(super) struct Mapper<'a> {
    group: &'a Group,
    physical: &'a HashMap<String, Physical>,
    /// What was made, and what cannot be.
    done: HashMap<String, Result<Made>>,
}

/// A device, and what is missing of it or of what it was made of.
type Made = (Arc<Mapped>, Option<String>);

impl<'a> Mapper<'a> {
    pub(super) fn new(group: &'a Group, physical: &'a HashMap<String, Physical>) -> Self {
        Self { group, physical, done: HashMap::new() }
    }

    /// The device of a volume.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Damaged`].
    pub(super) fn volume(&mut self, name: &str) -> Result<Made> {
        self.nested(name, 0)
    }

    /// The device of a volume that others may lie on, made once.
    fn nested(&mut self, name: &str, depth: usize) -> Result<Made> {
        if !self.done.contains_key(name) {
            let made = self.make(name, depth);
            self.done.insert(name.to_owned(), made);
        }
        match self.done.get(name) {
            Some(Ok(made)) => Ok(made.clone()),
            Some(Err(error)) => Err(error.duplicate()),
            None => Err(self.damaged(name, "it is not there")),
        }
    }

    fn make(&mut self, name: &str, depth: usize) -> Result<Made> {
        let group: &'a Group = self.group;
        let volume = group.volume(name).ok_or_else(|| self.damaged(name, "it is not there"))?;
        if depth > MAX_DEPTH {
            return Err(self.damaged(name, "it lies on itself"));
        }
        if let Some(what) = &volume.part_of {
            return Err(Error::unsupported(self.shown(name), format!("it is {what}")));
        }
        let mut mapped = Mapped::new(self.shown(name));
        let mut degraded = None;
        for segment in &volume.segments {
            let lack = self.append(&mut mapped, volume, segment, depth)?;
            degraded = degraded.or(lack);
        }
        degraded = mapped.missing().map(str::to_owned).or(degraded);
        Ok((Arc::new(mapped), degraded))
    }

    /// Appends a segment; what it lacks although all its bytes may be there.
    fn append(
        &mut self,
        mapped: &mut Mapped,
        volume: &LogicalVolume,
        segment: &Segment,
        depth: usize,
    ) -> Result<Option<String>> {
        let len = self.bytes(&volume.name, segment.extents)?;
        match &segment.layout {
            Layout::Zeros => mapped.append(len, Leg::Zeros).map(|()| None),
            Layout::Striped { chunk, areas } => {
                let mut lack = None;
                let mut legs = Vec::with_capacity(areas.len());
                for area in areas {
                    let (leg, degraded) = self.leg(&volume.name, area, depth)?;
                    lack = lack.or(degraded);
                    legs.push(leg);
                }
                mapped.append_stripes(len, *chunk, legs)?;
                Ok(lack)
            }
            Layout::Mirror(areas) => {
                let legs = areas.iter().map(|area| self.leg(&volume.name, area, depth)).collect::<Result<Vec<_>>>()?;
                let lack = legs.iter().find_map(|(_, lack)| lack.clone());
                let whole = legs.iter().find(|(_, lack)| lack.is_none()).or(legs.first());
                let (leg, _) = whole.ok_or_else(|| self.damaged(&volume.name, "it has no copies"))?;
                mapped.append(len, leg.clone())?;
                Ok(lack)
            }
            Layout::Copies { near, chunk, copies } => {
                if *near == 0 || !copies.len().is_multiple_of(*near) {
                    let reason = format!("{near} copies on {} volumes do not lie side by side", copies.len());
                    return Err(Error::unsupported(self.shown(&volume.name), reason));
                }
                let copies = self.freshest(volume, copies, *near, depth)?;
                let lack = copies.iter().find_map(|(_, lack)| lack.clone());
                let legs = copies.into_iter().map(|(image, _)| Leg::On(image, 0)).collect();
                mapped.append_stripes(len, *chunk, legs)?;
                Ok(lack)
            }
            Layout::Other(kind) => {
                let reason = match NAMES.iter().find(|(known, _)| known == kind) {
                    Some((_, words)) => format!("{words} ({kind})"),
                    None => format!("a segment is of type {kind}"),
                };
                Err(Error::unsupported(self.shown(&volume.name), reason))
            }
        }
    }

    /// Of each group of so many neighbours the freshest copy that is whole, and what the group lacks.
    fn freshest(&mut self, volume: &LogicalVolume, copies: &[Copy], near: usize, depth: usize) -> Result<Vec<Made>> {
        let mut found = Vec::new();
        for copy in copies {
            let (image, lack) = self.nested(&copy.image, depth + 1)?;
            let (metadata, _) = self.nested(&copy.metadata, depth + 1)?;
            let state = if metadata.missing().is_none() { raid::State::read(&*metadata)? } else { None };
            found.push((image, lack, state));
        }
        let states: Vec<_> = found.iter().filter_map(|(.., state)| state.clone()).collect();
        let newest = states.iter().map(|state| state.events).max();
        let is_old = |state: &Option<raid::State>| state.as_ref().map(|state| state.events) < newest;
        let has_failed = |number| states.iter().any(|state| Some(state.events) == newest && state.has_failed(number));
        for (number, (copy, (_, lack, state))) in copies.iter().zip(&mut found).enumerate() {
            let is_behind = is_old(state) || has_failed(number) || state.as_ref().is_some_and(raid::State::is_behind);
            if lack.is_none() && is_behind {
                *lack = Some(format!("{} is not in step with the other copies", copy.image));
            }
        }
        let of_group = |group: &[(Arc<Mapped>, Option<String>, Option<raid::State>)]| {
            let lack = group.iter().find_map(|(_, lack, _)| lack.clone());
            let best = group.iter().find(|(_, lack, _)| lack.is_none());
            // Old bytes are worse than none: without a copy in step, only one with missing bytes will do.
            let best =
                best.or_else(|| group.iter().find(|(image, _, state)| image.missing().is_some() && !is_old(state)));
            let reason = || lack.clone().unwrap_or_else(|| "it has no copies".into());
            let (image, ..) =
                best.ok_or_else(|| self.damaged(&volume.name, &format!("no copy can be relied on: {}", reason())))?;
            Ok((image.clone(), lack))
        };
        found.chunks(near).map(of_group).collect()
    }

    /// What an area lies on, and what that lacks.
    fn leg(&mut self, volume: &str, area: &Area, depth: usize) -> Result<(Leg, Option<String>)> {
        let offset = self.bytes(volume, area.extent)?;
        let Some(known) = self.group.physical.get(&area.on) else {
            let (device, lack) = self.nested(&area.on, depth + 1)?;
            return Ok((Leg::On(device, offset), lack));
        };
        let missing = |why: &str| {
            let what = format!("physical volume {} ({}, last seen as {}) {why}", area.on, known.id, known.hint);
            Ok((Leg::Missing(what.clone()), Some(what)))
        };
        match self.physical.get(&known.id) {
            _ if known.is_stale => missing("was away while the group was changed"),
            None => missing("is missing"),
            Some(Err(problem)) => Err(self.damaged(volume, problem)),
            Some(Ok(device)) => {
                let offset = known.start.checked_add(offset).ok_or_else(|| self.damaged(volume, "it is too large"))?;
                Ok((Leg::On(device.clone(), offset), None))
            }
        }
    }

    fn bytes(&self, volume: &str, extents: u64) -> Result<u64> {
        extents.checked_mul(self.group.extent).ok_or_else(|| self.damaged(volume, "it is too large"))
    }

    fn shown(&self, volume: &str) -> String {
        format!("logical volume {}/{volume}", self.group.name)
    }

    fn damaged(&self, volume: &str, problem: &str) -> Error {
        Error::damaged(self.shown(volume), problem)
    }
}

/// Volumes lie on parts of mirrors that lie on physical volumes, or a little deeper.
const MAX_DEPTH: usize = 8;

/// What types of segments are, that are not read.
const NAMES: &[(&str, &str)] = &[
    ("thin", "it is a thin volume"),
    ("thin-pool", "it is the pool of thin volumes"),
    ("cache", "it is cached, and the cache may have newer bytes"),
    ("writecache", "it is cached, and the cache may have newer bytes"),
    ("cache-pool", "it is the pool of a cache"),
    ("vdo", "it is a compressed volume"),
    ("vdo-pool", "it is the pool of compressed volumes"),
    ("raid4", "it has parity"),
    ("raid5", "it has parity"),
    ("raid5_la", "it has parity"),
    ("raid5_ls", "it has parity"),
    ("raid5_ra", "it has parity"),
    ("raid5_rs", "it has parity"),
    ("raid5_n", "it has parity"),
    ("raid6", "it has parity"),
    ("raid6_zr", "it has parity"),
    ("raid6_nr", "it has parity"),
    ("raid6_nc", "it has parity"),
    ("integrity", "it has checksums"),
    ("error", "it has no bytes"),
    ("snapshot", "it is a snapshot"),
];
