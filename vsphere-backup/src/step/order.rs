//! Which step may follow which, and what is undone from where. Pure: no server, no clock.
//!
//! Three orders are what this table is for; others have cost people their machines' disks:
//! - a change that has to be undone is in the journal before it is made;
//! - the change ids are in a visible point before the snapshot that they belong to goes;
//! - no snapshot is made before pending merges of earlier ones are over.

use crate::journal::{Leftover, SnapshotState};

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
    /// The lock is released.
    Unlocked,
}

impl State {
    /// All states, in order.
    pub const ALL: &'static [Self] = &[
        Self::Idle,
        Self::Begun,
        Self::LockIntended,
        Self::Placed,
        Self::Settled,
        Self::SnapshotIntended,
        Self::SnapshotMade,
        Self::Still,
        Self::Reading,
        Self::Committed,
        Self::Unlocked,
    ];

    /// Returns the state that a successful step leads to; `None` when the step may not be taken here.
    ///
    /// A step that fails leads nowhere: what it may have done is covered by the state that it was taken in.
    pub fn after(self, step: Step) -> Option<Self> {
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
        match self {
            Self::Idle => &[],
            Self::Begun => &[ClearJournal],
            Self::LockIntended | Self::Placed | Self::Settled | Self::Still => &[Unlock, RecordUnlock, ClearJournal],
            Self::SnapshotIntended => ALL,
            // Its task has ended.
            Self::SnapshotMade | Self::Reading | Self::Committed => ALL.split_at(1).1,
            Self::Unlocked => &[RecordUnlock, ClearJournal],
        }
    }

    /// Returns the state in which a journal says that its job is, or was when it ended.
    pub fn of(leftover: Option<&Leftover>) -> Self {
        let Some(leftover) = leftover else { return Self::Idle };
        match &leftover.snapshot {
            SnapshotState::Exists(_) if leftover.committed.is_some() => Self::Committed,
            SnapshotState::Exists(_) => Self::SnapshotMade,
            SnapshotState::Possible => Self::SnapshotIntended,
            SnapshotState::Absent if leftover.lock => Self::Placed,
            SnapshotState::Absent => Self::Begun,
        }
    }
}

