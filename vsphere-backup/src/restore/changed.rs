//! What changed on a machine's disks since the point, by change tracking: asked of a snapshot that lives for the
//! question only.

use std::{collections::BTreeMap, ops::Range, pin::pin};

use futures_util::TryStreamExt;
use vsphere_cbt::{AreaQuery, Since, changed_areas};
use vsphere_vim::{MoRef, Vim, VirtualDiskInfo, mo, vm::VmDetails};

use super::Restore;
use crate::{
    backup::{
        QuiescePolicy,
        guard::Guard,
        plan::Decision,
        tracking::{Choice, HostVersion, Tracking},
    },
    engine::Trust,
    error::{Error, Result},
    journal::{Job, marker},
    repository::{DiskRecord, restored::Marked},
    server::{self, failed},
    step::{Step, Steps},
};

/// By device key, the areas outside of which a disk is as in the point. Disks of which that cannot be told are not here.
pub(super) type ChangedAreas = BTreeMap<i32, Vec<Range<u64>>>;

/// What speaks against believing change tracking, beside the disks themselves.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    marked: &'a Marked,
    host: Option<HostVersion>,
}

impl Restore {
    /// Asks change tracking what changed since the point. The machine is off and held, and stays so.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) when something is in the way of a snapshot;
    /// [`Error::Server`](crate::Error::Server) when it cannot be made or removed. That the changes of a disk cannot be
    /// told is no error.
    pub(super) async fn changed_areas(
        &self,
        vim: &Vim,
        details: &VmDetails,
        guard: &Guard,
        job: &Job,
        records: &[DiskRecord],
    ) -> Result<ChangedAreas> {
        let point = &self.point;
        let marked = match guard.steps().once(Step::ReadMarks, point.repository().marked_since(point.id())).await {
            Ok(marked) => marked,
            Err(error) if error.is_damage() => {
                self.events.warn(format!("all disks are compared, a mark of a restore is damaged: {error}"));
                return Ok(ChangedAreas::new());
            }
            // It was deleted meanwhile, and marks perhaps with it.
            Err(Error::PointNotFound { .. }) => return Ok(ChangedAreas::new()),
            Err(error) => return Err(error),
        };
        // What the probe could tell nothing about needs no probe.
        if records.iter().all(|record| record.change_id.is_none() || marked.restored.contains(&record.key)) {
            return Ok(ChangedAreas::new());
        }
        let policy = QuiescePolicy::default();
        let (snapshot, _) = guard.snapshot(job, policy.chain(details)).await?;
        let asked = self.ask(guard.steps(), vim, details, &snapshot.snapshot, records, &marked).await;
        guard.undoing().remove_snapshot().await?;
        asked
    }

    async fn ask(
        &self,
        steps: &Steps,
        vim: &Vim,
        details: &VmDetails,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        records: &[DiskRecord],
        marked: &Marked,
    ) -> Result<ChangedAreas> {
        let vm = &details.identity.moref;
        let wrong = || failed("reading the snapshot's disks", vm.value());
        let read = || async {
            let disks = vim.snapshot_disks(snapshot).await.map_err(wrong())?;
            Ok((disks, HostVersion::of(vim, details.host.as_ref()).await))
        };
        let (disks, host) = steps.take(Step::ReadDisks, read).await?;
        let known = Known { marked, host };
        let mut found = ChangedAreas::new();
        for record in records {
            let Some(disk) = disks.iter().find(|disk| disk.key.0 == record.key) else { continue };
            let told = steps.once(Step::AskChanges, self.ask_disk(vim, vm, snapshot, record, disk, known)).await?;
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
        Known { marked, host }: Known<'_>,
    ) -> Result<Result<Vec<Range<u64>>, String>> {
        // The same doubts as for an incremental backup: what may not be left unread may not be left unwritten.
        let tracking = Tracking {
            host,
            base: Some(record),
            newest: None,
            restored: marked.restored.contains(&record.key),
            found_wrong: marked.distrusted.get(&record.key).map(String::as_str),
            enabled_now: false,
            trust: Trust::Trust,
        };
        let since = match tracking.choose(disk) {
            Choice { distrust: Some(found), .. } => {
                return Ok(Err(format!("its change tracking is not believed: {found}")));
            }
            Choice { decision: Decision::Incremental { since, .. }, .. } => since,
            Choice { decision: Decision::Full { reason }, .. } => return Ok(Err(reason)),
        };
        let query = AreaQuery::new(vm.clone(), snapshot.clone(), disk.key, Since::Change(&since), disk.capacity);
        let mut asked = pin!(changed_areas(vim, query).map_err(server::cbt_error));
        let mut areas = Vec::new();
        loop {
            match asked.try_next().await {
                Ok(None) => return Ok(Ok(areas)),
                Ok(Some(_)) if areas.len() == MAX_AREAS => {
                    return Ok(Err(format!("it changed at more than {MAX_AREAS} places")));
                }
                Ok(Some(area)) => areas.push(area),
                Err(error) => return Ok(Err(format!("its changes could not be told: {error}"))),
            }
        }
    }

    /// Names a job for a journal.
    pub(super) fn new_job(&self, vim: &Vim, vm_ref: &str) -> Result<Job> {
        let id = crate::repository::random_name()?;
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

/// The most areas that are kept in memory for a disk, 16 MiB of them.
const MAX_AREAS: usize = 1 << 20;
