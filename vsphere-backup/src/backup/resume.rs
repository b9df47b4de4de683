//! Whether an interrupted backup goes on where it was. The decision is pure.
//!
//! It goes on with the snapshot that it had, so that what is stored of its disks and what is still to be read are of one
//! moment. Everything else that matters must be as it was: the repository, the base, the disks; and the repository must
//! still have what the journal says is stored.

use std::{fmt, time::Duration};

use vsphere_vim::{VirtualDiskInfo, vm::Snapshot};

use crate::{
    engine::{Checkpoint, Trust},
    error::Result,
    journal::{Leftover, SnapshotState, StoredDisk},
    repository::{BackupMode, Fallback, Repository, VmId, now},
};

use super::{Backup, guard::Guard, machine::Machine, plan::Decision, tracking::Choice};

/// An interrupted job that goes on.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    pub(super) leftover: Leftover,
    pub(super) snapshot: Snapshot,
    /// The ways to quiesce the guest that the snapshot falls short of, and why.
    pub(super) fallbacks: Vec<Fallback>,
}

/// A backup as it would be now, to be compared with the one that was interrupted.
#[derive(Clone, Copy, Debug)]
struct Now<'a> {
    /// Seconds since 1970, UTC.
    time: u64,
    within: Duration,
    /// As [`Job::repository`](crate::journal::Job::repository) has it.
    repository: &'a str,
}

impl Backup {
    /// Returns the interrupted job that this one is to go on with, if there is one. An error here is met again, and
    /// told, when that job is undone instead.
    pub(super) async fn resumable(
        &self,
        guard: &Guard,
        machine: &Machine,
        repository: &Repository,
        vm: &VmId,
    ) -> Option<Resume> {
        let same_base = async |leftover: &Leftover| {
            let base = self.find_base(guard.steps(), repository, vm).await?;
            let same = leftover.job.base.as_ref() == base.as_ref().map(|base| base.id());
            Ok(if same { Ok(()) } else { Err("it read the changes since another point") })
        };
        self.resumable_where(guard, machine, &repository.id().to_string(), same_base).await
    }

    /// The same for any place to write to, given what else must be as it was there.
    pub(super) async fn resumable_where(
        &self,
        guard: &Guard,
        machine: &Machine,
        place: &str,
        fits: impl AsyncFnOnce(&Leftover) -> Result<Result<(), &'static str>>,
    ) -> Option<Resume> {
        let leftover = guard.leftover().filter(|leftover| !leftover.is_clean())?;
        let refuse = |why: &dyn fmt::Display| {
            tracing::info!(job = leftover.job.id, %why, "an interrupted backup is not resumed");
            None
        };
        let then = Now { time: now(), within: self.resume_within, repository: place };
        if let Err(why) = may_resume(&leftover, then) {
            return refuse(&why);
        }
        match fits(&leftover).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return refuse(&why),
            Err(error) => return refuse(&error),
        }
        match guard.find_snapshot(&leftover).await {
            Ok(Some(snapshot)) => {
                let chain = self.quiesce.chain(&machine.details);
                match chain.accept(0, &snapshot) {
                    Ok(short) => {
                        let fallbacks = [chain.skipped, short].concat();
                        Some(Resume { leftover, snapshot, fallbacks })
                    }
                    Err(why) => refuse(&why),
                }
            }
            Ok(None) => refuse(&"its snapshot is gone"),
            Err(error) => refuse(&error),
        }
    }
}

impl Resume {
    /// Returns what is stored of a disk of the snapshot, when that is the same disk in the same state.
    pub(super) fn stored(&self, disk: &VirtualDiskInfo) -> Option<&StoredDisk> {
        let stored = self.leftover.disks.get(&disk.key.0)?;
        let record = &stored.record;
        let same = record.capacity == disk.capacity
            && record.backing_uuid == disk.backing.uuid
            && record.change_id == disk.backing.change_id
            && stored.position.is_none_or(|position| position <= disk.capacity);
        same.then_some(stored)
    }
}

/// Returns where the reading of a disk goes on; `None` when all of it is stored.
pub(super) fn checkpoint(stored: &StoredDisk) -> Option<Checkpoint> {
    let StoredDisk { position, record, .. } = stored;
    position.map(|position| Checkpoint { position, root: record.root, bytes: record.bytes })
}

