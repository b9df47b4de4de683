//! Switching change tracking on: check, reconfigure, stun, read back.

use crate::{
    error::{Error, Result},
    preflight::{Blocker, DiskTracking, Preflight},
};

/// How tracking is enabled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct EnableOptions {
    with_snapshots: bool,
    mark: Option<String>,
}

impl EnableOptions {
    /// Enables also while the VM has snapshots. Its disks may then stay untracked until the snapshots are gone, and
    /// `*` may report whole disks for ever.
    pub fn allow_snapshots(self) -> Self {
        Self { with_snapshots: true, ..self }
    }

    /// Adds a text to the description of the snapshot that starts tracking, so that whoever asked for it finds it when
    /// its removal was interrupted.
    pub fn mark(self, text: impl Into<String>) -> Self {
        Self { mark: Some(text.into()), ..self }
    }
}

/// What [`enable`](crate::enable()) did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enabled {
    /// Tracking was off and is on now.
    pub switched_on: bool,
    /// A snapshot was made and removed, so that change ids appear.
    pub stunned: bool,
    /// The disks as they are now. One that can be tracked and has no change id is worth a warning.
    pub disks: Vec<DiskTracking>,
}

impl Enabled {
    /// Disks that could be tracked and still have no change id: take full backups of them.
    pub fn without_change_id(&self) -> impl Iterator<Item = &DiskTracking> {
        self.disks.iter().filter(|disk| disk.untrackable.is_none() && disk.change_id.is_none())
    }
}

/// What enabling needs of a virtual machine. A server in production, a model in tests.
pub(crate) trait Machine: Sync {
    /// A snapshot of it.
    type Snapshot: Send + Sync;

    /// For errors: `VirtualMachine:vm-42`.
    fn name(&self) -> String;

    /// A snapshot, for errors.
    fn snapshot_name(&self, snapshot: &Self::Snapshot) -> String;

    /// What there is now.
    fn preflight(&self) -> impl Future<Output = Result<Preflight>> + Send;

    /// Snapshots of interrupted attempts, known by their name and description.
    fn stale(&self) -> impl Future<Output = Result<Vec<Self::Snapshot>>> + Send;

    /// Sets `changeTrackingEnabled`.
    fn switch_on(&self) -> impl Future<Output = Result<()>> + Send;

    /// Makes a snapshot without memory and without quiescing, with our mark and the caller's.
    fn snapshot(&self, mark: Option<&str>) -> impl Future<Output = Result<Self::Snapshot>> + Send;

    /// Removes one snapshot, not its children.
    fn remove(&self, snapshot: &Self::Snapshot) -> impl Future<Output = Result<(), vsphere_vim::Error>> + Send;
}

/// The steps, in order. Each is safe to repeat, so that an attempt after an interrupted one comes to the same end.
pub(crate) async fn run<M: Machine>(machine: &M, options: EnableOptions) -> Result<Enabled> {
    for snapshot in machine.stale().await? {
        tracing::info!(vm = machine.name(), snapshot = machine.snapshot_name(&snapshot), "removing a stale snapshot");
        remove(machine, &snapshot).await?;
    }
    let before = machine.preflight().await?;
    if before.is_active() {
        return Ok(Enabled { switched_on: false, stunned: false, disks: before.disks });
    }
    if !before.enabled {
        let in_the_way = |blocker: &Blocker| !(options.with_snapshots && matches!(blocker, Blocker::Snapshots { .. }));
        if let Some(blocker) = before.blockers().into_iter().find(in_the_way) {
            return Err(Error::Blocked { vm: machine.name(), blocker });
        }
        machine.switch_on().await?;
        // Reconfiguring can succeed without effect; only reading tells.
        if !machine.preflight().await?.enabled {
            return Err(Error::NotKept { vm: machine.name() });
        }
        tracing::info!(vm = machine.name(), "change tracking is switched on");
    }
    let snapshot = machine.snapshot(options.mark.as_deref()).await?;
    remove(machine, &snapshot).await?;
    let after = machine.preflight().await?;
    for disk in after.waiting() {
        tracing::warn!(vm = machine.name(), disk = %disk.key, "no change id although tracking is on");
    }
    Ok(Enabled { switched_on: !before.enabled, stunned: true, disks: after.disks })
}

