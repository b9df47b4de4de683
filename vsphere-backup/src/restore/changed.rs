//! What changed on a machine's disks since the point, by change tracking: asked of a snapshot that lives for the
//! question only.

use std::{collections::BTreeMap, ops::Range, path::Path};

use futures_util::TryStreamExt;
use vsphere_cbt::{AreaQuery, Since, changed_areas};
use vsphere_vim::{CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, Vim, VirtualDiskInfo, mo};

use super::{Restore, blocking};
use crate::{
    backup::plan::{self, Decision},
    error::Result,
    event::Event,
    journal::{Job, Journal, Record, marker},
    repository::DiskRecord,
    server::{self, failed},
};

/// By device key, the areas outside of which a disk is as in the point. Disks of which that cannot be told are not here.
pub(super) type ChangedAreas = BTreeMap<i32, Vec<Range<u64>>>;

impl Restore {
    /// Asks change tracking what changed since the point. The machine is off, and stays so.
    ///
    /// # Errors
    /// [`Error::JournalInUse`] while a backup of the machine runs; [`Error::Refused`] when an earlier one left something
    /// to be undone; [`Error::Server`] when the snapshot cannot be made or removed. That the changes of a disk cannot be
    /// told is no error.
    pub(super) async fn changed_areas(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        folder: &Path,
        records: &[DiskRecord],
    ) -> Result<ChangedAreas> {
        let point = &self.point;
        let restored = match point.repository().restored_since(point.id()).await {
            Ok(restored) => restored,
            Err(error) if error.is_damage() => {
                self.events.warn(format!("all disks are compared, a mark of a restore is damaged: {error}"));
                return Ok(ChangedAreas::new());
            }
            Err(error) => return Err(error),
        };
        // What the probe could tell nothing about needs no probe.
        if records.iter().all(|record| record.change_id.is_none() || restored.contains(&record.key)) {
            return Ok(ChangedAreas::new());
        }
        let (place, id) = (folder.to_owned(), point.manifest().vm.instance_uuid.clone());
        let mut journal = blocking(move || Journal::open(&place, &id)).await?;
        if journal.leftover().is_some_and(|left| !left.is_clean()) {
            let hint = "Backup::clean_up undoes it, and so does the next backup";
            return Err(self.refused("an earlier job left something on it that has to be undone first", Some(hint)));
        }
        let job = self.new_job(vim, vm.value())?;
        let begun = job.clone();
        journal = blocking(move || {
            journal.begin(begun)?;
            journal.append(Record::SnapshotIntent)?;
            Ok(journal)
        })
        .await?;
        let options = CreateSnapshotOptions::new(&job.snapshot_name).description(&job.marker);
        // Not cancelled half-way: a task that was given up may make one later.
        let made = vim.create_snapshot(vm, options).await;
        let snapshot = match made {
            Ok(snapshot) => snapshot,
            Err(error) => {
                // The server's word that there is none. Without an answer it stays in the journal, to be looked for.
                if error.server_fault().is_some() {
                    blocking(move || {
                        journal.append(Record::SnapshotRemoved)?;
                        journal.clear()
                    })
                    .await?;
                }
                return Err(failed("the snapshot", vm.value())(error));
            }
        };
        self.events.send(Event::SnapshotCreated { snapshot: snapshot.value().to_owned() });
        let named = Record::SnapshotCreated { snapshot: snapshot.value().to_owned() };
        let mut journal = blocking(move || journal.append(named).map(|()| journal)).await?;

        let asked = self.ask(vim, vm, &snapshot, records, &restored).await;
        let gone = vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await;
        gone.map_err(failed("removing the snapshot", vm.value()))?;
        self.events.send(Event::SnapshotRemoved);
        blocking(move || {
            journal.append(Record::SnapshotRemoved)?;
            journal.clear()
        })
        .await?;
        asked
    }

    async fn ask(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        records: &[DiskRecord],
        restored: &std::collections::BTreeSet<i32>,
    ) -> Result<ChangedAreas> {
        let wrong = failed("reading the snapshot's disks", vm.value());
        let disks = vim.snapshot_disks(snapshot).await.map_err(wrong)?;
        let mut found = ChangedAreas::new();
        for record in records {
            let Some(disk) = disks.iter().find(|disk| disk.key.0 == record.key) else { continue };
            let told = self.cancel.run(self.ask_disk(vim, vm, snapshot, record, disk, restored)).await?;
            match told {
                Ok(areas) => drop(found.insert(record.key, areas)),
                Err(reason) => {
                    self.events.warn(format!("disk {} is compared as a whole: {reason}", record.key));
                }
            }
        }
        Ok(found)
    }

    /// Returns a disk's changed areas, or why they cannot be told.
    async fn ask_disk(
        &self,
        vim: &Vim,
        vm: &MoRef<mo::VirtualMachine>,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        record: &DiskRecord,
        disk: &VirtualDiskInfo,
        restored: &std::collections::BTreeSet<i32>,
    ) -> Result<Result<Vec<Range<u64>>, String>> {
        // The same doubts as for an incremental backup: what may not be left unread may not be left unwritten.
        let since = match plan::decide(disk, Some(record), restored.contains(&record.key)) {
            Decision::Incremental { since, .. } => since,
            Decision::Full { reason } => return Ok(Err(reason)),
        };
        let query = AreaQuery::new(vm.clone(), snapshot.clone(), disk.key, Since::Change(&since), disk.capacity);
        let areas = changed_areas(vim, query).map_err(server::cbt_error).try_collect::<Vec<Range<u64>>>().await;
        Ok(areas.map_err(|error| format!("its changes could not be told: {error}")))
    }

    /// Names a job for a journal.
    pub(super) fn new_job(&self, vim: &Vim, vm_ref: &str) -> Result<Job> {
        let id: [u8; 8] = crate::repository::random()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Job {
            server: server::server_name(vim),
            vm: self.point.manifest().vm.instance_uuid.to_string(),
            vm_ref: vm_ref.to_owned(),
            snapshot_name: "vsphere-backup restore".into(),
            marker: marker::of(&id),
            created: crate::repository::now(),
            // No backup goes on with what a restore made.
            repository: String::new(),
            base: None,
            id,
        })
    }
}
