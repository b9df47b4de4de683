//! The steps of a job, numbered and named: first those of a backup, in the order in which it takes them, then what
//! restores, the reaper and First Class Disks take beside them.
//!
//! This list is the only one: events name their step by it, tests inject failures by it, documentation is written from
//! it. [`State`] says which step may follow which, and what has to be undone where a job ends early; every call of a
//! server, a disk, a repository or a journal goes through one seam that holds a job to that order. A [`StepHook`] sits
//! in that seam.
//!
//! ```
//! use vsphere_backup::step::{State, Step};
//!
//! for step in Step::ALL {
//!     println!("{:2} {:16} {}", step.number(), step.name(), step.what());
//! }
//! // A snapshot that may exist is looked for, removed and forgotten, in this order.
//! assert!(State::SnapshotIntended.undo().starts_with(&[Step::AwaitTasks, Step::FindSnapshot, Step::RemoveSnapshot]));
//! ```

mod disk;
mod hook;
mod order;
mod seam;

use std::fmt;

use serde::{Serialize, Serializer};

pub(crate) use self::{disk::SteppedDisk, hook::Hook, seam::Steps};
pub use self::{
    hook::{StepCall, StepHook},
    order::State,
};

/// Where a step does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Side {
    /// On the vSphere server.
    Server,
    /// On a disk, through a transport.
    Disk,
    /// In the repository.
    Repository,
    /// In the local journal.
    Journal,
}

