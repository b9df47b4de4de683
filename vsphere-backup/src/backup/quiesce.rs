//! How the guest is brought into order before the snapshot: a chain of ways, each with its limit.
//!
//! Which ways are tried for a machine, and which of them a snapshot satisfies, is decided here from plain facts; the
//! guard asks the server. The memory of a machine is never part of a snapshot: a restore has no use for it, and saving
//! it stuns the machine for as long as it is large.

use std::time::Duration;

use vsphere_vim::{
    CreateSnapshotOptions, PowerState,
    vm::{GuestQuiesce, Snapshot, VmDetails, VssOptions},
};

use crate::{
    error::{DiskError, Error, in_one_line},
    repository::Fallback,
};

/// In which ways the guest is asked to bring its data into order, in this order, until one succeeds.
///
/// The point records the consistency that was achieved, and why each way before it was given up.
///
/// ```
/// use vsphere_backup::{QuiescePolicy, QuiesceStep};
/// use vsphere_vim::vm::{VssContext, VssOptions};
///
/// // Applications take part; else file systems alone; never less.
/// let vss = VssOptions { context: VssContext::Backup, ..Default::default() };
/// let policy = QuiescePolicy::first(QuiesceStep::vss(vss).require_manifest(true)).then(QuiesceStep::plain());
/// assert!(!policy.allows_crash());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct QuiescePolicy {
    steps: Vec<QuiesceStep>,
}

/// One way in which a snapshot is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct QuiesceStep {
    way: QuiesceWay,
    limit: Duration,
    require_manifest: bool,
    gives_way_to: GiveWay,
}

/// How the guest is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuiesceWay {
    /// Through the shadow copy service of a Windows guest, with options. Needs vSphere 6.5; guests of other kinds pass
    /// over it.
    #[doc(alias = "CreateSnapshotEx_Task")]
    Vss(VssOptions),
    /// As VMware Tools have it: VSS, or frozen file systems with the guest's own scripts.
    Plain,
    /// Not at all: the disks are as after a power cut.
    Crash,
}

/// At which failures a way gives way to the next. A limit that passed is always one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveWay {
    /// At whatever fault the server answers with, unless it passes by itself. What is not about the guest fails the
    /// next way too, and is the backup's error then.
    #[default]
    AnyFault,
    /// Only at faults that say that the guest could not be quiesced.
    QuiesceFaults,
}

/// Whether the guest is asked to bring its data into order before the snapshot: the usual policies, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quiesce {
    /// No: the disks are as after a power cut.
    #[default]
    No,
    /// Yes, and when that fails a snapshot without it is taken, with a warning.
    Try,
    /// Yes, and when that fails the backup fails.
    Require,
}

impl QuiescePolicy {
    /// Begins a chain.
    pub fn first(step: QuiesceStep) -> Self {
        Self { steps: vec![step] }
    }

    /// Adds what is done when all before failed.
    pub fn then(mut self, step: QuiesceStep) -> Self {
        self.steps.push(step);
        self
    }

    /// Returns the chain.
    pub fn steps(&self) -> &[QuiesceStep] {
        &self.steps
    }

    /// Tells whether a point that is as after a power cut is good enough.
    pub fn allows_crash(&self) -> bool {
        self.steps.iter().any(|step| step.way == QuiesceWay::Crash)
    }

    /// Returns the ways that are to be tried for a machine.
    pub(crate) fn chain(&self, machine: &VmDetails) -> Chain<'_> {
        self.chain_for(&machine.power_state, machine.guest_id.as_deref())
    }

    fn chain_for(&self, power: &PowerState, guest_id: Option<&str>) -> Chain<'_> {
        // There is no guest: what is on the disks is all there is.
        if *power == PowerState::Off {
            return Chain { steps: vec![QuiesceStep::crash()], skipped: Vec::new(), policy: self };
        }
        let windows = guest_id.is_none_or(|id| id.to_ascii_lowercase().starts_with("win"));
        let mut chain = Chain { steps: Vec::new(), skipped: Vec::new(), policy: self };
        for step in &self.steps {
            let reason = match step.way {
                QuiesceWay::Vss(_) | QuiesceWay::Plain if *power != PowerState::On => "the machine does not run",
                QuiesceWay::Vss(_) if !windows => "the guest is not Windows",
                _ => {
                    chain.steps.push(step.clone());
                    continue;
                }
            };
            chain.skipped.push(step.given_up(reason));
        }
        chain
    }
}

impl Default for QuiescePolicy {
    /// [`Quiesce::No`].
    fn default() -> Self {
        Self::first(QuiesceStep::crash())
    }
}

impl From<Quiesce> for QuiescePolicy {
    fn from(quiesce: Quiesce) -> Self {
        match quiesce {
            Quiesce::No => Self::default(),
            Quiesce::Try => Self::first(QuiesceStep::plain()).then(QuiesceStep::crash()),
            Quiesce::Require => Self::first(QuiesceStep::plain()),
        }
    }
}

