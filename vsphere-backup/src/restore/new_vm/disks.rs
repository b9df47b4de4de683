//! The new machine's disks: found again, described, filled.

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, ConnectionOptions};
use vsphere_vim::{
    MoRef, VirtualDiskInfo,
    config_spec::ConvertedConfig,
    device::DeviceKey,
    mo,
    types::{VirtualDeviceConfigSpecFileOperation, VirtualMachineConfigInfo},
};

use super::{Maker, NewVm, VmIdentity};
use crate::{
    engine::Budget,
    error::Result,
    repository::{DiskRecord, storage::BoxFuture},
    restore::{Restore, RestoredDiskReport, transfer::Work},
    server::{connect, failed},
    step::Step,
};

/// Tells whether a description makes a new, empty disk of that stored one.
pub(super) fn is_created(converted: &ConvertedConfig, key: DeviceKey) -> bool {
    let Some(new) = converted.keys.get(&key) else { return false };
    converted.spec.device_change.iter().any(|change| {
        change.device.key == new.0 && change.file_operation == Some(VirtualDeviceConfigSpecFileOperation::Create)
    })
}

impl Restore {
    /// Fills the new machine's disks.
    pub(super) async fn fill(
        &self,
        maker: &Maker<'_>,
        vm: &MoRef<mo::VirtualMachine>,
        place: &NewVm,
        records: &[DiskRecord],
        config: &VirtualMachineConfigInfo,
        notes: &mut Vec<String>,
    ) -> Result<Vec<RestoredDiskReport>> {
        let (vim, steps) = (maker.vim(), maker.steps());
        let old = VirtualDiskInfo::all_of(&config.hardware.device);
        let wrong = || failed("reading the disks", vm.value());
        let new = steps.take(Step::ReadDisks, || async { vim.disks(vm).await.map_err(wrong()) }).await?;
        let mut pairs = Vec::new();
        for record in records {
            let disk = self.counterpart(record, &old, &new)?;
            pairs.push((record, disk.backing.file_name.clone().unwrap_or_default()));
        }
        let connect = || connect(vim, vm, Access::ReadWrite, &self.transports, ConnectionOptions::new());
        let connection = steps.take(Step::Connect, connect).await?;
        let budget = Budget::new(self.memory);
        let work = Work { steps, connection: &connection, budget: &budget };
        let keep_ids = place.identity == VmIdentity::Original;
        let fill = |(record, path)| Box::pin(self.fill_remote(work, record, path, keep_ids)) as BoxFuture<'_, _>;
        let jobs: Vec<_> = pairs.into_iter().map(fill).collect();
        let filled: Vec<_> = stream::iter(jobs).buffered(self.parallel_disks).try_collect().await?;
        let mut reports = Vec::new();
        for (report, told) in filled {
            reports.push(report);
            notes.extend(told);
        }
        Ok(reports)
    }

    /// Finds the disk that was created for a stored one: by its place on its controller, for servers give keys of
    /// their own.
    fn counterpart<'a>(
        &self,
        record: &DiskRecord,
        old: &[VirtualDiskInfo],
        new: &'a [VirtualDiskInfo],
    ) -> Result<&'a VirtualDiskInfo> {
        let key = record.key;
        let lost = |reason: String| self.refused(reason, None);
        let stored = old.iter().find(|disk| disk.key.0 == key);
        let stored = stored.ok_or_else(|| lost(format!("its configuration has no disk {key}")))?;
        let mut found = new.iter().filter(|disk| slot(disk).is_some() && slot(disk) == slot(stored));
        let disk = match (found.next(), found.next()) {
            (Some(disk), None) => disk,
            _ => return Err(lost(format!("the disk that was created for disk {key} cannot be told from the others"))),
        };
        if disk.capacity < record.capacity {
            let reason =
                format!("disk {key} was created with {} bytes, the point's has {}", disk.capacity, record.capacity);
            return Err(lost(reason));
        }
        Ok(disk)
    }
}

/// A disk's place: what it is plugged into, the number of that, and the place on it.
fn slot(disk: &VirtualDiskInfo) -> Option<(&str, i32, i32)> {
    let controller = disk.controller.as_ref()?;
    Some((&controller.kind, controller.bus_number, disk.unit_number?))
}
