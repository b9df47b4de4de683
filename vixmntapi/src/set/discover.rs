//! Finds the volumes on disks.

use std::{collections::HashSet, sync::Arc};

use super::{
    Problem,
    volume::{Encryption, Found, PartitionPlace, VolumeKind},
};
use crate::{
    device::Device,
    error::Error,
    part::{self, Role, Scheme, Table},
    volume::{Assembled, Assembly, ldm, luks::Keys, lvm, md},
};

/// What is on disks.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) tables: Vec<Option<Table>>,
    pub(super) volumes: Vec<Found>,
    pub(super) problems: Vec<Problem>,
}

/// Reads the partition tables and what volume managers say of themselves, and opens what is encrypted on the way.
pub(super) fn discover(disks: &[Arc<dyn Device>], keys: &Keys) -> Layout {
    let mut layout = Layout::default();
    for (number, disk) in disks.iter().enumerate() {
        let table = layout.table(disk);
        let id = format!("disk{number}");
        layout.candidates(&id, Some(number), disk, table.as_ref());
        layout.tables.push(table);
    }
    layout.assemble_dynamic(disks);
    layout.unlock(keys);
    // Arrays of arrays are made for RAID 1+0. What volume groups lie on is known once all arrays are there.
    layout.assemble(md::assemble, |_| true);
    layout.assemble(md::assemble, |found| matches!(found.kind, VolumeKind::Md { .. }));
    layout.unlock(keys);
    layout.assemble(lvm::assemble, |_| true);
    layout.unlock(keys);
    layout
}

impl Layout {
    /// The partition table of a disk or of an array; what is wrong with it is noted.
    fn table(&mut self, disk: &Arc<dyn Device>) -> Option<Table> {
        let (table, damage) = match part::partitions_until_damage(disk) {
            Ok((table, damage)) => (Some(table), damage),
            Err(error) => (None, Some(error)),
        };
        self.problems.extend(damage.map(|error| Problem { place: disk.name(), error }));
        table
    }

    /// What may hold a file system on a disk: its partitions, or the disk itself.
    fn candidates(&mut self, id: &str, number: Option<usize>, disk: &Arc<dyn Device>, table: Option<&Table>) {
        let Some(table) = table else { return };
        let slices = table.partitions.iter().map(|partition| partition.slice(disk));
        let slices = slices.map(|slice| slice.map(|slice| Arc::new(slice) as Arc<dyn Device>));
        let slices: Vec<_> = slices.collect();
        // A member whose superblock is at its end shows the partition table of its array, which is read there. The last
        // partition may end where the disk does, and be the member.
        let is_part_member = || slices.iter().flatten().any(|slice| md::is_member(&**slice));
        if table.scheme == Scheme::None || (md::is_member(&**disk) && !is_part_member()) {
            self.volumes.push(Found::new(id.to_owned(), VolumeKind::Disk, disk.size(), Ok(disk.clone())));
            return;
        }
        for (partition, device) in table.partitions.iter().zip(slices) {
            self.volumes.push(Found::partition(id, number, table.scheme, partition.clone(), device));
        }
    }

    /// Opens what is encrypted and was not tried yet; the volume is then what is in it.
    fn unlock(&mut self, keys: &Keys) {
        for found in self.volumes.iter_mut().filter(|found| !found.was_tried) {
            found.was_tried = true;
            let Ok(device) = &found.device else { continue };
            match keys.unlock(device) {
                None => {}
                Some(Ok(unlocked)) => {
                    found.size = unlocked.device.size();
                    found.encryption = Some(Encryption { scheme: unlocked.scheme, uuid: unlocked.uuid });
                    found.device = Ok(unlocked.device);
                }
                Some(Err(error)) => found.degraded = Some(error.to_string()),
            }
        }
    }

    /// Lets a volume manager put its volumes in the place of what they are made of, among those that may be.
    fn assemble(&mut self, manager: fn(&[Arc<dyn Device>]) -> Assembly, may_be: fn(&Found) -> bool) {
        let there = self.volumes.iter().enumerate().filter(|(_, found)| may_be(found));
        let there = there.filter_map(|(number, found)| Some((number, found.device.as_ref().ok()?.clone())));
        let (numbers, devices): (Vec<usize>, Vec<_>) = there.unzip();
        let Assembly { volumes, problems, members } = manager(&devices);
        let gone: HashSet<usize> = members.iter().filter_map(|member| numbers.get(*member).copied()).collect();
        let mut number = 0;
        self.volumes.retain(|_| {
            number += 1;
            !gone.contains(&(number - 1))
        });
        self.add(volumes, problems);
    }

    /// Lets the volumes of dynamic disks take the place of their partitions. Those of a disk that only looks like one, or
    /// whose database cannot be read, stay.
    fn assemble_dynamic(&mut self, disks: &[Arc<dyn Device>]) {
        let Assembly { volumes, problems, members } =
            ldm::assemble(disks.iter().zip(self.tables.iter().map(Option::as_ref)));
        let is_left_to_it = |place: &PartitionPlace| {
            matches!(place.partition.kind.role(), Role::LdmData | Role::LdmMetadata)
                && place.disk.is_some_and(|disk| members.contains(&disk))
        };
        self.volumes.retain(|found| !found.place.as_ref().is_some_and(is_left_to_it));
        self.add(volumes, problems);
    }

    /// Adds what a volume manager found.
    fn add(&mut self, volumes: Vec<Assembled>, problems: Vec<(String, Error)>) {
        self.problems.extend(problems.into_iter().map(|(place, error)| Problem { place, error }));
        let mut used: HashSet<String> = self.volumes.iter().map(|found| found.id.to_string()).collect();
        for volume in volumes {
            let id = unused(&mut used, volume.id);
            let degraded = volume.degraded;
            if let (VolumeKind::Md { .. }, Ok(device)) = (&volume.kind, &volume.device) {
                let table = self.table(device);
                if table.as_ref().is_some_and(|table| table.scheme != Scheme::None) {
                    let first = self.volumes.len();
                    self.candidates(&id, None, device, table.as_ref());
                    self.volumes.iter_mut().skip(first).for_each(|found| found.degraded.clone_from(&degraded));
                    continue;
                }
            }
            self.volumes.push(Found { degraded, ..Found::new(id, volume.kind, volume.size, volume.device) });
        }
    }
}

/// An id that no other volume has: disks that were copied bring names twice. It is found at once, however many there are.
fn unused(used: &mut HashSet<String>, id: String) -> String {
    let mut ids = std::iter::once(id.clone()).chain((used.len()..).map(|number| format!("{id}#{number}")));
    let unused = ids.find(|id| !used.contains(id)).unwrap_or(id);
    used.insert(unused.clone());
    unused
}
