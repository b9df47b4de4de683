//! What a job did, to be kept and sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vsphere_vim::{MoRef, mo::VirtualMachine};

use crate::{
    backup::{BackupReport, DiskReport, SetReport, plan},
    error::{Error, ErrorKind, ErrorPhase, Result, in_one_line},
    repository::{
        Consistency, DiskBytes, Fallback, Fate, LeftOut, PointId, PruneReport, SetOutcome, VerifyLevel, VerifyReport,
    },
    task::Outcome,
};

use super::{Candidate, SelectedSet};

/// What a job did, machine by machine. It can be written down and read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JobReport {
    /// The job's name.
    pub job: String,
    /// When it began, in seconds since 1970, UTC.
    pub begun: u64,
    /// From begin to end.
    pub elapsed: Duration,
    /// The machines, in the order of their names; those of sets too.
    pub machines: Vec<MachineReport>,
    /// The sets, in the order of their names.
    pub sets: Vec<SetSummary>,
    /// What concerns the job as a whole.
    pub warnings: Vec<String>,
}

/// What became of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum MachineState {
    /// There is a new recovery point.
    Done,
    /// There is a new recovery point, and something to be looked at: warnings, disks that are not in it, leftovers.
    DoneWithWarnings,
    /// There is a new recovery point, and verification found it, or what it shares with others, damaged.
    Damaged,
    /// There is a new recovery point, and the verification that was asked for could not be done.
    Unverified,
    /// There is none, because of an error.
    Failed,
    /// There is none, because the job was cancelled.
    Cancelled,
    /// It was not begun: the job was stopped before.
    NotBegun,
}

/// What a job did with one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MachineReport {
    /// The managed object id, such as `vm-42`.
    pub vm: String,
    /// The name.
    pub name: String,
    /// The id by which it is known again.
    pub instance_uuid: Option<String>,
    /// The name of the set that it was backed up in.
    pub set: Option<String>,
    /// What became of it.
    pub state: MachineState,
    /// How often it was tried.
    pub attempts: u32,
    /// The new recovery point.
    pub point: Option<PointId>,
    /// In which state the guest's data is.
    pub consistency: Option<Consistency>,
    /// The ways to quiesce the guest that were given up before that, and why.
    pub fallbacks: Vec<Fallback>,
    /// Whether the backup went on with the snapshot of an interrupted one.
    pub resumed: bool,
    /// Whether something that an earlier job had left on the server was undone first.
    pub recovered: bool,
    /// The disks in the point.
    pub disks: Vec<DiskReport>,
    /// Disks that are not in it, and why.
    pub left_out: Vec<LeftOut>,
    /// Bytes that were written to the repository.
    pub stored: u64,
    /// What verification found.
    pub verified: Option<Verified>,
    /// What retention did to the machine's older points.
    pub retained: Option<Retained>,
    /// Something was not as it should be.
    pub warnings: Vec<String>,
    /// What stays on the server; the journal keeps it for the next run.
    pub leftovers: Vec<String>,
    /// Why there is no point, or why it could not be verified.
    pub error: Option<ErrorReport>,
    /// How long it waited for its turn.
    pub waited: Duration,
    /// How long it took after that, all tries together.
    pub elapsed: Duration,
}

/// What a job did with one set; each of its machines has a [`MachineReport`] too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SetSummary {
    /// Its name: that of the vApp, or the caller's.
    pub name: String,
    /// The machines by their managed object ids, in the set's order.
    pub machines: Vec<String>,
    /// The identity that stands in the points, of the last try that came to one.
    pub id: Option<String>,
    /// Whether all machines have a point; `None` when no try came to an end.
    pub outcome: Option<SetOutcome>,
    /// Whether one machine's failure gave it up.
    pub all_or_nothing: bool,
    /// The time from the begin of the first snapshot to the end of the last.
    pub spread: Duration,
    /// How often it was tried, always as a whole.
    pub attempts: u32,
    /// Why it is not complete: the failure that others followed from, as far as that is known.
    pub error: Option<ErrorReport>,
}

