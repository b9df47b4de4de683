//! Into the machine's own disks.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use vixdisklib::{Access, Connection, ConnectionOptions};
use vsphere_vim::{MoRef, PowerState, Vim, VirtualDiskInfo, mo, vm::VmDetails};

use super::{
    Restore, RestoreReport, RestoredDiskReport, changed::ChangedAreas, last_look, resume::Positions, transfer::Work,
};
use crate::{
    backup::guard::{Guard, Limits, Ward},
    engine::{Budget, RestoreMode},
    error::{Error, Result, in_one_line},
    event::Event,
    journal::{Abandoned, Job},
    repository::{DiskRecord, storage::BoxFuture},
    server::{self, connect},
    step::{Step, Steps},
};

/// What is known when the first byte is written.
struct Prepared {
    connection: Connection,
    /// With the paths to open.
    disks: Vec<(DiskRecord, String)>,
    changed: ChangedAreas,
}

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
        let work = |cancel, journal: Arc<Abandoned>| async move {
            Self { cancel, ..self }.in_place(&vim, &vm, &journal).await
        };
        caller.outlive_journaled(work).await
    }

    async fn in_place(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        abandoned: &Abandoned,
    ) -> Result<RestoreReport> {
        let begun = Instant::now();
        let steps = self.steps(vm.value());
        let job = self.new_job(vim, vm.value())?;
        let disks = self.holding(&steps, &job, self.guarded(&steps, vim, vm, &job, abandoned)).await?;
        Ok(RestoreReport { disks, elapsed: begun.elapsed() })
    }

    /// Everything while the point is held.
    async fn guarded(
        &self,
        steps: &Steps,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        job: &Job,
        abandoned: &Abandoned,
    ) -> Result<Vec<RestoredDiskReport>> {
        let guard = self.guard(steps, vim, vm).await?;
        if let Some(guard) = &guard {
            abandoned.note(guard.journal());
            guard.recover().await?;
        }
        let was_on = self.power_down(steps, vim, vm).await?;
        let restored = self.overwrite_all(steps, vim, vm, job, guard.as_ref()).await;
        if let Some(guard) = &guard {
            // What stays was told, and is in the journal.
            guard.undo().await;
        }
        // Before anything was written it goes on as it was. Half restored it must not run.
        let untouched = matches!(&restored, Err((_, false)));
        if was_on && (restored.is_ok() || untouched) {
            if let Err(error) = self.power_up(&steps.undoing(), vim, vm).await {
                let what = format!("{vm} could not be powered on again: {}", in_one_line(&error));
                self.events.warn(what);
            }
        } else if was_on {
            self.events.warn(format!("{vm} stays off: its disks are restored in part; run the restore again"));
        }
        restored.map_err(|(error, _)| error)
    }

    /// Holds the machine, when there is a folder for journals.
    async fn guard(&self, steps: &Steps, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<Option<Guard>> {
        let Some(journals) = &self.journal else { return Ok(None) };
        let id = &self.point.manifest().vm.instance_uuid;
        let (events, cancel, limits) = (&self.events, &self.cancel, Limits::default());
        Guard::open(Ward { vim, vm, id, journals, events, cancel, steps, limits }).await.map(Some)
    }

    /// Writes the disks of a machine that is off. An error tells whether something may be written.
    async fn overwrite_all(
        &self,
        steps: &Steps,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        job: &Job,
        guard: Option<&Guard>,
    ) -> Result<Vec<RestoredDiskReport>, (Error, bool)> {
        let prepared = self.prepare(steps, vim, vm, job, guard).await.map_err(|error| (error, false))?;
        let Prepared { connection, disks, changed } = prepared;
        let keys = disks.iter().map(|(record, _)| record.key).collect();
        let budget = Budget::new(self.memory);
        let positions = Positions::open(self, server::server_name(vim), vm.value());
        let (work, positions) = (Work { steps, connection: &connection, budget: &budget }, &positions);
        let jobs: Vec<BoxFuture<'_, _>> = disks
            .into_iter()
            .map(|(record, path)| {
                let areas = changed.get(&record.key).cloned();
                Box::pin(async move { self.overwrite_remote(work, &record, path, areas, positions).await })
                    as BoxFuture<'_, _>
            })
            .collect();
        let restored = stream::iter(jobs).buffered(self.parallel_disks).try_collect().await;
        let restored = match (restored, self.mark_again(steps, vim, vm, keys).await) {
            (Ok(restored), Ok(())) => Ok(restored),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        };
        if restored.is_ok() {
            positions.clear();
        }
        restored.map_err(|error| (error, true))
    }

    /// Marks the disks as restored and looks at the machine: a backup that snapshots it from now on reads the mark, and
    /// one that did so before is seen here.
    async fn mark(
        &self,
        steps: &Steps,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        keys: BTreeSet<i32>,
    ) -> Result<VmDetails> {
        let mark = self.point.repository().note_restore(self.point.id(), keys);
        steps.once(Step::MarkRestored, mark).await?;
        look(Step::MatchDisks, steps, vim, vm).await
    }

    /// Marks the disks once more, now that nothing more is written, and looks at the machine once more: where no journal
    /// keeps them out, a backup may have snapshotted it between two disks, and the first mark is older than its point.
    async fn mark_again(
        &self,
        steps: &Steps,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        keys: BTreeSet<i32>,
    ) -> Result<()> {
        let steps = steps.undoing();
        match last_look(self.mark(&steps, vim, vm, keys)).await {
            Ok(details) if details.snapshots.is_empty() => Ok(()),
            Ok(details) => Err(Error::Refused {
                vm: details.identity.to_string(),
                reason: "it was snapshotted while its disks were written".into(),
                hint: Some("remove its snapshots and run the restore again".into()),
            }),
            // What is written is right; only what others did meanwhile is not known.
            Err(error) => {
                self.events.warn(format!("{vm} was not looked at after the restore: {}", in_one_line(&error)));
                Ok(())
            }
        }
    }

    /// Everything before the first byte is written.
    async fn prepare(
        &self,
        steps: &Steps,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        job: &Job,
        guard: Option<&Guard>,
    ) -> Result<Prepared> {
        let mut details = look(Step::ReadMachine, steps, vim, vm).await?;
        if self.remove_snapshots && !details.snapshots.is_empty() && details.power_state == PowerState::Off {
            let wrong = || server::failed("removing the snapshots", vm.value());
            let remove = || async { vim.remove_all_snapshots(vm, true).await.map_err(wrong()) };
            steps.take(Step::RemoveAllSnapshots, remove).await?;
            self.events.send(Event::SnapshotRemoved);
            details = look(Step::ReadMachine, steps, vim, vm).await?;
        }
        let disks = self.match_disks(&details)?;
        let records: Vec<DiskRecord> = disks.iter().map(|(record, _)| record.clone()).collect();
        let asks = self.change_tracking && self.mode == RestoreMode::OnlyDifferences;
        let changed = match guard {
            None if asks => return Err(Error::invalid("asking change tracking needs a journal: Restore::journal")),
            None => ChangedAreas::new(),
            Some(guard) => {
                guard.begin(job.clone()).await?;
                guard.lock(job).await?;
                match asks {
                    true => self.changed_areas(vim, &details, guard, job, &records).await?,
                    false => ChangedAreas::new(),
                }
            }
        };
        let connect = || connect(vim, vm, Access::ReadWrite, &self.transports, ConnectionOptions::new());
        let connection = steps.take(Step::Connect, connect).await?;
        self.cancel.check()?;
        let keys = records.iter().map(|record| record.key).collect();
        let disks = self.match_disks(&self.mark(steps, vim, vm, keys).await?)?;
        Ok(Prepared { connection, disks, changed })
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

/// Reads what the machine is now.
async fn look(step: Step, steps: &Steps, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<VmDetails> {
    let wrong = || server::failed("reading the configuration", vm.value());
    steps.take(step, || async { vim.vm_details(vm).await.map_err(wrong()) }).await
}
