//! Into the machine's own disks.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, Connection};
use vsphere_vim::{MoRef, PowerState, Vim, VirtualDiskInfo, mo, vm::VmDetails};

use super::{Restore, RestoreReport, RestoredDiskReport, changed::ChangedAreas, resume::Positions};
use crate::{
    engine::{Budget, RestoreMode},
    error::{Error, Result},
    event::Event,
    repository::{DiskRecord, storage::BoxFuture},
    server,
};

impl Restore {
    /// Restores in place, into the machine's own disks.
    ///
    /// The machine has to be off, or to be powered off by the [`power`](Self::power) policy: it is powered on again when
    /// its disks are whole. It has to be without snapshots, or they are [removed](Self::remove_snapshots). A disk is found by its device key and the
    /// backing's uuid; it may be larger than the stored one, never smaller.
    ///
    /// The repository notes the restore before anything is written, so that the next backup of these disks reads all
    /// of them: whether change tracking sees a restore is up to the server. Only this repository knows: when the
    /// machine is backed up to another one too, its next backup there has to be one
    /// [since nothing](crate::Since::Nothing).
    ///
    /// # Errors
    /// [`Error::Refused`] before anything is written when the machine or a disk does not fit;
    /// [`Error::DamagedChunk`], [`Error::DamagedPage`], [`Error::Storage`], [`Error::Disk`],
    /// [`Error::Server`], [`Error::Cancelled`]; [`Error::Damaged`] when a disk that was read back
    /// is not equal.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.DiskRandomAccess` on the machine.
    ///
    /// # Cancel safety
    /// When dropped, the job is cancelled and ends in the background, on the runtime. Any part of the disks may be
    /// written; run it again: with the same [`journal`](Self::journal) folder, what was written is compared by hashes, and
    /// only the rest written.
    pub async fn to_vm(self, vim: &Vim, vm: MoRef<mo::VirtualMachine>) -> Result<RestoreReport> {
        let (vim, caller) = (vim.clone(), self.cancel.clone());
        let work = |cancel| async move { Self { cancel, ..self }.in_place(&vim, &vm).await };
        caller.outlive(work).await
    }