/// What verifying a new recovery point found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Verified {
    /// Whether chunks were read, or only looked up.
    pub is_full: bool,
    /// Chunks checked.
    pub chunks: u64,
    /// Bytes of the disks that those chunks hold.
    pub bytes: u64,
    /// How many pieces of damage there are.
    pub damage: u64,
    /// The first of them, one a line.
    pub first_damage: Vec<String>,
}

/// What retention did to the points of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Retained {
    /// How many points there are still, with those that could not be deleted.
    pub kept: u64,
    /// The points that were deleted.
    pub deleted: Vec<PointId>,
    /// Points that no rule keeps and that are there all the same, and why: held, damaged, or the storage refused.
    pub spared: Vec<String>,
}

/// An error, written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ErrorReport {
    /// The error with its causes, in one line.
    pub message: String,
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// In which part of the work it arose, as far as the error knows.
    pub phase: ErrorPhase,
    /// The step that was begun last, by its [name](crate::step::Step::name); or the part of the job.
    pub at: String,
    /// Whether trying again can help.
    pub is_retryable: bool,
    /// What to do next, where that is known.
    pub guidance: Option<String>,
    /// vSphere's own name for it.
    pub fault: Option<String>,
}

impl ErrorReport {
    pub(super) fn new(error: &Error, at: &str) -> Self {
        Self {
            message: in_one_line(error),
            kind: error.kind(),
            phase: error.phase(),
            at: at.to_owned(),
            is_retryable: error.is_retryable(),
            guidance: error.hint().map(str::to_owned),
            fault: error.fault_name().map(str::to_owned),
        }
    }
}

impl ErrorReport {
    /// Says how a task ended.
    pub(super) fn outcome(error: Option<&Self>) -> Outcome {
        match error {
            None => Outcome::Done,
            Some(error) if error.kind == ErrorKind::Cancelled => Outcome::Cancelled,
            Some(error) => Outcome::Failed { message: error.message.clone(), kind: error.kind },
        }
    }
}

impl SetSummary {
    pub(super) fn new(set: &SelectedSet) -> Self {
        let machines = set.machines.iter().map(|machine| &machine.vm).chain(set.missing.iter().map(|(vm, _)| vm));
        Self {
            name: set.name.clone(),
            machines: machines.map(|vm| vm.value().to_owned()).collect(),
            id: None,
            outcome: None,
            all_or_nothing: true,
            spread: Duration::ZERO,
            attempts: 0,
            error: None,
        }
    }

    /// Tells whether all machines have a new point.
    pub fn is_complete(&self) -> bool {
        self.outcome == Some(SetOutcome::Complete) && self.error.is_none()
    }

    pub(super) fn ended(&mut self, report: &SetReport) {
        (self.id, self.outcome, self.spread) = (Some(report.id.clone()), Some(report.outcome), report.spread);
        self.error = None;
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.error = Some(ErrorReport::new(error, "set"));
    }
}

impl JobReport {
    /// Returns the number of machines in a state.
    pub fn count(&self, state: MachineState) -> usize {
        self.machines.iter().filter(|machine| machine.state == state).count()
    }

    /// Tells whether every machine has a new recovery point, sound as far as that was to be verified, and every set all of
    /// its. A point that could not be verified does not count: whoever asks for that relies on the answer.
    pub fn is_complete(&self) -> bool {
        let is_done = |state| matches!(state, MachineState::Done | MachineState::DoneWithWarnings);
        self.machines.iter().all(|machine| is_done(machine.state)) && self.sets.iter().all(SetSummary::is_complete)
    }

    /// Returns the figures of all disks together.
    pub fn bytes(&self) -> DiskBytes {
        let disks = self.machines.iter().flat_map(|machine| &machine.disks);
        disks.fold(DiskBytes::default(), |sum, disk| sum.plus(&disk.bytes))
    }
}

impl MachineReport {
    pub(super) fn new(machine: &Candidate) -> Self {
        Self {
            vm: machine.vm.value().to_owned(),
            name: machine.name.clone(),
            instance_uuid: machine.instance_uuid.clone(),
            ..Self::empty()
        }
    }

