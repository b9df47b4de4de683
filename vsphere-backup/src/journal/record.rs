//! The records of a journal, and what they add up to. Pure: no file, no clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    repository::{DiskRecord, PointId},
    store::{DiskRef, Token},
};

/// One step of a backup, written before it is taken ("intent") or after it succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Record {
    /// A job begins. Everything that may have to be undone can be found by what is named here.
    Begin(Job),
    /// The migration lock is about to be taken.
    LockIntent,
    /// The migration lock is released, or was never taken.
    LockReleased,
    /// The snapshot is about to be created.
    SnapshotIntent,
    /// The snapshot exists.
    SnapshotCreated {
        /// Its managed object id, such as `snapshot-17`.
        snapshot: String,
    },
    /// The snapshot is removed, or was found not to exist.
    SnapshotRemoved,
    /// A disk of the snapshot is stored up to a place, durably.
    DiskStored(StoredDisk),
    /// A machine is about to be created, for a restore.
    MachineIntent {
        /// The managed object id of the folder that it is created in.
        folder: String,
        /// Its name.
        name: String,
    },
    /// The machine exists.
    MachineCreated {
        /// Its managed object id, such as `vm-43`.
        machine: String,
    },
    /// The machine stays, or does not exist any more: there is nothing to be undone.
    MachineSettled,
    /// A job is about to write into a store of others.
    StoreIntent {
        /// The job.
        job: String,
        /// The store, as [`Sink::id`](crate::store::Sink::id) names it.
        store: String,
    },
    /// Nothing of a job is in its store but in points.
    StoreDiscarded {
        /// The job.
        job: String,
    },
    /// The recovery point is committed.
    Committed {
        /// The point.
        point: PointId,
    },
}

/// Who works on what: the first record of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job's identity, random.
    pub id: String,
    /// The server that the machine is on, as its own instance uuid or address.
    pub server: String,
    /// The machine's `instanceUuid`; of a First Class Disk, [`fcd_vm_id`](crate::fcd_vm_id).
    pub vm: String,
    /// Its managed object id, such as `vm-42`; of a First Class Disk, the disk's id.
    pub vm_ref: String,
    /// The snapshot's name.
    pub snapshot_name: String,
    /// A unique text in the snapshot's description, by which it is found when its id is unknown.
    pub marker: String,
    /// When it began, in seconds since 1970, UTC.
    #[serde(default)]
    pub created: u64,
    /// The repository that it writes to, in hex; or the store of others, as it names itself, behind a word.
    #[serde(default)]
    pub repository: String,
    /// The point whose changes it reads.
    #[serde(default)]
    pub base: Option<PointId>,
}

impl Job {
    /// Tells whether the job is that of a First Class Disk, which has an identity of its own.
    pub fn is_of_first_class_disk(&self) -> bool {
        self.vm.starts_with(FCD_PREFIX)
    }
}

/// What the identities of First Class Disks begin with, and those of machines never.
pub(crate) const FCD_PREFIX: &str = "fcd-";

/// How far a disk of a job is stored. Chunks and pages are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredDisk {
    /// The first byte that is not stored yet; `None` when all of the disk is.
    pub position: Option<u64>,
    /// The disk as it would stand in the point, were this all of it.
    pub record: DiskRecord,
    /// Where it is stored, when that is a store of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<InStore>,
}

/// How far a disk is stored in a store of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InStore {
    /// The store's word of it.
    pub token: Token,
    /// The disk that it was begun with.
    pub parent: Option<DiskRef>,
}

/// What an earlier job left to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// The job.
    pub job: Job,
    /// Whether the migration lock may be held.
    pub lock: bool,
    /// The snapshot.
    pub snapshot: SnapshotState,
    /// The machine that a restore makes.
    pub machine: MachineState,
    /// The recovery point, when it was committed before the job ended.
    pub committed: Option<PointId>,
    /// The disks of which something is stored, by device key. An interrupted job may go on with them.
    pub disks: BTreeMap<i32, StoredDisk>,
    /// Jobs, this one or earlier ones, and the stores of others in which something of them may be that is in no point. It
    /// is nothing that the server has, and kept until it is discarded.
    pub stores: BTreeMap<String, String>,
}

/// What is known of the machine that a restore makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum MachineState {
    /// There is none to be undone.
    #[default]
    Absent,
    /// It may exist; to be looked for by its marker.
    Possible {
        /// The managed object id of the folder that it would be in.
        folder: String,
        /// Its name.
        name: String,
    },
    /// It exists and is not whole, unless someone else removed it.
    Exists {
        /// Its managed object id.
        machine: String,
    },
}

/// What is known of a job's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotState {
    /// There is none.
    Absent,
    /// It may exist; to be looked for by its marker.
    Possible,
    /// It exists, unless someone else removed it.
    Exists(String),
}