impl From<bool> for QuiescePolicy {
    /// `true` is [`Quiesce::Try`].
    fn from(yes: bool) -> Self {
        Self::from(Quiesce::from(yes))
    }
}

impl From<bool> for Quiesce {
    /// `true` is [`Quiesce::Try`].
    fn from(yes: bool) -> Self {
        if yes { Self::Try } else { Self::No }
    }
}

impl QuiesceStep {
    /// Through VSS, with options; the limit is 20 minutes.
    pub fn vss(options: VssOptions) -> Self {
        Self::of(QuiesceWay::Vss(options))
    }

    /// As VMware Tools have it; the limit is 20 minutes.
    pub fn plain() -> Self {
        Self::of(QuiesceWay::Plain)
    }

    /// Without the guest; the limit is 30 minutes.
    pub fn crash() -> Self {
        Self { limit: Duration::from_secs(1800), ..Self::of(QuiesceWay::Crash) }
    }

    /// Sets how long the snapshot may take before it is cancelled and the next way is tried.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// States whether a snapshot without the manifest that VSS leaves counts as failed: no by default.
    pub fn require_manifest(self, require: bool) -> Self {
        Self { require_manifest: require, ..self }
    }

    /// States at which failures the next way is tried: [`GiveWay::AnyFault`] by default.
    pub fn gives_way_to(self, failures: GiveWay) -> Self {
        Self { gives_way_to: failures, ..self }
    }

    /// Returns the way.
    pub fn way(&self) -> &QuiesceWay {
        &self.way
    }

    /// Returns the way's name, which does not change between releases.
    pub fn name(&self) -> &'static str {
        match self.way {
            QuiesceWay::Vss(_) => "vss",
            QuiesceWay::Plain => "quiesce",
            QuiesceWay::Crash => "crash",
        }
    }

    fn of(way: QuiesceWay) -> Self {
        let limit = Duration::from_secs(1200);
        Self { way, limit, require_manifest: false, gives_way_to: GiveWay::default() }
    }

    pub(crate) fn limit_of_snapshot(&self) -> Duration {
        self.limit
    }

    pub(crate) fn given_up(&self, reason: impl Into<String>) -> Fallback {
        Fallback { way: self.name().into(), reason: reason.into() }
    }

    /// Returns what the server is asked for.
    pub(crate) fn options(&self, name: &str, description: &str) -> CreateSnapshotOptions {
        let options = CreateSnapshotOptions::new(name).description(description).memory(false);
        match &self.way {
            QuiesceWay::Crash => options,
            QuiesceWay::Plain => options.quiesce(true),
            QuiesceWay::Vss(vss) => {
                // The guest has its own limit, in whole minutes of a range.
                let guest = self.limit.clamp(Duration::from_secs(300), Duration::from_secs(14_400));
                options.quiesce_as(GuestQuiesce::new().timeout(guest).windows(vss.clone()))
            }
        }
    }

    /// Tells in what a snapshot falls short of this way; `None` when it is as it should be.
    fn falls_short(&self, snapshot: &Snapshot) -> Option<&'static str> {
        match self.way {
            QuiesceWay::Crash => None,
            _ if !snapshot.quiesced => Some("the server made the snapshot without quiescing the guest"),
            _ if self.require_manifest && snapshot.backup_manifest.is_none() => {
                Some("VSS left no manifest: applications did not take part")
            }
            _ => None,
        }
    }

    /// Tells why the next way may succeed where this one failed; `None` when the failure is the backup's.
    pub(crate) fn gives_way(&self, error: &Error) -> Option<String> {
        let Error::Server { source, .. } = error else { return None };
        let inner = source.inner().downcast_ref::<vsphere_vim::Error>()?;
        let gives = match (inner, inner.server_fault()) {
            (vsphere_vim::Error::TimedOut { .. } | vsphere_vim::Error::Unsupported { .. }, _) => true,
            (_, Some(_)) if source.retryable => false,
            (_, Some(fault)) => match self.gives_way_to {
                GiveWay::AnyFault => true,
                GiveWay::QuiesceFaults => QUIESCE_FAULTS.iter().any(|name| fault.is_a(name)),
            },
            _ => false,
        };
        gives.then(|| in_one_line(error))
    }
}

/// The ways that are tried for one machine.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) steps: Vec<QuiesceStep>,
    /// Ways that the machine's state rules out.
    pub(crate) skipped: Vec<Fallback>,
    policy: &'a QuiescePolicy,
}

impl Chain<'_> {
    /// Returns why no snapshot can be made that the policy accepts, if so.
    pub(crate) fn impossible(&self) -> Option<String> {
        let named = |fallback: &Fallback| format!("{}: {}", fallback.way, fallback.reason);
        let empty = self.steps.is_empty();
        empty.then(|| format!("none of the ways to quiesce it is possible ({})", join(self.skipped.iter().map(named))))
    }

    /// Returns the reasons why the ways from `at` on fall short of a snapshot, up to the one that accepts it; an error
    /// when none does.
    pub(crate) fn accept(&self, at: usize, snapshot: &Snapshot) -> Result<Vec<Fallback>, String> {
        let mut short = Vec::new();
        for step in &self.steps[at..] {
            match step.falls_short(snapshot) {
                None => return Ok(short),
                Some(reason) => short.push(step.given_up(reason)),
            }
        }
        debug_assert!(!self.policy.allows_crash(), "any snapshot is good enough then");
        Err(join(short.into_iter().map(|fallback| fallback.reason)))
    }
}

