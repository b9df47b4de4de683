//! Which disks of a machine are read, and which stay out of its point.

use vsphere_vim::{
    VirtualDiskInfo,
    vm::{Snapshot, VmDetails},
};

use super::{
    Backup,
    condition::{Condition, Finding},
    flow::refused,
    machine::{self, Machine},
    plan,
};
use crate::{
    error::Result,
    event::Event,
    repository::LeftOut,
    server,
    step::{Step, Steps},
};

impl Backup {
    /// Returns the disks that stay out, as [`left_out`](Self::left_out) does.
    ///
    /// # Errors
    /// When no other is left.
    pub(super) fn left_out_of_some(&self, machine: &Machine) -> Result<Vec<LeftOut>> {
        let left_out = self.left_out(machine);
        if machine.details.disks.len() == left_out.len() {
            let finding = Finding::machine(Condition::NoDisks, "");
            return Err(refused(&machine.details, &finding.reason(), finding.advice()));
        }
        Ok(left_out)
    }

    /// Returns the disks that are known before the snapshot to stay out of it, and tells of them.
    pub(super) fn left_out(&self, machine: &Machine) -> Vec<LeftOut> {
        let left_out = self.left_out_of(machine);
        for LeftOut { key, label, reason } in &left_out {
            self.events.send(Event::DiskLeftOut { disk: *key, label: label.clone(), reason: reason.clone() });
        }
        left_out
    }

    pub(super) fn left_out_of(&self, machine: &Machine) -> Vec<LeftOut> {
        let why = |disk: &VirtualDiskInfo| match self.excluded.contains(&disk.key.0) {
            true => Some(plan::excluded().to_owned()),
            false => machine::obstacle(disk).map(|obstacle| obstacle.text()),
        };
        machine.details.disks.iter().filter_map(|disk| Some(plan::left_out(disk, why(disk)?))).collect()
    }

    /// Returns the disks that are to be read: the snapshot's, or a template's.
    pub(super) async fn disks(
        &self,
        steps: &Steps,
        details: &VmDetails,
        snapshot: Option<&Snapshot>,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Vec<VirtualDiskInfo>> {
        let Some(snapshot) = snapshot else { return Ok(template_disks(details, left_out)) };
        let wrong = || server::failed("reading the snapshot's disks", self.vm.value());
        let read = || async { self.vim.snapshot_disks(&snapshot.snapshot).await.map_err(wrong()) };
        let mut disks = steps.take(Step::ReadDisks, read).await?;
        let known: Vec<i32> = left_out.iter().map(|left| left.key).collect();
        let stays = |key: i32| !known.contains(&key);
        disks.retain(|disk| stays(disk.key.0));
        let mut leave_out = |disk: &VirtualDiskInfo, reason: String| {
            let (disk_key, label) = (disk.key.0, disk.label.clone());
            self.events.send(Event::DiskLeftOut { disk: disk_key, label, reason: reason.clone() });
            left_out.push(plan::left_out(disk, reason));
        };
        for disk in &details.disks {
            if !disks.iter().any(|held| held.key == disk.key) && stays(disk.key.0) {
                leave_out(disk, "the snapshot does not hold it".into());
            }
        }
        // Attached or changed since the machine was read: the snapshot names it, and does not hold it still.
        disks.retain(|disk| match machine::obstacle(disk) {
            Some(obstacle) => {
                leave_out(disk, obstacle.text());
                false
            }
            None => true,
        });
        if disks.is_empty() {
            return Err(refused(details, "its snapshot holds none of the disks that are to be backed up", None));
        }
        Ok(disks)
    }
}

/// Returns a template's disks that are to be read. There is no snapshot of which changes could be asked.
fn template_disks(details: &VmDetails, left_out: &[LeftOut]) -> Vec<VirtualDiskInfo> {
    let mut disks = details.disks.clone();
    disks.retain(|disk| left_out.iter().all(|left| left.key != disk.key.0));
    for disk in &mut disks {
        disk.backing.change_id = None;
    }
    disks
}