/// Tells whether a disk that was read in a way may be gone on with, given how it would be read now: one that was read
/// in full had its reason, whatever is known now; changes must be readable still, and compared with all else where
/// nothing is believed.
pub(super) fn fits(stored: &StoredDisk, choice: &Choice) -> bool {
    let StoredDisk { position, record, .. } = stored;
    match (record.mode, &choice.decision) {
        (BackupMode::Full, _) => true,
        (_, Decision::Full { .. }) => false,
        (_, Decision::Incremental { .. }) if choice.trust == Trust::VerifyAll => {
            let bytes = record.bytes;
            bytes.read + bytes.audited + bytes.unallocated >= position.unwrap_or(record.capacity)
        }
        (_, Decision::Incremental { .. }) => true,
    }
}

/// Tells whether a job may go on, as far as that can be told from its journal, or why not.
fn may_resume(leftover: &Leftover, now: Now<'_>) -> Result<(), &'static str> {
    let job = &leftover.job;
    if now.within.is_zero() {
        return Err("that is switched off");
    }
    if leftover.committed.is_some() {
        return Err("its point is visible");
    }
    if !matches!(leftover.snapshot, SnapshotState::Exists(_)) {
        return Err("it had no snapshot");
    }
    if leftover.disks.is_empty() {
        return Err("nothing of its disks is stored");
    }
    // A clock that was put back tells nothing about the age.
    let age = now.time.checked_sub(job.created);
    if age.is_none_or(|age| age > now.within.as_secs()) {
        return Err("it is too old");
    }
    if job.repository != now.repository {
        return Err("it wrote to another repository");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Record, sample_disk, sample_job};
    use crate::repository::PointId;

    fn leftover(records: impl IntoIterator<Item = Record>) -> Leftover {
        let mut leftover = Leftover::new(sample_job());
        records.into_iter().for_each(|record| leftover.apply(record));
        leftover
    }

    fn made() -> Record {
        Record::SnapshotCreated { snapshot: "snapshot-1".into() }
    }

    fn stored() -> Record {
        Record::DiskStored(sample_disk())
    }

    #[test]
    fn a_job_goes_on_only_when_nothing_that_matters_is_another() {
        let job = sample_job();
        let repository = &*job.repository;
        let created = sample_job().created;
        let now = Now { time: created + 60, within: Duration::from_secs(3600), repository };
        let good = leftover([made(), stored()]);
        assert_eq!(may_resume(&good, now), Ok(()));

        let point = PointId::parse("5029c440/20261122T120000.000000Z-0123456789abcdef").unwrap();
        let other = "ff112233445566778899aabbccddeeff";
        let cases = [
            (good.clone(), Now { within: Duration::ZERO, ..now }, "switched off"),
            (good.clone(), Now { time: created + 3601, ..now }, "old"),
            (good.clone(), Now { time: created - 1, ..now }, "old"),
            (good.clone(), Now { repository: other, ..now }, "repository"),
            (leftover([made()]), now, "nothing"),
            (leftover([Record::SnapshotIntent, stored()]), now, "no snapshot"),
            (leftover([made(), stored(), Record::SnapshotRemoved]), now, "no snapshot"),
            (leftover([made(), stored(), Record::Committed { point: point.clone() }]), now, "visible"),
        ];
        for (leftover, now, why) in cases {
            assert!(may_resume(&leftover, now).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn what_was_read_as_changes_is_gone_on_with_only_as_changes() {
        let mut disk = sample_disk();
        let choice = |decision, trust| Choice { decision, trust, distrust: None };
        let since = "52 de/7".parse().unwrap();
        let incremental = choice(Decision::Incremental { since, warning: None }, Trust::Trust);
        let full = choice(Decision::full("a reason"), Trust::Trust);
        assert!(fits(&disk, &full) && fits(&disk, &incremental));
        disk.record.mode = BackupMode::Incremental;
        assert!(fits(&disk, &incremental) && !fits(&disk, &full));
        // What is not believed at all was compared from the first byte on, or is.
        let wary = Choice { trust: Trust::VerifyAll, ..incremental };
        (disk.record.bytes.read, disk.record.bytes.audited) = (1 << 19, (1 << 19) - 1);
        assert!(!fits(&disk, &wary));
        disk.record.bytes.audited += 1;
        assert!(fits(&disk, &wary));
        assert_eq!(checkpoint(&disk).unwrap().position, 1 << 20);
        disk.position = None;
        assert!(checkpoint(&disk).is_none(), "there is nothing more to read");
    }
}