    /// Of a machine that was named and cannot be read.
    pub(super) fn unreadable(vm: &MoRef<VirtualMachine>, error: &Error) -> Self {
        Self {
            vm: vm.value().to_owned(),
            name: vm.value().to_owned(),
            state: MachineState::Failed,
            error: Some(ErrorReport::new(error, "selection")),
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Self {
            vm: String::new(),
            name: String::new(),
            instance_uuid: None,
            set: None,
            state: MachineState::NotBegun,
            attempts: 0,
            point: None,
            consistency: None,
            fallbacks: Vec::new(),
            resumed: false,
            recovered: false,
            disks: Vec::new(),
            left_out: Vec::new(),
            stored: 0,
            verified: None,
            retained: None,
            warnings: Vec::new(),
            leftovers: Vec::new(),
            error: None,
            waited: Duration::ZERO,
            elapsed: Duration::ZERO,
        }
    }

    pub(super) fn backed_up(&mut self, report: BackupReport) {
        self.point = Some(report.point.id().clone());
        self.stored = report.bytes().stored;
        self.consistency = Some(report.consistency);
        self.fallbacks = report.fallbacks;
        self.resumed = report.resumed;
        self.recovered |= report.recovered.is_some();
        self.disks = report.disks;
        self.left_out = report.left_out;
        // What the backup tells of as events is there already.
        for left in report.leftovers {
            if !self.leftovers.contains(&left) {
                self.leftovers.push(left);
            }
        }
        // What the caller left out is no news to anybody.
        let is_complete = self.left_out.iter().all(|left| left.reason == plan::excluded());
        let quiet = self.warnings.is_empty() && self.leftovers.is_empty() && is_complete;
        self.state = if quiet { MachineState::Done } else { MachineState::DoneWithWarnings };
        self.error = None;
    }

    /// Writes down what retention did to the machine's points, among those of others perhaps.
    pub(super) fn retained(&mut self, pruned: &Result<PruneReport>) {
        let report = match pruned {
            Ok(report) => report,
            // The point is there; what is too old goes another time.
            Err(error) => {
                self.state = MachineState::DoneWithWarnings;
                self.error = Some(ErrorReport::new(error, "retention"));
                return;
            }
        };
        let vm = self.point.as_ref().map(PointId::vm);
        let points = || report.points.iter().filter(|pruned| Some(pruned.point.vm()) == vm);
        let spared = |fate: &Fate| !matches!(fate, Fate::Kept(_) | Fate::KeptWithSet(_) | Fate::Deleted);
        let lines = points().filter(|pruned| spared(&pruned.fate));
        let deleted: Vec<PointId> =
            points().filter(|pruned| pruned.fate == Fate::Deleted).map(|pruned| pruned.point.clone()).collect();
        self.retained = Some(Retained {
            kept: (points().count() - deleted.len()) as u64,
            deleted,
            spared: lines.map(|pruned| format!("{}: {}", pruned.point, pruned.fate)).collect(),
        });
        if points().any(|pruned| matches!(pruned.fate, Fate::Refused(_) | Fate::Unreadable(_))) {
            self.state = MachineState::DoneWithWarnings;
        }
    }

    pub(super) fn failed(&mut self, error: &Error, at: &str) {
        let is_cancelled = error.kind() == ErrorKind::Cancelled;
        self.state = if is_cancelled { MachineState::Cancelled } else { MachineState::Failed };
        self.error = Some(ErrorReport::new(error, at));
    }

    pub(super) fn unchecked(&mut self, error: &Error) {
        self.state = MachineState::Unverified;
        self.error = Some(ErrorReport::new(error, "verify"));
    }

    pub(super) fn checked(&mut self, level: VerifyLevel, report: &VerifyReport) {
        let lines = report.damage.iter().take(MAX_DAMAGE).map(|damage| damage.to_string()).collect();
        self.verified = Some(Verified {
            is_full: level >= VerifyLevel::Hash,
            chunks: report.chunks,
            bytes: report.bytes,
            damage: report.damage_count,
            first_damage: lines,
        });
        if !report.is_sound() {
            self.state = MachineState::Damaged;
        }
    }
}

/// Lines of damage that a report keeps of one machine.
const MAX_DAMAGE: usize = 20;
