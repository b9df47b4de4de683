//! What a job is doing, as a tree of tasks: the job, its sets and machines, and for each machine its snapshot, the transfers of
//! its disks, verification and clean-up.
//!
//! Every task begins once and ends once, after its parent began and before its parent ends. States (begun, phase,
//! warning, ended) are never lost; progress is merged, so that a slow consumer gets the newest. Totals say how sure they
//! are.
//!
//! ```
//! use std::time::Duration;
//! use vsphere_backup::task::{Outcome, TaskChange, TaskKind, Tasks};
//!
//! let tasks = Tasks::new();
//! let job = tasks.begin(None, TaskKind::Job { name: "nightly".into() });
//! tasks.end(job, Outcome::Done);
//! ```

mod feed;
mod machine;
mod sink;
mod tree;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::ErrorKind, repository::BackupMode};

pub(crate) use self::machine::MachineTasks;
pub use self::{feed::TaskEvents, sink::Tasks};

/// The identity of a task within a tree; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum TaskKind {
    /// A job of several machines.
    Job {
        /// Its name.
        name: String,
    },
    /// The backup of several machines as one set.
    Set {
        /// Its name.
        name: String,
    },
    /// The backup of one machine.
    Machine {
        /// Its managed object id, such as `vm-42`.
        vm: String,
        /// Its name.
        name: String,
    },
    /// A snapshot of the machine, for as long as it exists.
    Snapshot {
        /// Its managed object id.
        snapshot: String,
    },
    /// The transfer of one disk.
    Disk {
        /// The device key.
        disk: i32,
        /// The label.
        label: String,
        /// In bytes.
        capacity: u64,
        /// All of it or the changes; `None` for a restore.
        mode: Option<BackupMode>,
        /// Why.
        reason: String,
        /// How the bytes travel.
        transport: String,
    },
    /// The new recovery point is read and checked.
    Verify,
    /// What an earlier job left, or this one did, is undone.
    CleanUp,
    /// Old recovery points are removed.
    Retention,
}

/// How many bytes a task will have read at its end, and how sure that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Total {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Estimated: from what was read of the part behind, or from the parts that have begun.
    Estimated(u64),
    /// Known.
    Known(u64),
}

impl Total {
    /// Returns the number of bytes, if there is one.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Estimated(bytes) | Self::Known(bytes) => Some(bytes),
        }
    }

    /// Adds up; a sum is as sure as its least sure part.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => Self::Known(one.saturating_add(other)),
            (one, other) => match (one.bytes(), other.bytes()) {
                (Some(one), Some(other)) => Self::Estimated(one.saturating_add(other)),
                _ => Self::Unknown,
            },
        }
    }
}

/// The figures of a task with all tasks below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Figures {
    /// Bytes read so far.
    pub read: u64,
    /// Bytes stored or written so far.
    pub written: u64,
    /// Bytes that will have been read at the end.
    pub total: Total,
    /// Bytes read a second, of late.
    pub rate: u64,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it was to do.
    Done,
    /// It failed.
    Failed {
        /// The error in one line.
        message: String,
        /// Whose fault it is.
        kind: ErrorKind,
    },
    /// It was stopped, or its parent ended.
    Cancelled,
    /// It was not begun, for a reason.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// Something that happened to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskEvent {
    /// The task.
    pub task: TaskId,
    /// The task that it is part of.
    pub parent: Option<TaskId>,
    /// What happened.
    pub change: TaskChange,
}

/// What happened to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TaskChange {
    /// It began.
    Begun(TaskKind),
    /// It came to another part of its work.
    Phase(String),
    /// It goes on. The newest counts; older ones are dropped where a consumer is slow.
    Progress(Figures),
    /// Something is not as it should be, and the task goes on.
    Warning(String),
    /// It ended.
    Ended(Outcome),
}