macro_rules! steps {
    ($($(#[doc = $what:literal])+ $name:ident: $side:ident $(, $changes:ident)?;)+) => {
        /// One step of a job.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Step {
            $($(#[doc = $what])+ $name,)+
        }

        impl Step {
            /// All steps, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the step's name, which does not change between releases.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Says what the step does.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what),+).trim_ascii(),)+
                }
            }

            /// Tells where the step does its work.
            pub fn side(self) -> Side {
                match self {
                    $(Self::$name => Side::$side,)+
                }
            }

            /// Tells whether the step changes the server, so that one whose answer is lost may have happened.
            pub fn changes_server(self) -> bool {
                match self {
                    $(Self::$name => false $(|| stringify!($changes) == "changes")?,)+
                }
            }
        }
    };
}

steps! {
    /// Reads the machine's configuration, disks and snapshots.
    ReadMachine: Server;
    /// Opens and locks the machine's journal.
    OpenJournal: Journal;
    /// Finds the recovery point that changes are counted from.
    FindBase: Repository;
    /// Begins a recovery point, which nobody sees yet.
    BeginPoint: Repository;
    /// Writes down who is about to work on what.
    BeginJournal: Journal;
    /// Writes down that the lock is about to be taken.
    RecordLock: Journal;
    /// Locks the machine against migration.
    Lock: Server, changes;
    /// Waits for snapshot and consolidation tasks that run on the machine.
    AwaitTasks: Server;
    /// Asks whether disks of removed snapshots wait to be merged.
    AskConsolidation: Server;
    /// Merges disks of removed snapshots.
    Consolidate: Server, changes;
    /// Writes down that change tracking is about to be enabled, for which a snapshot is made and removed.
    RecordTracking: Journal;
    /// Enables change tracking: reconfigures, makes a snapshot and removes it.
    EnableTracking: Server, changes;
    /// Writes down that the snapshot is about to be made.
    RecordSnapshot: Journal;
    /// Begins to make the snapshot.
    CreateSnapshot: Server, changes;
    /// Waits until the snapshot is made.
    AwaitSnapshot: Server, changes;
    /// Writes down the snapshot's reference.
    RecordSnapshotId: Journal;
    /// Finds the job's snapshot by its marker.
    FindSnapshot: Server;
    /// Reads which disks were restored since the base.
    ReadMarks: Repository;
    /// Reads the machine's configuration as of the snapshot.
    ReadConfig: Server;
    /// Stores the configuration.
    StoreConfig: Repository;
    /// Reads which disks the snapshot holds, and their change ids.
    ReadDisks: Server;
    /// Opens the way to the machine's disks.
    Connect: Server;
    /// Opens a disk.
    OpenDisk: Disk;
    /// Checks that the repository still has all of a disk's earlier state.
    CheckParent: Repository;
    /// Asks which areas of a disk are allocated.
    AskAllocated: Disk;
    /// Asks which areas of a disk changed.
    AskChanges: Server;
    /// Reads a run of a disk.
    ReadDisk: Disk;
    /// Makes durable what was read of a disk.
    Flush: Repository;
    /// Writes down up to where a disk is durable.
    RecordProgress: Journal;
    /// Closes a disk.
    CloseDisk: Disk;
    /// Asks whether a template, of which there is no snapshot, is one and as it was.
    ConfirmTemplate: Server;
    /// Makes the recovery point visible, with the change ids in it.
    Commit: Repository;
    /// Writes down that the point is visible.
    RecordCommit: Journal;
    /// Removes the snapshot and merges its changes.
    RemoveSnapshot: Server, changes;
    /// Writes down that the snapshot is gone.
    RecordRemoval: Journal;
    /// Releases the lock.
    Unlock: Server, changes;
    /// Writes down that the lock is released, or was never taken.
    RecordUnlock: Journal;
    /// Removes the journal of a job that left nothing.
    ClearJournal: Journal;
    /// Reads what a disk says of itself.
    ReadMetadata: Disk;
    /// Holds what a recovery point needs, so that nothing of it is collected.
    HoldPoint: Repository;
    /// Gives the hold on a recovery point back.
    ReleasePoint: Repository;
    /// Asks whether the machine is on.
    AskPower: Server;
    /// Powers the machine off.
    PowerOff: Server, changes;
    /// Removes all snapshots of the machine.
    RemoveAllSnapshots: Server, changes;
    /// Marks disks in the repository as restored.
    MarkRestored: Repository;
    /// Finds the disks that are to be written, by facts.
    MatchDisks: Server;
    /// Writes a run of a disk.
    WriteDisk: Disk;
    /// Powers the machine on.
    PowerOn: Server, changes;
    /// Reads the configuration that a recovery point holds.
    LoadConfig: Repository;
    /// Asks what a new machine needs to know of its server, and whether it is there already.
    DescribeMachine: Server;
    /// Writes down that a machine is about to be created.
    RecordMachine: Journal;
    /// Begins to create the machine.
    CreateMachine: Server, changes;
    /// Waits until the machine is created.
    AwaitMachine: Server, changes;
    /// Writes down the machine's reference.
    RecordMachineId: Journal;
    /// Sets what a disk says of itself.
    WriteMetadata: Disk;
    /// Puts the stored NVRAM beside the machine.
    WriteNvram: Server, changes;
    /// Takes the job's mark off the machine, which is whole.
    Unmark: Server, changes;
    /// Waits for machines that the server still creates for an earlier job.
    AwaitMachines: Server;
    /// Finds the job's machine by its mark.
    FindMachine: Server;
    /// Destroys the machine.
    DestroyMachine: Server, changes;
    /// Writes down that the machine stays, or is gone.
    RecordMachineEnd: Journal;
    /// Writes down that a store of others is about to be written to, or that nothing is left there.
    RecordStore: Journal;
    /// Frees what a job left in a store of others.
    DiscardStored: Repository;
    /// Asks the server for its time.
    AskTime: Server;
    /// Looks for machines and disks with what carries a job's mark.
    FindMarked: Server;
    /// Asks who holds a lock, by asking for the lock.
    ProbeLock: Server, changes;
    /// Removes the snapshot of a First Class Disk.
    RemoveDiskSnapshot: Server, changes;
    /// Marks a disk in the repository as one whose change tracking missed a change.
    NoteDistrust: Repository;
    /// Asks what a First Class Disk is.
    DescribeDisk: Server;
    /// Finds the machine that has a First Class Disk.
    FindDiskMachine: Server;
    /// Enables change tracking of a First Class Disk.
    EnableDiskTracking: Server, changes;
    /// Writes down that the snapshot of a First Class Disk is about to be made.
    RecordDiskSnapshot: Journal;
    /// Makes the snapshot of a First Class Disk.
    CreateDiskSnapshot: Server, changes;
    /// Finds the job's snapshot of a First Class Disk by its marker.
    FindDiskSnapshot: Server;
    /// Reads which bytes the snapshot of a First Class Disk holds, and its change id.
    ReadDiskSnapshot: Server;
}

impl Step {
    /// Returns the step's number; the first is 1.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Finds a step by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    /// Writes number and name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

impl Serialize for Step {
    /// Writes the name.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_number_a_name_and_a_text_of_its_own() {
        for (at, &step) in Step::ALL.iter().enumerate() {
            assert_eq!(step.number(), at + 1);
            assert_eq!(Step::by_name(step.name()), Some(step));
            assert!(step.what().ends_with('.') && !step.what().starts_with(' '), "{step}: {:?}", step.what());
            assert!(!step.changes_server() || step.side() == Side::Server);
        }
        let texts: std::collections::BTreeSet<_> = Step::ALL.iter().map(|step| step.what()).collect();
        assert_eq!(texts.len(), Step::ALL.len());
        assert_eq!(Step::CreateSnapshot.to_string(), "14 CreateSnapshot");
        assert_eq!(Step::by_name("none"), None);
    }
}