async fn remove<M: Machine>(machine: &M, snapshot: &M::Snapshot) -> Result<()> {
    machine.remove(snapshot).await.map_err(|source| Error::Leftover {
        vm: machine.name(),
        snapshot: machine.snapshot_name(snapshot),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use vsphere_vim::device::{DeviceKey, SnapshotObstacle};

    use super::*;
    use crate::preflight::Untrackable;

    /// A machine that keeps its settings and counts.
    struct Model {
        state: Mutex<State>,
    }

    struct State {
        now: Preflight,
        stale: Vec<u32>,
        ignores_reconfigure: bool,
        cannot_remove: bool,
        log: Vec<&'static str>,
    }

    impl Model {
        fn new(change: impl FnOnce(&mut State)) -> Self {
            let disk = |key, untrackable| DiskTracking {
                key: DeviceKey(key),
                label: String::new(),
                change_id: None,
                untrackable,
            };
            let independent = Untrackable::NoSnapshots(SnapshotObstacle::Independent);
            let disks = vec![disk(2000, None), disk(2001, Some(independent))];
            let now = Preflight { supported: true, hardware_version: Some(19), enabled: false, snapshots: 0, disks };
            let mut state =
                State { now, stale: Vec::new(), ignores_reconfigure: false, cannot_remove: false, log: Vec::new() };
            change(&mut state);
            Self { state: Mutex::new(state) }
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap()
        }
    }

    impl Machine for Model {
        type Snapshot = u32;

        fn name(&self) -> String {
            "VirtualMachine:vm-1".into()
        }

        fn snapshot_name(&self, snapshot: &u32) -> String {
            format!("VirtualMachineSnapshot:snapshot-{snapshot}")
        }

        async fn preflight(&self) -> Result<Preflight> {
            Ok(self.state().now.clone())
        }

        async fn stale(&self) -> Result<Vec<u32>> {
            Ok(self.state().stale.clone())
        }

        async fn switch_on(&self) -> Result<()> {
            let mut state = self.state();
            state.log.push("reconfigure");
            state.now.enabled = !state.ignores_reconfigure;
            Ok(())
        }

        async fn snapshot(&self, _mark: Option<&str>) -> Result<u32> {
            let mut state = self.state();
            state.log.push("snapshot");
            if state.now.enabled {
                state.now.disks[0].change_id = Some("a/1".parse().unwrap());
            }
            Ok(7)
        }

        async fn remove(&self, _snapshot: &u32) -> Result<(), vsphere_vim::Error> {
            let mut state = self.state();
            state.log.push("remove");
            if state.cannot_remove {
                return Err(vsphere_vim::Error::NotFound { what: "snapshot-7".into() });
            }
            Ok(())
        }
    }

    async fn run_on(model: &Model) -> Result<Enabled> {
        run(model, EnableOptions::default()).await
    }

    #[tokio::test]
    async fn enabling_reconfigures_stuns_and_reads_back() {
        let model = Model::new(|_| ());
        let done = run_on(&model).await.unwrap();
        assert_eq!(model.state().log, ["reconfigure", "snapshot", "remove"]);
        assert!(done.switched_on && done.stunned);
        assert_eq!(done.without_change_id().count(), 0);
    }

    #[tokio::test]
    async fn a_second_time_nothing_is_done() {
        let model = Model::new(|_| ());
        run_on(&model).await.unwrap();
        model.state().log.clear();
        let done = run_on(&model).await.unwrap();
        assert!(!done.switched_on && !done.stunned && model.state().log.is_empty());
    }

    #[tokio::test]
    async fn enabled_without_change_ids_needs_only_the_stun() {
        let model = Model::new(|state| {
            state.now.enabled = true;
            state.now.snapshots = 1; // Not ours to judge any more: tracking is on already.
        });
        let done = run_on(&model).await.unwrap();
        assert_eq!(model.state().log, ["snapshot", "remove"]);
        assert!(!done.switched_on);
    }

    #[tokio::test]
    async fn blockers_stop_before_anything_is_changed() {
        let model = Model::new(|state| state.now.snapshots = 3);
        let error = run_on(&model).await.unwrap_err();
        assert!(matches!(error, Error::Blocked { blocker: Blocker::Snapshots { count: 3 }, .. }));
        assert!(error.hint().is_some() && model.state().log.is_empty());
        run(&model, EnableOptions::default().allow_snapshots()).await.unwrap();

        let model = Model::new(|state| state.now.supported = false);
        let allowed = run(&model, EnableOptions::default().allow_snapshots()).await;
        assert!(matches!(allowed, Err(Error::Blocked { blocker: Blocker::NotSupported, .. })));
    }

    #[tokio::test]
    async fn a_setting_that_is_not_kept_is_an_error() {
        let model = Model::new(|state| state.ignores_reconfigure = true);
        assert!(matches!(run_on(&model).await, Err(Error::NotKept { .. })));
        assert_eq!(model.state().log, ["reconfigure"]);
    }

    #[tokio::test]
    async fn snapshots_of_an_interrupted_attempt_are_removed_first() {
        let model = Model::new(|state| state.stale = vec![5, 6]);
        run_on(&model).await.unwrap();
        assert_eq!(model.state().log, ["remove", "remove", "reconfigure", "snapshot", "remove"]);
    }

    #[tokio::test]
    async fn a_snapshot_that_stays_is_named() {
        let model = Model::new(|state| state.cannot_remove = true);
        let error = run_on(&model).await.unwrap_err();
        assert!(matches!(&error, Error::Leftover { snapshot, .. } if snapshot.ends_with("snapshot-7")));
    }
}
