//! Dynamic disks of Windows: the database of the Logical Disk Manager, and its volumes.
//!
//! There is no specification by Microsoft. What is used here is what the drivers of Linux (`block/partitions/ldm.c`) and
//! libldm found out. All numbers are big-endian; sizes and places are in sectors.

mod database;
mod map;
mod privhead;
mod record;

use std::{collections::BTreeMap, sync::Arc};

use self::{database::Database, map::Mapper, privhead::PrivHead};
use super::{Assembled, Assembly};
use crate::{
    device::Device,
    error::Result,
    part::{Role, Table},
    set::VolumeKind,
};

/// Finds dynamic disks among disks with their partition tables, and the volumes on them. The members of the assembly are
/// the numbers of disks.
pub(crate) fn assemble<'a>(disks: impl Iterator<Item = (&'a Arc<dyn Device>, Option<&'a Table>)>) -> Assembly {
    let mut assembly = Assembly::default();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (number, (device, table)) in disks.enumerate() {
        let Some(table) = table.filter(|table| is_dynamic(table)) else { continue };
        match read(device, table) {
            Ok((head, database)) => {
                assembly.members.push(number);
                groups.entry(head.group.clone()).or_default().add(device, head, database);
            }
            Err(error) => assembly.problems.push((device.name(), error)),
        }
    }
    for group in groups.into_values() {
        group.finish(&mut assembly);
    }
    assembly
}

/// Whether a partition table leaves a disk, or a part of it, to the Logical Disk Manager.
pub(crate) fn is_dynamic(table: &Table) -> bool {
    table.partitions.iter().any(|partition| matches!(partition.kind.role(), Role::LdmData | Role::LdmMetadata))
}

fn read(device: &Arc<dyn Device>, table: &Table) -> Result<(PrivHead, Database)> {
    let head = PrivHead::read(&**device, table)?;
    let database = Database::read(&**device, &head)?;
    Ok((head, database))
}

/// A disk of a group.
struct Disk {
    device: Arc<dyn Device>,
    head: PrivHead,
    /// The number of the last change that it knows of.
    sequence: u64,
}

/// The disks of a group, and the newest copy of its database.
#[derive(Default)]
struct Group {
    disks: Vec<Disk>,
    database: Option<Database>,
}

impl Group {
    fn add(&mut self, device: &Arc<dyn Device>, head: PrivHead, database: Database) {
        self.disks.push(Disk { device: device.clone(), head, sequence: database.sequence });
        // A copy that was being changed counts only when there is no other.
        let rank = |database: &Database| (database.is_committed, database.sequence);
        if self.database.as_ref().is_none_or(|known| rank(known) < rank(&database)) {
            self.database = Some(database);
        }
    }

    fn finish(self, assembly: &mut Assembly) {
        let Some(database) = self.database else { return };
        let objects = match database.objects() {
            Ok(objects) => objects,
            Err(error) => return assembly.problems.push((format!("disk group {}", database.group), error)),
        };
        let sector = self.disks.iter().map(|disk| disk.head.sector).max().unwrap_or(512);
        let mapper = Mapper::new(&database, &objects, &self.disks, sector);
        for volume in &objects.volumes {
            let (device, degraded) = match mapper.volume(volume) {
                Ok((device, degraded)) => (Ok(Arc::new(device) as Arc<dyn Device>), degraded),
                Err(error) => (Err(error), None),
            };
            let kind = VolumeKind::Dynamic {
                group: database.group.clone(),
                name: volume.name.clone(),
                guid: volume.guid,
                letter: volume.hint.clone(),
            };
            let id = format!("ldm/{}/{}", database.group, volume.name);
            let size = volume.size.saturating_mul(sector);
            assembly.volumes.push(Assembled { id, kind, size, device, degraded });
        }
    }
}
