//! LVM2: physical volumes, the text that says what volume groups are made of, logical volumes.
//!
//! Formats: `lib/format_text/layout.h`, `lib/label/label.h` and `man 5 lvm.conf` of LVM2; `dm-raid` in the kernel's
//! documentation.

mod group;
mod label;
mod map;
mod raid;
mod text;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::{group::Group, label::Label, map::Mapper};
use super::{Assembled, Assembly};
use crate::{device::Device, error::Error, set::VolumeKind};

/// Finds physical volumes among devices, and the logical volumes on them.
pub(crate) fn assemble(devices: &[Arc<dyn Device>]) -> Assembly {
    let mut found = Found::default();
    for (number, device) in devices.iter().enumerate() {
        match Label::read(device) {
            Ok(None) => {}
            Ok(Some(label)) => found.add(number, device, &label),
            Err(error) => found.assembly.problems.push((device.name(), error)),
        }
    }
    found.finish()
}

/// A physical volume: its device, or what is wrong with it.
pub(super) type Physical = Result<Arc<dyn Device>, String>;

#[derive(Default)]
struct Found {
    assembly: Assembly,
    physical: HashMap<String, Physical>,
    /// By their ids, each as its newest copy says.
    groups: BTreeMap<String, Group>,
    /// Physical volumes whose copies of the metadata are all damaged.
    unknown: Vec<(String, String, Error)>,
}

impl Found {
    fn add(&mut self, number: usize, device: &Arc<dyn Device>, label: &Label) {
        self.assembly.members.push(number);
        let twice = |old: &Physical| {
            let old = old.as_ref().map_or_else(String::clone, |old| old.name());
            format!("physical volume {} is there twice: {} and {old}", label.id, device.name())
        };
        let physical = self.physical.get(&label.id).map_or_else(|| Ok(device.clone()), |old| Err(twice(old)));
        self.physical.insert(label.id.clone(), physical);
        let mut damage = None;
        let mut understood = label.areas.is_empty();
        for area in &label.areas {
            match area.read(&**device).and_then(|text| text.map(|text| Group::parse(&text)).transpose()) {
                Ok(None) => understood = true,
                Ok(Some(group)) => {
                    understood = true;
                    let known = self.groups.get(&group.id).map_or(0, |known| known.seqno);
                    if group.seqno >= known {
                        self.groups.insert(group.id.clone(), group);
                    }
                }
                Err(error) => damage = Some(error),
            }
        }
        match damage {
            Some(error) if understood => {
                tracing::warn!(device = device.name(), %error, "a copy of metadata is damaged")
            }
            Some(error) => self.unknown.push((label.id.clone(), device.name(), error)),
            None => {}
        }
    }

    fn finish(mut self) -> Assembly {
        for group in self.groups.values() {
            let mut mapper = Mapper::new(group, &self.physical);
            for volume in group.volumes.iter().filter(|volume| volume.visible) {
                let (device, degraded) = match mapper.volume(&volume.name) {
                    Ok((device, degraded)) => (Ok(device as Arc<dyn Device>), degraded),
                    Err(error) => (Err(error), None),
                };
                let kind = VolumeKind::Lvm { group: group.name.clone(), name: volume.name.clone() };
                let id = format!("lvm/{}/{}", group.name, volume.name);
                let size = volume.extents.saturating_mul(group.extent);
                self.assembly.volumes.push(Assembled { id, kind, size, device, degraded });
            }
        }
        let groups = &self.groups;
        let in_a_group = |id: &String| groups.values().any(|group| group.physical.values().any(|pv| pv.id == *id));
        let hidden = self.unknown.into_iter().filter(|(id, ..)| !in_a_group(id));
        self.assembly.problems.extend(hidden.map(|(_, device, error)| (device, error)));
        self.assembly
    }
}
