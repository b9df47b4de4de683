//! Which step may follow which, and what is undone from where. Pure: no server, no clock.
//!
//! Four orders are what this table is for; others have cost people their machines' disks:
//! - a change that has to be undone is in the journal before it is made;
//! - the change ids are in a visible point before the snapshot that they belong to goes;
//! - no snapshot is made before pending merges of earlier ones are over;
//! - a disk is written over only when the repository says so already.

use crate::journal::{Leftover, MachineState, SnapshotState};

use super::Step;

/// How far a job is, as far as what it did to the server goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nothing is begun.
    Idle,
    /// The journal names the job.
    Begun,
    /// The lock may be taken.
    LockIntended,
    /// The machine stays where it is, as far as that can be had. There is no snapshot of the job.
    Placed,
    /// No merge is pending.
    Settled,
    /// The snapshot that starts change tracking may exist.
    TrackingIntended,
    /// The snapshot may exist.
    SnapshotIntended,
    /// The snapshot exists and the journal names it.
    SnapshotMade,
    /// The machine is a template: its disks are as they are, and there is no snapshot of the job.
    Still,
    /// Disks are read.
    Reading,
    /// The point is visible.
    Committed,
    /// The snapshot of a First Class Disk may exist.
    DiskSnapshotIntended,
    /// The snapshot of a First Class Disk exists and the journal names it.
    DiskSnapshotMade,
    /// A First Class Disk is read.
    DiskReading,
    /// The point of a First Class Disk is visible.
    DiskCommitted,
    /// The lock is released.
    Unlocked,
    /// The repository says that the machine's disks are restored; nothing is written yet.
    Marked,
    /// The machine's own disks are written.
    Writing,
    /// A new machine may exist.
    MachineIntended,
    /// A new machine exists, is not whole, and the journal names it.
    MachineMade,
    /// What dead jobs left is looked for and removed.
    Reaping,
    /// A disk is restored into a local file; nothing is done to any server.
    Filing,
}

impl State {
    /// All states, in order.
    pub const ALL: &'static [Self] = &[
        Self::Idle,
        Self::Begun,
        Self::LockIntended,
        Self::Placed,
        Self::Settled,
        Self::TrackingIntended,
        Self::SnapshotIntended,
        Self::SnapshotMade,
        Self::Still,
        Self::Reading,
        Self::Committed,
        Self::DiskSnapshotIntended,
        Self::DiskSnapshotMade,
        Self::DiskReading,
        Self::DiskCommitted,
        Self::Unlocked,
        Self::Marked,
        Self::Writing,
        Self::MachineIntended,
        Self::MachineMade,
        Self::Reaping,
        Self::Filing,
    ];

    /// Returns the state that a successful step leads to; `None` when the step may not be taken here.
    ///
    /// A step that fails leads nowhere: what it may have done is covered by the state that it was taken in.
    pub fn after(self, step: Step) -> Option<Self> {
        if ANYWHERE.contains(&step) {
            return Some(self);
        }
        let mut rows = TABLE.iter();
        rows.find(|(from, steps, _)| *from == self && steps.contains(&step)).map(|(_, _, to)| *to)
    }

    /// Returns the steps that lead back from here to a server as it was found, in order.
    ///
    /// A step whose object turns out not to exist is passed over.
    pub fn undo(self) -> &'static [Step] {
        use Step::*;
        const ALL: &[Step] = &[
            AwaitTasks,
            FindSnapshot,
            RemoveSnapshot,
            RecordRemoval,
            AskConsolidation,
            Consolidate,
            Unlock,
            RecordUnlock,
            ClearJournal,
        ];
        const MACHINE: &[Step] =
            &[AwaitMachines, FindMachine, PowerOff, DestroyMachine, RecordMachineEnd, ClearJournal];
        match self {
            Self::Idle | Self::Reaping | Self::Filing => &[],
            Self::Begun => &[ClearJournal],
            Self::LockIntended | Self::Placed | Self::Settled | Self::Still | Self::Marked | Self::Writing => {
                &[Unlock, RecordUnlock, ClearJournal]
            }
            Self::TrackingIntended | Self::SnapshotIntended => ALL,
            // Its task has ended.
            Self::SnapshotMade | Self::Reading | Self::Committed => ALL.split_at(1).1,
            Self::DiskSnapshotIntended | Self::DiskSnapshotMade | Self::DiskReading | Self::DiskCommitted => {
                &[FindDiskSnapshot, RemoveDiskSnapshot, RecordRemoval, ClearJournal]
            }
            Self::Unlocked => &[RecordUnlock, ClearJournal],
            Self::MachineIntended => MACHINE,
            Self::MachineMade => MACHINE.split_at(1).1,
        }
    }

    /// Returns the state in which a journal says that its job is, or was when it ended.
    pub fn of(leftover: Option<&Leftover>) -> Self {
        let Some(leftover) = leftover else { return Self::Idle };
        let is_of_disk = leftover.job.is_of_first_class_disk();
        match (&leftover.machine, &leftover.snapshot) {
            // A job that makes a machine touches no other.
            (MachineState::Possible { .. }, _) => Self::MachineIntended,
            (MachineState::Exists { .. }, _) => Self::MachineMade,
            (_, SnapshotState::Exists(_)) if is_of_disk && leftover.committed.is_some() => Self::DiskCommitted,
            (_, SnapshotState::Exists(_)) if is_of_disk => Self::DiskSnapshotMade,
            (_, SnapshotState::Possible) if is_of_disk => Self::DiskSnapshotIntended,
            (_, SnapshotState::Exists(_)) if leftover.committed.is_some() => Self::Committed,
            (_, SnapshotState::Exists(_)) => Self::SnapshotMade,
            (_, SnapshotState::Possible) => Self::SnapshotIntended,
            (_, SnapshotState::Absent) if leftover.lock => Self::Placed,
            (_, SnapshotState::Absent) => Self::Begun,
        }
    }
}