    async fn in_place(&self, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<RestoreReport> {
        let begun = Instant::now();
        let pin = self.hold().await?;
        let was_on = self.power_down(vim, vm).await?;
        let restored = self.overwrite_all(vim, vm).await;
        // Before anything was written it goes on as it was. Half restored it must not run.
        let untouched = matches!(&restored, Err((_, false)));
        if was_on && (restored.is_ok() || untouched) {
            self.power_up(vim, vm).await;
        } else if was_on {
            self.events.warn(format!("{vm} stays off: its disks are restored in part; run the restore again"));
        }
        if let Some(pin) = pin {
            pin.release().await;
        }
        let disks = restored.map_err(|(error, _)| error)?;
        Ok(RestoreReport { disks, elapsed: begun.elapsed() })
    }

    /// Writes the disks of a machine that is off. An error tells whether something may be written.
    async fn overwrite_all(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
    ) -> Result<Vec<RestoredDiskReport>, (Error, bool)> {
        let (ready, changed) = self.prepare(vim, vm).await.map_err(|error| (error, false))?;
        let (connection, disks) = ready;
        let budget = Budget::new(self.memory);
        let positions = Positions::open(self, server::server_name(vim), vm.value());
        let (connection, positions, budget) = (&connection, &positions, &budget);
        let jobs: Vec<BoxFuture<'_, _>> = disks
            .into_iter()
            .map(|(record, path)| {
                let areas = changed.get(&record.key).cloned();
                Box::pin(
                    async move { self.overwrite_remote(connection, &record, path, areas, positions, budget).await },
                ) as BoxFuture<'_, _>
            })
            .collect();
        let restored = stream::iter(jobs).buffered(self.parallel_disks).try_collect().await;
        if restored.is_ok() {
            positions.clear();
        }
        restored.map_err(|error| (error, true))
    }

    /// Everything before the first byte is written.
    async fn prepare(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
    ) -> Result<((Connection, Vec<(DiskRecord, String)>), ChangedAreas)> {
        let wrong = || server::failed("reading the configuration", vm.value());
        let mut details = vim.vm_details(vm).await.map_err(wrong())?;
        if self.remove_snapshots && !details.snapshots.is_empty() && details.power_state == PowerState::Off {
            let removed = vim.remove_all_snapshots(vm, true).await;
            removed.map_err(server::failed("removing the snapshots", vm.value()))?;
            self.events.send(Event::SnapshotRemoved);
            details = vim.vm_details(vm).await.map_err(wrong())?;
        }
        let disks = self.match_disks(&details)?;
        let records: Vec<DiskRecord> = disks.iter().map(|(record, _)| record.clone()).collect();
        let changed = match (self.change_tracking && self.mode == RestoreMode::OnlyDifferences, &self.journal) {
            (false, _) => ChangedAreas::new(),
            (true, None) => {
                return Err(Error::invalid("asking change tracking needs a journal: Restore::journal"));
            }
            (true, Some(folder)) => self.changed_areas(vim, vm, folder, &records).await?,
        };
        let connection = Connection::connect(vim, vm, Access::ReadWrite, &self.transports);
        let connection = connection.await.map_err(|error| Error::Server {
            operation: "connecting to the disks",
            vm: vm.value().to_owned(),
            source: server::disk_error(error),
        })?;
        self.cancel.check()?;
        let keys = records.iter().map(|record| record.key).collect();
        self.point.repository().note_restore(self.point.id(), keys).await?;
        // Again, now that the mark is there: a backup that snapshots the machine from now on reads the mark, and one
        // that did so before is seen here.
        let disks = self.match_disks(&vim.vm_details(vm).await.map_err(wrong())?)?;
        Ok(((connection, disks), changed))
    }

    /// Finds for each disk of the point the one of the machine, by nothing but facts; returns the
    /// paths to open.
    fn match_disks(&self, details: &VmDetails) -> Result<Vec<(DiskRecord, String)>> {
        let refused = |reason: String, hint: Option<&str>| Error::Refused {
            vm: details.identity.to_string(),
            reason,
            hint: hint.map(str::to_owned),
        };
        if details.power_state != PowerState::Off {
            let reason = format!("it is {}", details.power_state);
            return Err(refused(reason, Some("power it off first, or let Restore::power do that")));
        }
        if !details.snapshots.is_empty() {
            let hint = "remove its snapshots first; those of a backup that crashed go when the \
                        next one runs, or by Backup::clean_up; Restore::remove_snapshots removes all of them";
            return Err(refused("it has snapshots".into(), Some(hint)));
        }
        let vm = &self.point.manifest().vm.instance_uuid;
        let same = details.identity.instance_uuid.as_ref();
        if !same.is_some_and(|uuid| uuid.eq_ignore_ascii_case(vm.as_str())) {
            return Err(refused(format!("it is not the machine {vm} of the point"), None));
        }
        let find = |record: &DiskRecord| -> Result<String, String> {
            let found = details.disks.iter().find(|disk| disk.key.0 == record.key);
            let disk: &VirtualDiskInfo = found.ok_or_else(|| format!("it has no disk {}", record.key))?;
            if let (Some(then), Some(now)) = (&record.backing_uuid, &disk.backing.uuid)
                && !then.eq_ignore_ascii_case(now)
            {
                return Err(format!("another disk is attached as disk {}", record.key));
            }
            if record.backing_uuid.is_some() != disk.backing.uuid.is_some() {
                return Err(format!("it cannot be told whether its disk {} is the one of the point", record.key));
            }
            if disk.capacity < record.capacity {
                return Err(format!(
                    "its disk {} has {} bytes, the point's {}",
                    record.key, disk.capacity, record.capacity
                ));
            }
            let path = disk.backing.file_name.clone().filter(|path| !path.is_empty());
            path.ok_or_else(|| format!("its disk {} has no file", record.key))
        };
        self.wanted()?
            .into_iter()
            .map(|record| {
                let path = find(&record).map_err(|reason| refused(reason, None))?;
                Ok((record, path))
            })
            .collect()
    }
}
