//! What there is to be tried: groups of one flow in one state, and the faults in each.

use vsphere_backup::{FCD_KEY, repository::storage, step::Step};

use crate::trip::How;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Backup,
    /// A backup that goes on with an interrupted one.
    Resume,
    /// A restore in place, by change tracking.
    InPlace,
    NewVm,
    Reap,
    /// A backup of a First Class Disk.
    Fcd,
    /// A restore of a First Class Disk in place.
    FcdInPlace,
    /// The removal of what a dead backup of a First Class Disk left.
    FcdReap,
    /// Retention and the collection of garbage.
    Prune,
    Check,
}

/// The state of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    On,
    Off,
    Suspended,
    Template,
    /// With a snapshot of somebody else.
    Snapshots,
    /// Disks of removed snapshots wait to be merged.
    Unmerged,
}

/// The state of change tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    Off,
    /// On, and there is no point yet.
    First,
    /// On, and there is a point.
    Incremental,
    /// Begun anew since the last point.
    Reset,
    /// The disk has grown since the last point.
    Resized,
}

impl Flow {
    /// Tells whether it makes a point.
    pub(crate) fn backs_up(self) -> bool {
        matches!(self, Self::Backup | Self::Resume | Self::Fcd)
    }

    /// Tells whether it is about a First Class Disk.
    pub(crate) fn is_fcd(self) -> bool {
        matches!(self, Self::Fcd | Self::FcdInPlace | Self::FcdReap)
    }

    /// The device key of the disk in its points.
    pub(crate) fn key(self) -> i32 {
        if self.is_fcd() { FCD_KEY } else { 2000 }
    }
}

/// A flow in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) flow: Flow,
    pub(crate) machine: Machine,
    pub(crate) tracking: Tracking,
}

/// What runs a flow, and dies where a case kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// A runtime that is torn down, with a repository in memory.
    Runtime,
    /// A process that the kernel ends, with a repository in a folder.
    Process,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// At a call of a step, the first being 1.
    Step(Step, usize, How),
    /// At an operation of the storage, the first being 0.
    Storage(u64, storage::Fault),
}

/// Returns all groups.
pub(crate) fn groups() -> Vec<Group> {
    use Flow::*;
    use Machine::*;
    use Tracking::{Reset, Resized};
    let every = [On, Machine::Off, Suspended, Template, Snapshots, Unmerged];
    let tracks = [Tracking::Incremental, Tracking::First, Tracking::Off, Reset, Resized];
    let mut groups = Vec::new();
    for flow in [Backup, Resume, InPlace, NewVm, Reap, Fcd, FcdInPlace, FcdReap, Prune, Check] {
        for machine in every {
            for tracking in tracks {
                // Servers refuse to grow disks with snapshots, and there is nothing to be restored without a point.
                let possible = match flow {
                    _ if tracking == Resized && matches!(machine, Snapshots | Unmerged | Template) => false,
                    Backup => true,
                    // A template has no snapshot to go on with.
                    Resume => machine != Template,
                    InPlace => machine != Template && tracking != Tracking::First,
                    NewVm => tracking == Tracking::Incremental,
                    Reap => machine != Template && tracking == Tracking::Incremental,
                    // The machine is only the way to it.
                    Fcd => matches!(machine, On | Machine::Off) && !matches!(tracking, Reset | Resized),
                    FcdInPlace | FcdReap => machine == Machine::Off && tracking == Tracking::Incremental,
                    Prune | Check => machine == On && tracking == Tracking::Incremental,
                };
                if possible {
                    groups.push(Group { flow, machine, tracking });
                }
            }
        }
    }
    groups
}

/// Returns the groups that run in processes of their own: those of flows whose calls are steps, in all states of the
/// machine.
pub(crate) fn groups_of_processes() -> Vec<Group> {
    let has_steps = |group: &Group| !matches!(group.flow, Flow::Prune | Flow::Check);
    let groups = groups().into_iter().filter(has_steps);
    groups.filter(|group| group.tracking == Tracking::Incremental).collect()
}

impl Fault {
    /// Tells whether a process can be killed there: before or after a step, or before an operation of the storage.
    pub(crate) fn kills_process(&self) -> bool {
        match self {
            Self::Step(_, _, how) => how.kills(),
            Self::Storage(_, fault) => *fault == storage::Fault::Hang,
        }
    }
}

/// Returns the faults for steps that were taken and operations that were asked for.
pub(crate) fn faults(steps: &[Step], operations: u64) -> Vec<Fault> {
    use storage::Fault::{Cut, CutAfter, CutLosing, Error, Hang, LostAnswer};
    let mut faults = Vec::new();
    for (at, &step) in steps.iter().enumerate() {
        let number = steps[..=at].iter().filter(|seen| **seen == step).count();
        faults.extend(How::ALL.map(|how| Fault::Step(step, number, how)));
    }
    for at in 0..operations {
        faults.extend([Error, LostAnswer, Cut, CutAfter, CutLosing(2), Hang].map(|fault| Fault::Storage(at, fault)));
    }
    faults
}

/// Numbers by chance, the same for the same seed (splitmix64).
pub(crate) struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, (self.next() % (at as u64 + 1)) as usize);
        }
    }
}