/// Wraps the failure of a snapshot that took too long, so that it counts as the server's and is not tried again.
pub(crate) fn took_too_long(operation: &'static str, vm: &str, after: Duration) -> Error {
    let error = vsphere_vim::Error::TimedOut { operation: "CreateSnapshot".into(), after };
    Error::Server { operation, vm: vm.to_owned(), source: DiskError::new(error).retryable(false) }
}

fn join(texts: impl IntoIterator<Item = String>) -> String {
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.dedup();
    texts.join("; ")
}

/// Faults that say that the guest could not be quiesced.
const QUIESCE_FAULTS: &[&str] = &[
    "ApplicationQuiesceFault",
    "FilesystemQuiesceFault",
    "QuiesceDatastoreIOForHAFailed",
    "ToolsUnavailable",
    "MissingWindowsCustResources",
    "VmToolsUpgradeFault",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(quiesced: bool, manifest: bool) -> Snapshot {
        let mut tree = vsphere_vim::types::VirtualMachineSnapshotTree { quiesced, ..Default::default() };
        tree.backup_manifest = manifest.then(|| "web-vss_manifests1.zip".into());
        Snapshot::from(tree)
    }

    fn whole() -> QuiescePolicy {
        let vss = QuiesceStep::vss(VssOptions::default()).require_manifest(true);
        QuiescePolicy::first(vss).then(QuiesceStep::plain()).then(QuiesceStep::crash())
    }

    fn names(chain: &Chain<'_>) -> Vec<&'static str> {
        chain.steps.iter().map(QuiesceStep::name).collect()
    }

    #[test]
    fn the_machine_s_state_rules_ways_out_with_a_reason() {
        let policy = whole();
        let chain = policy.chain_for(&PowerState::On, Some("windows2019srv_64Guest"));
        assert_eq!((names(&chain), chain.skipped.len()), (vec!["vss", "quiesce", "crash"], 0));
        let chain = policy.chain_for(&PowerState::On, Some("ubuntu64Guest"));
        assert_eq!(names(&chain), ["quiesce", "crash"]);
        assert!(chain.skipped[0].reason.contains("Windows"));
        let chain = policy.chain_for(&PowerState::Suspended, None);
        assert_eq!((names(&chain), chain.skipped.len()), (vec!["crash"], 2));
        let chain = policy.chain_for(&PowerState::Off, None);
        assert_eq!((names(&chain), chain.skipped.len()), (vec!["crash"], 0), "nothing is lost by that");

        let strict = QuiescePolicy::from(Quiesce::Require);
        assert!(strict.chain_for(&PowerState::Suspended, None).impossible().unwrap().contains("does not run"));
        assert_eq!(strict.chain_for(&PowerState::Off, None).impossible(), None);
    }

    #[test]
    fn a_snapshot_is_kept_for_the_first_way_that_it_satisfies() {
        let policy = whole();
        let chain = policy.chain_for(&PowerState::On, None);
        let short = |quiesced, manifest| -> Vec<String> {
            chain.accept(0, &snapshot(quiesced, manifest)).unwrap().into_iter().map(|short| short.way).collect()
        };
        assert_eq!(short(true, true), [""; 0]);
        assert_eq!(short(true, false), ["vss"]);
        assert_eq!(short(false, false), ["vss", "quiesce"]);
        let strict = QuiescePolicy::from(Quiesce::Require);
        let chain = strict.chain_for(&PowerState::On, None);
        assert!(chain.accept(0, &snapshot(false, false)).unwrap_err().contains("without quiescing"));
    }

    #[test]
    fn no_way_asks_for_the_memory() {
        for step in whole().steps() {
            let options = step.options("name", "marker");
            assert!(!options.memory, "{step:?}");
            assert_eq!(options.quiesce, *step.way() != QuiesceWay::Crash);
            assert_eq!(options.quiesce_as.is_some(), matches!(step.way(), QuiesceWay::Vss(_)));
        }
        // Even the shortest and the longest limit are ones that a guest can be given.
        let odd = [Duration::from_millis(1), Duration::from_secs(u64::MAX)];
        for limit in odd {
            let options = QuiesceStep::vss(VssOptions::default()).limit(limit).options("name", "");
            assert!(options.quiesce_as.is_some());
        }
    }

    #[test]
    fn only_a_failure_of_this_way_gives_way() {
        let late = took_too_long("the snapshot", "web", Duration::from_secs(1));
        assert!(!late.is_retryable());
        let strict = QuiesceStep::plain().gives_way_to(GiveWay::QuiesceFaults);
        assert!(strict.gives_way(&late).unwrap().contains("did not finish"));
        assert_eq!(strict.gives_way(&Error::Cancelled), None);
    }
}