/// What may be done whatever else could not be undone, and leads nowhere.
const ANYWHERE: &[Step] = &[Step::PowerOn, Step::ReleasePoint, Step::RecordStore, Step::DiscardStored];

/// From, the steps that may be taken there, to.
const TABLE: &[(State, &[Step], State)] = {
    use State::*;
    use Step::*;
    &[
        (Idle, &[ReadMachine, OpenJournal, FindBase, BeginPoint], Idle),
        // Of restores: until the first byte is written, a machine may be left as it is.
        (Idle, &[HoldPoint, LoadConfig, DescribeMachine, AskPower, PowerOff, RemoveAllSnapshots, Connect], Idle),
        // Of First Class Disks: tracking stays enabled.
        (Idle, &[DescribeDisk, FindDiskMachine, EnableDiskTracking], Idle),
        (Idle, &[BeginJournal], Begun),
        (Idle, &[MarkRestored], Marked),
        (Begun, &[RecordLock], LockIntended),
        (Begun, &[ClearJournal], Idle),
        (LockIntended, &[Lock], Placed),
        // Servers without locks, and those that refuse it.
        (LockIntended, &[RecordUnlock], Placed),
        (LockIntended, &[Unlock], Unlocked),
        (Placed, &[AwaitTasks, Consolidate], Placed),
        (Placed, &[AskConsolidation], Settled),
        (Placed, &[ReadMarks, Connect], Placed),
        (Placed, &[MarkRestored], Marked),
        (Placed, &[Unlock], Unlocked),
        (Placed, &[ClearJournal], Idle),
        (Settled, &[AwaitTasks, Consolidate], Placed),
        (Settled, &[AskConsolidation], Settled),
        (Settled, &[RecordTracking], TrackingIntended),
        // The snapshot of it is made and removed again; where that was cut short, it is looked for.
        (TrackingIntended, &[EnableTracking, AwaitTasks, FindSnapshot, RemoveSnapshot], TrackingIntended),
        (TrackingIntended, &[Unlock, RecordUnlock], TrackingIntended),
        (TrackingIntended, &[RecordRemoval], Placed),
        (Settled, &[Connect], Settled),
        (Settled, &[MarkRestored], Marked),
        (Settled, &[RecordSnapshot], SnapshotIntended),
        (Settled, &[Unlock], Unlocked),
        (Settled, &[ClearJournal], Idle),
        (
            SnapshotIntended,
            &[CreateSnapshot, AwaitSnapshot, AwaitTasks, FindSnapshot, RemoveSnapshot],
            SnapshotIntended,
        ),
        // A machine whose snapshot cannot be removed need not stay locked.
        (SnapshotIntended, &[Unlock, RecordUnlock], SnapshotIntended),
        (SnapshotIntended, &[RecordSnapshotId], SnapshotMade),
        (SnapshotIntended, &[RecordRemoval], Placed),
        (SnapshotMade, &[FindSnapshot, ReadMarks, ReadConfig, StoreConfig, ReadDisks, RemoveSnapshot], SnapshotMade),
        // A job that is resumed.
        (SnapshotMade, &[FindBase, BeginPoint, RecordLock, Lock, Unlock, RecordUnlock], SnapshotMade),
        // A restore that asks what changed.
        (SnapshotMade, &[AskChanges], SnapshotMade),
        (SnapshotMade, &[Connect], Reading),
        (SnapshotMade, &[RecordRemoval], Placed),
        // A template has no snapshot: it is asked before and after whether its disks stood still.
        (Placed, &[ConfirmTemplate], Still),
        (Still, &[ReadMarks, ReadConfig, StoreConfig], Still),
        (Still, &[Connect], Reading),
        (Still, &[Unlock], Unlocked),
        (Still, &[ClearJournal], Idle),
        (Reading, &[ConfirmTemplate], Reading),
        (Reading, &[OpenDisk, CheckParent, AskAllocated, AskChanges, ReadDisk, CloseDisk], Reading),
        (Reading, &[ReadMetadata, NoteDistrust, Flush, RecordProgress, FindSnapshot, RemoveSnapshot], Reading),
        (Reading, &[Unlock, RecordUnlock], Reading),
        (Reading, &[Commit], Committed),
        (Reading, &[RecordRemoval], Placed),
        (Committed, &[RecordCommit, FindSnapshot, RemoveSnapshot, Unlock, RecordUnlock], Committed),
        (Committed, &[RecordRemoval], Placed),
        // A First Class Disk has no lock, and is merged before the removal of its snapshot is over.
        (Begun, &[RecordDiskSnapshot], DiskSnapshotIntended),
        (DiskSnapshotIntended, &[CreateDiskSnapshot, FindDiskSnapshot, RemoveDiskSnapshot], DiskSnapshotIntended),
        (DiskSnapshotIntended, &[RecordSnapshotId], DiskSnapshotMade),
        (DiskSnapshotIntended, &[RecordRemoval], Begun),
        (DiskSnapshotMade, &[ReadDiskSnapshot, DescribeDisk, ReadMarks, StoreConfig], DiskSnapshotMade),
        (DiskSnapshotMade, &[FindDiskSnapshot, RemoveDiskSnapshot], DiskSnapshotMade),
        (DiskSnapshotMade, &[Connect], DiskReading),
        (DiskSnapshotMade, &[RecordRemoval], Begun),
        (DiskReading, &[OpenDisk, CheckParent, AskChanges, ReadDisk, CloseDisk], DiskReading),
        (DiskReading, &[FindDiskSnapshot, RemoveDiskSnapshot], DiskReading),
        (DiskReading, &[Commit], DiskCommitted),
        (DiskReading, &[RecordRemoval], Begun),
        (DiskCommitted, &[RecordCommit, FindDiskSnapshot, RemoveDiskSnapshot], DiskCommitted),
        (DiskCommitted, &[RecordRemoval], Begun),
        (Unlocked, &[Unlock, RecordUnlock], Unlocked),
        (Unlocked, &[ClearJournal], Idle),
        // The mark comes first, then a look at what is to be written over: a backup that snapshots the machine later
        // reads the mark, and one that did so before is seen.
        (Marked, &[MatchDisks], Writing),
        (Marked, &[Unlock], Unlocked),
        (Marked, &[ClearJournal], Idle),
        (Writing, &[OpenDisk, AskAllocated, ReadDisk, WriteDisk, CloseDisk], Writing),
        // Once more, when all is written.
        (Writing, &[MarkRestored], Marked),
        (Writing, &[Unlock], Unlocked),
        (Writing, &[ClearJournal], Idle),
        (Begun, &[RecordMachine], MachineIntended),
        (
            MachineIntended,
            &[CreateMachine, AwaitMachine, AwaitMachines, FindMachine, PowerOff, DestroyMachine],
            MachineIntended,
        ),
        (MachineIntended, &[RecordMachineId], MachineMade),
        (MachineIntended, &[RecordMachineEnd], Begun),
        (MachineMade, &[ReadDisks, Connect, OpenDisk, WriteMetadata, WriteDisk, ReadDisk, CloseDisk], MachineMade),
        (MachineMade, &[WriteNvram, Unmark, FindMachine, PowerOff, DestroyMachine], MachineMade),
        (MachineMade, &[RecordMachineEnd], Begun),
        (Reaping, &[AskTime, FindMarked, ProbeLock, FindSnapshot, RemoveSnapshot], Reaping),
        (Reaping, &[RemoveAllSnapshots, RemoveDiskSnapshot, Unlock], Reaping),
        (Idle, &[OpenDisk], Filing),
        (Filing, &[ReadDisk, WriteDisk, CloseDisk], Filing),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        journal::{FCD_PREFIX, Job, Record, sample_job},
        repository::PointId,
    };

    /// What a step that succeeds writes into the journal.
    fn record(step: Step) -> Option<Record> {
        Some(match step {
            Step::RecordLock => Record::LockIntent,
            Step::RecordUnlock => Record::LockReleased,
            Step::RecordTracking | Step::RecordSnapshot | Step::RecordDiskSnapshot => Record::SnapshotIntent,
            Step::RecordSnapshotId => Record::SnapshotCreated { snapshot: "snapshot-1".into() },
            Step::RecordRemoval => Record::SnapshotRemoved,
            Step::RecordMachine => Record::MachineIntent { folder: "group-v3".into(), name: "web".into() },
            Step::RecordMachineId => Record::MachineCreated { machine: "vm-43".into() },
            Step::RecordMachineEnd => Record::MachineSettled,
            Step::RecordCommit => Record::Committed {
                point: PointId::parse("5029c440/20261122T120000.000000Z-0123456789abcdef").unwrap(),
            },
            _ => return None,
        })
    }

    /// A job, its journal and the server, as far as they matter here.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct World {
        state: State,
        /// The job is that of a First Class Disk.
        of_disk: bool,
        journal: Option<(bool, SnapshotState, bool, MachineState)>,
        lock: bool,
        snapshot: bool,
        /// There is a machine that is not whole.
        machine: bool,
        /// The change ids of the snapshot are in a visible point, or there was no snapshot read.
        committed: bool,
    }

    impl World {
        fn idle(of_disk: bool) -> Self {
            let (lock, snapshot, machine, committed) = Default::default();
            Self { state: State::Idle, of_disk, journal: None, lock, snapshot, machine, committed }
        }

        fn job(&self) -> Job {
            let mut job = sample_job();
            if self.of_disk {
                job.vm.insert_str(0, FCD_PREFIX);
            }
            job
        }

        fn leftover(&self) -> Option<Leftover> {
            self.journal.clone().map(|(lock, snapshot, committed, machine)| {
                let mut leftover = Leftover::new(self.job());
                (leftover.lock, leftover.snapshot, leftover.machine) = (lock, snapshot, machine);
                if committed {
                    leftover.apply(record(Step::RecordCommit).unwrap());
                }
                leftover
            })
        }

        /// What the code in `guard` promises beside the order: nothing is made that the journal does not say, nothing
        /// is forgotten that is there.
        fn is_kept(&self, step: Step) -> bool {
            match step {
                Step::Lock => self.leftover().is_some_and(|leftover| leftover.lock),
                Step::EnableTracking | Step::CreateSnapshot | Step::CreateDiskSnapshot => {
                    self.leftover().is_some_and(|leftover| leftover.snapshot == SnapshotState::Possible)
                }
                Step::CreateMachine => {
                    self.leftover().is_some_and(|leftover| matches!(leftover.machine, MachineState::Possible { .. }))
                }
                Step::RecordDiskSnapshot => self.of_disk,
                // A job of a disk does nothing to machines, and one that makes a machine touches no other.
                Step::RecordLock => {
                    !self.of_disk
                        && self.leftover().is_none_or(|leftover| matches!(leftover.machine, MachineState::Absent))
                }
                Step::RecordMachine => !self.of_disk && self.leftover().is_none_or(|leftover| !leftover.lock),
                Step::AwaitMachine | Step::RecordMachineId => self.machine,
                Step::RecordMachineEnd => !self.machine,
                Step::RecordRemoval => !self.snapshot,
                Step::RecordUnlock => !self.lock,
                Step::ClearJournal => self.leftover().is_none_or(|leftover| leftover.is_clean()),
                // There is something to wait for, and something to name.
                Step::AwaitSnapshot | Step::RecordSnapshotId => self.snapshot,
                _ => true,
            }
        }

        /// The worlds that a step may leave behind when it succeeds, fails, or loses its answer.
        fn outcomes(&self, step: Step) -> Vec<Self> {
            let Some(to) = self.state.after(step) else { return Vec::new() };
            if !self.is_kept(step) {
                return Vec::new();
            }
            let mut done = self.clone();
            match step {
                Step::Lock => done.lock = true,
                Step::Unlock => done.lock = false,
                Step::CreateSnapshot | Step::CreateDiskSnapshot => done.snapshot = true,
                Step::RemoveSnapshot | Step::RemoveDiskSnapshot => done.snapshot = false,
                Step::CreateMachine => done.machine = true,
                Step::DestroyMachine | Step::Unmark => done.machine = false,
                Step::Commit => done.committed = true,
                Step::ClearJournal => done.journal = None,
                _ => {}
            }
            let record = match step {
                Step::BeginJournal => Some(Record::Begin(self.job())),
                _ => record(step),
            };
            if let Some(record) = record {
                let mut leftover = done.leftover().unwrap_or_else(|| Leftover::new(self.job()));
                leftover.apply(record);
                let Leftover { lock, snapshot, committed, machine, .. } = leftover;
                done.journal = Some((lock, snapshot, committed.is_some(), machine));
            }
            let mut lost = done.clone();
            // It makes a snapshot and removes it, and may have come to the half.
            lost.snapshot |= step == Step::EnableTracking;
            done.state = to;
            vec![done, lost, self.clone()]
        }
    }

    /// Everything that can be reached from idle jobs, by all orders that the table allows.
    fn reachable() -> HashSet<World> {
        let mut waiting = vec![World::idle(false), World::idle(true)];
        let mut found: HashSet<_> = waiting.iter().cloned().collect();
        while let Some(world) = waiting.pop() {
            for next in Step::ALL.iter().flat_map(|&step| world.outcomes(step)) {
                if found.insert(next.clone()) {
                    waiting.push(next);
                }
            }
        }
        found
    }

    #[test]
    fn whatever_is_on_the_server_is_undone_from_every_state_and_from_every_journal() {
        let worlds = reachable();
        assert!(worlds.len() > 30, "{}", worlds.len());
        for world in &worlds {
            // The same process undoes from its state, the next one from the journal.
            for state in [world.state, State::of(world.leftover().as_ref())] {
                let undo = state.undo();
                let remove = if world.of_disk { Step::RemoveDiskSnapshot } else { Step::RemoveSnapshot };
                assert!(!world.snapshot || undo.contains(&remove), "{world:?} from {state:?}");
                assert!(!world.machine || undo.contains(&Step::DestroyMachine), "{world:?} from {state:?}");
                let forgotten = world.lock && !undo.contains(&Step::Unlock);
                // A release whose answer came is written down next.
                assert!(!forgotten, "{world:?} from {state:?}");
            }
        }
        assert!(worlds.iter().any(|world| world.snapshot && world.lock));
        assert!(worlds.iter().any(|world| world.snapshot && world.of_disk && world.committed));
        assert!(worlds.iter().any(|world| world.machine));
    }

    #[test]
    fn undoing_is_a_way_that_the_table_allows_and_ends_idle() {
        for &start in State::ALL {
            let mut state = start;
            for &step in start.undo() {
                state = state.after(step).unwrap_or_else(|| panic!("{step} from {state:?}, undoing {start:?}"));
            }
            // The reaper has no journal, and files no server: nothing to undo.
            let stays = [State::Reaping, State::Filing].contains(&start);
            assert_eq!(state, if stays { start } else { State::Idle }, "from {start:?}");
        }
    }

    #[test]
    fn a_snapshot_goes_only_after_the_commit_or_without_one() {
        // Reading again after the removal would need another snapshot.
        for &state in State::ALL {
            if let Some(to) = state.after(Step::Commit) {
                let commits = [(State::Reading, State::Committed), (State::DiskReading, State::DiskCommitted)];
                assert!(commits.contains(&(state, to)), "{state:?}");
            }
            if let Some(to) = state.after(Step::OpenDisk) {
                let held = [State::Reading, State::DiskReading, State::Writing, State::MachineMade].contains(&state);
                assert!(held || (state, to) == (State::Idle, State::Filing), "{state:?}");
            }
        }
        assert_eq!(State::Placed.after(Step::Commit), None, "the snapshot is gone");
    }

    #[test]
    fn no_disk_is_written_before_it_is_marked_as_restored_and_looked_at_once_more() {
        for &state in State::ALL {
            for (step, to) in [(Step::MatchDisks, State::Writing), (Step::MarkRestored, State::Marked)] {
                assert!(state.after(step).is_none_or(|after| after == to), "{step} from {state:?}");
            }
            assert!(state.after(Step::MatchDisks).is_none() || state == State::Marked, "{state:?}");
            let writes = [State::Writing, State::MachineMade, State::Filing];
            assert!(state.after(Step::WriteDisk).is_none() || writes.contains(&state));
        }
    }

    #[test]
    fn no_snapshot_is_made_while_a_merge_is_pending() {
        for &state in State::ALL {
            if state.after(Step::RecordSnapshot).is_some() {
                assert_eq!(state, State::Settled);
            }
            if state.after(Step::RecordTracking).is_some() {
                assert_eq!(state, State::Settled);
            }
            if state.after(Step::CreateSnapshot).is_some() {
                assert_eq!(state, State::SnapshotIntended);
            }
            if state.after(Step::CreateDiskSnapshot).is_some() {
                assert_eq!(state, State::DiskSnapshotIntended);
            }
        }
        assert_eq!(State::Settled.after(Step::Consolidate), Some(State::Placed), "to be asked again");
        assert_eq!(State::Reading.after(Step::RecordRemoval), Some(State::Placed), "to be asked again");
    }

    #[test]
    fn every_step_can_be_taken_somewhere_and_leads_to_one_state() {
        for &step in Step::ALL {
            assert!(State::ALL.iter().any(|state| state.after(step).is_some()), "{step}");
            let row = TABLE.iter().any(|(_, steps, _)| steps.contains(&step));
            assert_ne!(row, ANYWHERE.contains(&step), "{step}");
        }
        for (at, (from, steps, _)) in TABLE.iter().enumerate() {
            let again =
                |step: &&Step| TABLE[at + 1..].iter().any(|(other, steps, _)| other == from && steps.contains(*step));
            assert_eq!(steps.iter().find(again), None, "twice from {from:?}");
        }
    }
}