impl Leftover {
    pub(crate) fn new(job: Job) -> Self {
        Self {
            job,
            lock: false,
            snapshot: SnapshotState::Absent,
            machine: MachineState::Absent,
            committed: None,
            disks: BTreeMap::new(),
            stores: BTreeMap::new(),
        }
    }

    /// Adds what one more record says.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Begin(job) => *self = Self::new(job),
            Record::LockIntent => self.lock = true,
            Record::LockReleased => self.lock = false,
            Record::SnapshotIntent => self.snapshot = SnapshotState::Possible,
            Record::SnapshotCreated { snapshot } => {
                self.snapshot = SnapshotState::Exists(snapshot);
            }
            // What was read of one snapshot says nothing of another.
            Record::SnapshotRemoved => (self.snapshot, self.disks) = (SnapshotState::Absent, BTreeMap::new()),
            Record::DiskStored(disk) => {
                let key = disk.record.key;
                // A checkpoint that was overtaken by the disk's end comes late.
                if self.disks.get(&key).is_none_or(|stored| stored.position.is_some()) {
                    self.disks.insert(key, disk);
                }
            }
            Record::MachineIntent { folder, name } => self.machine = MachineState::Possible { folder, name },
            Record::MachineCreated { machine } => self.machine = MachineState::Exists { machine },
            Record::MachineSettled => self.machine = MachineState::Absent,
            Record::StoreIntent { job, store } => drop(self.stores.insert(job, store)),
            Record::StoreDiscarded { job } => drop(self.stores.remove(&job)),
            Record::Committed { point } => self.committed = Some(point),
        }
    }

    /// Returns the fewest records that say the same, behind the one that begins the job.
    pub(crate) fn records(&self) -> Vec<Record> {
        let lock = self.lock.then_some(Record::LockIntent);
        let snapshot = match &self.snapshot {
            SnapshotState::Absent => None,
            SnapshotState::Possible => Some(Record::SnapshotIntent),
            SnapshotState::Exists(snapshot) => Some(Record::SnapshotCreated { snapshot: snapshot.clone() }),
        };
        let machine = match self.machine.clone() {
            MachineState::Absent => None,
            MachineState::Possible { folder, name } => Some(Record::MachineIntent { folder, name }),
            MachineState::Exists { machine } => Some(Record::MachineCreated { machine }),
        };
        let disks = self.disks.values().cloned().map(Record::DiskStored);
        let committed = self.committed.clone().map(|point| Record::Committed { point });
        let of_store =
            |(job, store): (&String, &String)| Record::StoreIntent { job: job.clone(), store: store.clone() };
        let stores = self.stores.iter().map(of_store);
        lock.into_iter().chain(snapshot).chain(machine).chain(stores).chain(disks).chain(committed).collect()
    }

    /// Tells whether the server was left as it was found.
    pub fn is_clean(&self) -> bool {
        !self.lock && self.snapshot == SnapshotState::Absent && self.machine == MachineState::Absent
    }
}

#[cfg(test)]
pub(crate) fn sample_job() -> Job {
    Job {
        id: "0123456789abcdef".into(),
        server: "vc.example".into(),
        vm: "5029c440".into(),
        vm_ref: "vm-42".into(),
        snapshot_name: "backup".into(),
        marker: "vsphere-backup job 0123456789abcdef".into(),
        created: 1_700_000_000,
        repository: "00112233445566778899aabbccddeeff".into(),
        base: None,
    }
}

#[cfg(test)]
pub(crate) fn sample_disk() -> StoredDisk {
    use crate::repository::{BackupMode, TreeRoot};
    let record = DiskRecord {
        key: 2000,
        label: "Hard disk 1".into(),
        backing_uuid: Some("6000C29a".into()),
        path: "[ds1] web/web.vmdk".into(),
        capacity: 1 << 30,
        change_id: Some("52 de/9".into()),
        root: TreeRoot::Zero,
        mode: BackupMode::Full,
        reason: String::new(),
        bytes: Default::default(),
        distrust: None,
        metadata: Default::default(),
    };
    StoredDisk { position: Some(1 << 20), record, store: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_alone_has_to_be_undone() {
        let mut state = Leftover::new(sample_job());
        assert!(state.is_clean());
        state.apply(Record::LockIntent);
        assert!(state.lock && !state.is_clean());
        state.apply(Record::SnapshotIntent);
        assert_eq!(state.snapshot, SnapshotState::Possible);
        state.apply(Record::SnapshotCreated { snapshot: "snapshot-1".into() });
        assert_eq!(state.snapshot, SnapshotState::Exists("snapshot-1".into()));
        let mut again = Leftover::new(sample_job());
        state.records().into_iter().for_each(|record| again.apply(record));
        assert_eq!(again, state);
        state.apply(Record::SnapshotRemoved);
        assert!(!state.is_clean());
        state.apply(Record::LockReleased);
        assert!(state.is_clean());
    }
}