/// From, the steps that may be taken there, to.
const TABLE: &[(State, &[Step], State)] = {
    use State::*;
    use Step::*;
    &[
        (Idle, &[ReadMachine, OpenJournal, FindBase, BeginPoint], Idle),
        (Idle, &[BeginJournal], Begun),
        (Begun, &[RecordLock], LockIntended),
        (Begun, &[ClearJournal], Idle),
        (LockIntended, &[Lock], Placed),
        // Servers without locks, and those that refuse it.
        (LockIntended, &[RecordUnlock], Placed),
        (LockIntended, &[Unlock], Unlocked),
        (Placed, &[AwaitTasks, Consolidate], Placed),
        (Placed, &[AskConsolidation], Settled),
        (Placed, &[Unlock], Unlocked),
        (Placed, &[ClearJournal], Idle),
        (Settled, &[AwaitTasks, Consolidate], Placed),
        (Settled, &[AskConsolidation], Settled),
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
        (Reading, &[Flush, RecordProgress, FindSnapshot, RemoveSnapshot], Reading),
        (Reading, &[Unlock, RecordUnlock], Reading),
        (Reading, &[Commit], Committed),
        (Reading, &[RecordRemoval], Placed),
        (Committed, &[RecordCommit, FindSnapshot, RemoveSnapshot, Unlock, RecordUnlock], Committed),
        (Committed, &[RecordRemoval], Placed),
        (Unlocked, &[Unlock, RecordUnlock], Unlocked),
        (Unlocked, &[ClearJournal], Idle),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        journal::{Record, sample_job},
        repository::PointId,
    };

    /// What a step that succeeds writes into the journal.
    fn record(step: Step) -> Option<Record> {
        Some(match step {
            Step::BeginJournal => Record::Begin(sample_job()),
            Step::RecordLock => Record::LockIntent,
            Step::RecordUnlock => Record::LockReleased,
            Step::RecordSnapshot => Record::SnapshotIntent,
            Step::RecordSnapshotId => Record::SnapshotCreated { snapshot: "snapshot-1".into() },
            Step::RecordRemoval => Record::SnapshotRemoved,
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
        journal: Option<(bool, SnapshotState, bool)>,
        lock: bool,
        snapshot: bool,
        /// The change ids of the snapshot are in a visible point, or there was no snapshot read.
        committed: bool,
    }

    impl World {
        fn leftover(&self) -> Option<Leftover> {
            self.journal.clone().map(|(lock, snapshot, committed)| {
                let mut leftover = Leftover::new(sample_job());
                (leftover.lock, leftover.snapshot) = (lock, snapshot);
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
                Step::CreateSnapshot => {
                    self.leftover().is_some_and(|leftover| leftover.snapshot == SnapshotState::Possible)
                }
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
                Step::CreateSnapshot => done.snapshot = true,
                Step::RemoveSnapshot => done.snapshot = false,
                Step::Commit => done.committed = true,
                Step::ClearJournal => done.journal = None,
                _ => {}
            }
            if let Some(record) = record(step) {
                let mut leftover = done.leftover().unwrap_or_else(|| Leftover::new(sample_job()));
                leftover.apply(record);
                done.journal = Some((leftover.lock, leftover.snapshot.clone(), leftover.committed.is_some()));
            }
            let lost = done.clone();
            done.state = to;
            vec![done, lost, self.clone()]
        }
    }

    /// Everything that can be reached from an idle job, by all orders that the table allows.
    fn reachable() -> HashSet<World> {
        let start = World { state: State::Idle, journal: None, lock: false, snapshot: false, committed: false };
        let mut found = HashSet::from([start.clone()]);
        let mut waiting = vec![start];
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
                assert!(!world.snapshot || undo.contains(&Step::RemoveSnapshot), "{world:?} from {state:?}");
                let forgotten = world.lock && !undo.contains(&Step::Unlock);
                // A release whose answer came is written down next.
                assert!(!forgotten, "{world:?} from {state:?}");
            }
        }
        assert!(worlds.iter().any(|world| world.snapshot && world.lock));
    }

    #[test]
    fn undoing_is_a_way_that_the_table_allows_and_ends_idle() {
        for &start in State::ALL {
            let mut state = start;
            for &step in start.undo() {
                state = state.after(step).unwrap_or_else(|| panic!("{step} from {state:?}, undoing {start:?}"));
            }
            assert_eq!(state, State::Idle, "from {start:?}");
        }
    }

    #[test]
    fn a_snapshot_goes_only_after_the_commit_or_without_one() {
        // Reading again after the removal would need another snapshot.
        for &state in State::ALL {
            if let Some(to) = state.after(Step::Commit) {
                assert_eq!((state, to), (State::Reading, State::Committed));
            }
            if state.after(Step::ReadDisk).is_some() {
                assert_eq!(state, State::Reading);
            }
        }
        assert_eq!(State::Placed.after(Step::Commit), None, "the snapshot is gone");
    }

    #[test]
    fn no_snapshot_is_made_while_a_merge_is_pending() {
        for &state in State::ALL {
            if state.after(Step::RecordSnapshot).is_some() {
                assert_eq!(state, State::Settled);
            }
            if state.after(Step::CreateSnapshot).is_some() {
                assert_eq!(state, State::SnapshotIntended);
            }
        }
        assert_eq!(State::Settled.after(Step::Consolidate), Some(State::Placed), "to be asked again");
        assert_eq!(State::Reading.after(Step::RecordRemoval), Some(State::Placed), "to be asked again");
    }

    #[test]
    fn every_step_can_be_taken_somewhere_and_leads_to_one_state() {
        for &step in Step::ALL {
            assert!(State::ALL.iter().any(|state| state.after(step).is_some()), "{step}");
        }
        for (at, (from, steps, _)) in TABLE.iter().enumerate() {
            let again =
                |step: &&Step| TABLE[at + 1..].iter().any(|(other, steps, _)| other == from && steps.contains(*step));
            assert_eq!(steps.iter().find(again), None, "twice from {from:?}");
        }
    }
}
