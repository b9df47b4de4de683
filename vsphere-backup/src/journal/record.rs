//! The records of a journal, and what they add up to. Pure: no file, no clock.

use serde::{Deserialize, Serialize};

use crate::repository::PointId;

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
    /// The machine's `instanceUuid`.
    pub vm: String,
    /// Its managed object id, such as `vm-42`.
    pub vm_ref: String,
    /// The snapshot's name.
    pub snapshot_name: String,
    /// A unique text in the snapshot's description, by which it is found when its id is unknown.
    pub marker: String,
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
    /// The recovery point, when it was committed before the job ended.
    pub committed: Option<PointId>,
}

/// What is known of a job's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        Self { job, lock: false, snapshot: SnapshotState::Absent, committed: None }
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
            Record::SnapshotRemoved => self.snapshot = SnapshotState::Absent,
            Record::Committed { point } => self.committed = Some(point),
        }
    }

    /// Tells whether the server was left as it was found.
    pub fn is_clean(&self) -> bool {
        !self.lock && self.snapshot == SnapshotState::Absent
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
        marker: "marker-1".into(),
    }
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
        state.apply(Record::SnapshotRemoved);
        assert!(!state.is_clean());
        state.apply(Record::LockReleased);
        assert!(state.is_clean());
    }
}
