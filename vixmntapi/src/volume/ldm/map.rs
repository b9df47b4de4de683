//! From sectors of partitions to volumes.

use std::collections::HashMap;

use super::{
    Disk,
    database::Database,
    record::{Component, Layout, Objects, Partition, Volume},
};
use crate::{
    error::{Error, Result},
    volume::{Leg, Mapped},
};

/// Makes devices for the volumes of a group.
pub(super) struct Mapper<'a> {
    group: &'a str,
    /// By the volumes that they are copies of.
    components: HashMap<u64, Vec<&'a Component>>,
    /// By the components that are made of them.
    partitions: HashMap<u64, Vec<&'a Partition>>,
    /// By their numbers in the group.
    disks: HashMap<u64, Found<'a>>,
    sector: u64,
}

/// A disk of the group: its name, and what there is of it.
struct Found<'a> {
    name: &'a str,
    there: Vec<&'a Disk>,
    /// Its copy of the database lacks changes.
    is_behind: bool,
}

/// A device, and what is missing of it or of what it was made of.
type Made = (Mapped, Option<String>);

impl<'a> Mapper<'a> {
    pub(super) fn new(database: &'a Database, objects: &'a Objects, disks: &'a [Disk], sector: u64) -> Self {
        let disks = objects.disks.iter().map(|record| {
            let there: Vec<_> = disks.iter().filter(|disk| disk.head.disk == record.guid).collect();
            let is_behind = there.iter().any(|disk| disk.sequence < database.sequence);
            (record.id, Found { name: &record.name, there, is_behind })
        });
        let disks = disks.collect();
        let (mut components, mut partitions) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for component in &objects.components {
            components.entry(component.volume).or_default().push(component);
        }
        for partition in &objects.partitions {
            partitions.entry(partition.component).or_default().push(partition);
        }
        Self { group: &database.group, components, partitions, disks, sector }
    }

    /// The device of a volume.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Damaged`].
    pub(super) fn volume(&self, volume: &Volume) -> Result<Made> {
        let name = self.shown(volume);
        let components = self.components.get(&volume.id).map_or(&[][..], Vec::as_slice);
        let has_parity = components.iter().any(|component| component.layout == Layout::Parity);
        if volume.kind == "raid5" || has_parity {
            return Err(Error::unsupported(name, "it has parity (RAID-5)"));
        }
        let mut lack = None;
        let mut with_holes = None;
        for component in components {
            let (mapped, missing) = self.component(volume, component)?;
            // The only copy is read whatever is said of it; of several only those in step.
            let why = missing.or_else(|| self.out_of_step(component).filter(|_| components.len() > 1));
            match why {
                None => return Ok((mapped, lack.or_else(|| self.later_lack(components, component, volume)))),
                Some(why) => {
                    if mapped.missing().is_some() {
                        with_holes = with_holes.or(Some(mapped));
                    }
                    lack = lack.or(Some(why));
                }
            }
        }
        match with_holes {
            Some(mapped) => Ok((mapped, lack)),
            None => {
                let why = lack.unwrap_or_else(|| "it has no components".into());
                Err(Error::damaged(name, format!("no copy can be relied on: {why}")))
            }
        }
    }

    /// What the copies behind the one that is read lack.
    fn later_lack(&self, components: &[&Component], read: &Component, volume: &Volume) -> Option<String> {
        let later = components.iter().skip_while(|component| component.id != read.id).skip(1);
        later.into_iter().find_map(|component| match self.component(volume, component) {
            Ok((_, missing)) => missing.or_else(|| self.out_of_step(component)),
            Err(error) => Some(error.to_string()),
        })
    }

    /// Why a copy does not have what the others have, if that is so.
    fn out_of_step(&self, component: &Component) -> Option<String> {
        if component.state != ACTIVE {
            return Some(format!("component {} is {}", component.id, component.state));
        }
        let mut disks = self.parts(component).iter().filter_map(|part| self.disks.get(&part.disk));
        let behind = disks.find(|disk| disk.is_behind)?;
        Some(format!("{} was away while the group was changed", behind.name))
    }

    fn parts(&self, component: &Component) -> &[&'a Partition] {
        self.partitions.get(&component.id).map_or(&[], Vec::as_slice)
    }

    /// A copy of a volume.
    fn component(&self, volume: &Volume, component: &Component) -> Result<Made> {
        let name = self.shown(volume);
        let damaged = |problem: String| Error::damaged(&*name, problem);
        let mut parts = self.parts(component).to_vec();
        if parts.len() as u64 != component.count || parts.is_empty() {
            return Err(damaged(format!("it has {} partitions, not {}", parts.len(), component.count)));
        }
        let mut mapped = Mapped::new(&*name);
        match component.layout {
            Layout::Spanned => {
                parts.sort_by_key(|part| part.offset);
                let mut at = 0;
                for part in parts {
                    if part.offset != at {
                        return Err(damaged(format!("it has nothing or two things at sector {at}")));
                    }
                    // The volume may be a little smaller than what it lies on.
                    let len = part.size.min(volume.size.saturating_sub(at));
                    mapped.append(self.bytes(len, &name)?, self.leg(part, &name)?)?;
                    at = at.checked_add(part.size).ok_or_else(|| damaged("it is too large".into()))?;
                }
                if at < volume.size {
                    return Err(damaged(format!("it has {} sectors on {at}", volume.size)));
                }
            }
            Layout::Striped { chunk } => {
                parts.sort_by_key(|part| part.index);
                let indices = parts.iter().enumerate().all(|(number, part)| part.index == number as u64);
                let smallest = parts.iter().map(|part| part.size).min().unwrap_or(0);
                let room = smallest.saturating_mul(parts.len() as u64);
                if !indices || chunk == 0 || room < volume.size {
                    return Err(damaged(format!("it has {} sectors on stripes of {smallest}", volume.size)));
                }
                let legs = parts.iter().map(|part| self.leg(part, &name)).collect::<Result<_>>()?;
                mapped.append_stripes(self.bytes(volume.size, &name)?, self.bytes(chunk, &name)?, legs)?;
            }
            Layout::Parity => return Err(Error::unsupported(name, "it has parity (RAID-5)")),
            Layout::Other(kind) => return Err(Error::unsupported(name, format!("a component is of type {kind}"))),
        }
        let missing = mapped.missing().map(str::to_owned);
        Ok((mapped, missing))
    }

    /// What a partition lies on.
    fn leg(&self, part: &Partition, name: &str) -> Result<Leg> {
        let found = self.disks.get(&part.disk);
        let found = found.ok_or_else(|| Error::damaged(name, format!("it lies on a disk {} of nowhere", part.disk)))?;
        match &*found.there {
            [] => Ok(Leg::Missing(format!("{} is missing", found.name))),
            [disk] => {
                let start = self.bytes(part.start, name)?.checked_add(disk.head.data);
                let start = start.ok_or_else(|| Error::damaged(name, "it is too large"))?;
                Ok(Leg::On(disk.device.clone(), start))
            }
            [one, two, ..] => {
                let (one, two) = (one.device.name(), two.device.name());
                Err(Error::damaged(name, format!("{} is there twice: {one} and {two}", found.name)))
            }
        }
    }

    fn bytes(&self, sectors: u64, name: &str) -> Result<u64> {
        sectors.checked_mul(self.sector).ok_or_else(|| Error::damaged(name, "it is too large"))
    }

    fn shown(&self, volume: &Volume) -> String {
        format!("dynamic volume {}/{}", self.group, volume.name)
    }
}

/// The state of a component that is in use.
const ACTIVE: &str = "ACTIVE";
