//! Snapshots: create, find, remove, revert.

use vsphere_vim_types::{DateTime, MoRef, VirtualMachineSnapshotInfo, VirtualMachineSnapshotTree, methods, mo};

use super::{GuestQuiesce, PowerState};
use crate::{
    client::Vim,
    error::{Error, Result},
};

/// What kind of snapshot to take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CreateSnapshotOptions {
    /// The snapshot's name; need not be unique.
    pub name: String,
    /// A text that comes back in the snapshot tree; a good place for a tag of the backup program.
    pub description: String,
    /// Whether the running machine's memory is saved. Backups do not need it.
    pub memory: bool,
    /// Whether the guest's file systems are brought into a consistent state first (needs VMware Tools).
    pub quiesce: bool,
    /// How the guest is quiesced, where that is to be said. Needs vSphere 6.5.
    pub quiesce_as: Option<GuestQuiesce>,
}

impl CreateSnapshotOptions {
    /// A snapshot of the disks alone, neither with memory nor quiesced.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: String::new(), memory: false, quiesce: false, quiesce_as: None }
    }

    /// Sets the description.
    pub fn description(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    /// Whether the memory is saved.
    pub fn memory(self, memory: bool) -> Self {
        Self { memory, ..self }
    }

    /// Whether the guest is quiesced.
    pub fn quiesce(self, quiesce: bool) -> Self {
        Self { quiesce, ..self }
    }

    /// Quiesces the guest in that way.
    pub fn quiesce_as(self, how: GuestQuiesce) -> Self {
        Self { quiesce: true, quiesce_as: Some(how), ..self }
    }
}

/// What goes together with a snapshot that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RemoveSnapshotOptions {
    /// Whether the snapshots taken after it go too. No, by default: they may belong to others.
    pub children: bool,
    /// Whether the disks are merged at once. Yes, by default; otherwise [`Vim::consolidate_disks`] has to follow.
    pub consolidate: bool,
}

impl Default for RemoveSnapshotOptions {
    fn default() -> Self {
        Self { children: false, consolidate: true }
    }
}

/// How a machine goes back to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RevertOptions {
    /// Whether the machine stays off although it ran when the snapshot was taken. Yes, by default.
    pub suppress_power_on: bool,
    /// The host on which it is powered on.
    pub host: Option<MoRef<mo::HostSystem>>,
}

impl Default for RevertOptions {
    fn default() -> Self {
        Self { suppress_power_on: true, host: None }
    }
}

/// A snapshot of a virtual machine, with those taken after it.
#[doc(alias = "VirtualMachineSnapshotTree")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The snapshot's reference.
    pub snapshot: MoRef<mo::VirtualMachineSnapshot>,
    /// Its number within the virtual machine.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// When it was taken, by the server's clock.
    pub created_at: DateTime,
    /// The machine's power state at that time; anything but off means that memory was saved.
    pub power_state: PowerState,
    /// Whether the guest was quiesced.
    pub quiesced: bool,
    /// The path of the manifest that VSS left, relative to the machine's directory.
    pub backup_manifest: Option<String>,
    /// The snapshots taken after it.
    pub children: Vec<Snapshot>,
}

/// All snapshots of a virtual machine.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SnapshotTree {
    /// The snapshot that the running state follows.
    pub current: Option<MoRef<mo::VirtualMachineSnapshot>>,
    /// The oldest snapshots, with their children.
    pub roots: Vec<Snapshot>,
}

impl SnapshotTree {
    /// Every snapshot, parents before their children.
    pub fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        let mut pending: Vec<&Snapshot> = self.roots.iter().rev().collect();
        std::iter::from_fn(move || {
            let next = pending.pop()?;
            pending.extend(next.children.iter().rev());
            Some(next)
        })
    }

    /// Every snapshot of that name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        self.iter().filter(move |snapshot| snapshot.name == name)
    }

    /// Every snapshot with that name and description: what an earlier run of the same program left behind.
    pub fn matching<'a>(&'a self, name: &'a str, description: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        self.named(name).filter(move |snapshot| snapshot.description == description)
    }

    /// Every snapshot with that description.
    pub fn described<'a>(&'a self, description: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        self.iter().filter(move |snapshot| snapshot.description == description)
    }

    /// The snapshot that the running state follows.
    pub fn current(&self) -> Option<&Snapshot> {
        self.get(self.current.as_ref()?)
    }

    /// The snapshot with that reference.
    pub fn get(&self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Option<&Snapshot> {
        self.iter().find(|candidate| candidate.snapshot == *snapshot)
    }

    /// True when the machine has no snapshots.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }
}

impl From<VirtualMachineSnapshotInfo> for SnapshotTree {
    fn from(info: VirtualMachineSnapshotInfo) -> Self {
        Self {
            current: info.current_snapshot,
            roots: info.root_snapshot_list.into_iter().map(Snapshot::from).collect(),
        }
    }
}

impl From<VirtualMachineSnapshotTree> for Snapshot {
    fn from(tree: VirtualMachineSnapshotTree) -> Self {
        // Recursion is bounded by the depth that the XML reader allows.
        Self {
            snapshot: tree.snapshot,
            id: tree.id,
            name: tree.name,
            description: tree.description,
            created_at: tree.create_time,
            power_state: PowerState::from(&tree.state),
            quiesced: tree.quiesced,
            backup_manifest: tree.backup_manifest,
            children: tree.child_snapshot_list.into_iter().map(Self::from).collect(),
        }
    }
}

impl Vim {
    /// Takes a snapshot and waits until it is there.
    ///
    /// # Errors
    /// `ApplicationQuiesceFault` and its kin when quiescing fails, `TaskInProgress`, `InvalidState`,
    /// `TooManySnapshotLevels`, `FileFault`.
    ///
    /// # Privileges
    /// `VirtualMachine.State.CreateSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future may leave a snapshot behind; find it with [`Vim::snapshots`]. To follow or cancel the work,
    /// use [`Vim::create_snapshot_task`] and [`Vim::wait`].
    #[doc(alias = "CreateSnapshot_Task")]
    pub async fn create_snapshot(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        options: CreateSnapshotOptions,
    ) -> Result<MoRef<mo::VirtualMachineSnapshot>> {
        let task = self.create_snapshot_task(vm, options).await?;
        self.wait(&task).await?.result()
    }

    /// Begins to take a snapshot; the task's result is the snapshot's reference.
    ///
    /// # Errors
    /// As [`Vim::create_snapshot`].
    ///
    /// # Cancel safety
    /// As [`Vim::create_snapshot`].
    pub async fn create_snapshot_task(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        options: CreateSnapshotOptions,
    ) -> Result<MoRef<mo::Task>> {
        let CreateSnapshotOptions { name, description, memory, quiesce, quiesce_as } = options;
        let description = Some(description);
        if let Some(how) = quiesce_as.filter(|_| quiesce) {
            if self.version().is_at_least(GuestQuiesce::SINCE) {
                let quiesce_spec = Some(how.to_wire()?);
                let args =
                    methods::CreateSnapshotEx_Task { name, description, memory, quiesce_spec, ..Default::default() };
                return self.invoke(vm, args).await;
            }
            if !how.plain_on_old_servers {
                let why = format!("it came with {}, and {} is spoken", GuestQuiesce::SINCE, self.version());
                return Err(Error::unsupported("CreateSnapshotEx_Task", why));
            }
        }
        let args = methods::CreateSnapshot_Task { name, description, memory, quiesce, ..Default::default() };
        self.invoke(vm, args).await
    }

    /// All snapshots of a virtual machine.
    ///
    /// # Errors
    /// As [`Vim::get_optional`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn snapshots(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<SnapshotTree> {
        let info = self.get_optional(vm, mo::VirtualMachine::SNAPSHOT).await?;
        Ok(info.map(SnapshotTree::from).unwrap_or_default())
    }

    /// Removes a snapshot, merges its changes, and waits until that is done.
    ///
    /// # Errors
    /// `ManagedObjectNotFound` when it is gone already, `TaskInProgress`.
    ///
    /// # Privileges
    /// `VirtualMachine.State.RemoveSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the removal goes on.
    #[doc(alias = "RemoveSnapshot_Task")]
    pub async fn remove_snapshot(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        options: RemoveSnapshotOptions,
    ) -> Result<()> {
        let task = self.remove_snapshot_task(snapshot, options).await?;
        self.wait(&task).await.map(drop)
    }

    /// Begins to remove a snapshot.
    ///
    /// # Errors
    /// As [`Vim::remove_snapshot`].
    ///
    /// # Cancel safety
    /// As [`Vim::remove_snapshot`].
    pub async fn remove_snapshot_task(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        options: RemoveSnapshotOptions,
    ) -> Result<MoRef<mo::Task>> {
        // Before 5.0 the field did not exist and the merge always happened.
        let consolidate = self.version().is_at_least("5.0").then_some(options.consolidate);
        let args =
            methods::RemoveSnapshot_Task { remove_children: options.children, consolidate, ..Default::default() };
        self.invoke(snapshot, args).await
    }

    /// Brings the machine back to a snapshot and waits until that is done. It stays off whatever it was then.
    ///
    /// # Errors
    /// `InvalidPowerState`, `TaskInProgress`, `FileFault`.
    ///
    /// # Privileges
    /// `VirtualMachine.State.RevertToSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation goes on.
    #[doc(alias = "RevertToSnapshot_Task")]
    pub async fn revert_to_snapshot(&self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Result<()> {
        self.revert_to_snapshot_with(snapshot, RevertOptions::default()).await
    }

    /// The same with a choice of what happens afterwards.
    ///
    /// # Errors
    /// As [`Vim::revert_to_snapshot`].
    ///
    /// # Privileges
    /// `VirtualMachine.State.RevertToSnapshot`.
    ///
    /// # Cancel safety
    /// As [`Vim::revert_to_snapshot`].
    pub async fn revert_to_snapshot_with(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        options: RevertOptions,
    ) -> Result<()> {
        let RevertOptions { suppress_power_on, host } = options;
        let suppress_power_on = Some(suppress_power_on);
        let args = methods::RevertToSnapshot_Task { host, suppress_power_on, ..Default::default() };
        let task = self.invoke(snapshot, args).await?;
        self.wait(&task).await.map(drop)
    }

    /// Brings the machine back to its current snapshot: what it did since is lost.
    ///
    /// # Errors
    /// `NotFound` when it has no snapshot; else as [`Vim::revert_to_snapshot`].
    ///
    /// # Privileges
    /// `VirtualMachine.State.RevertToSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation goes on.
    #[doc(alias = "RevertToCurrentSnapshot_Task")]
    pub async fn revert_to_current_snapshot(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let args = methods::RevertToCurrentSnapshot_Task { suppress_power_on: Some(true), ..Default::default() };
        let task = self.invoke(vm, args).await?;
        self.wait(&task).await.map(drop)
    }

    /// Removes all snapshots of a machine, merges their changes unless told not to, and waits until that is done.
    ///
    /// # Errors
    /// `TaskInProgress`, `FileLocked`.
    ///
    /// # Privileges
    /// `VirtualMachine.State.RemoveSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the removal goes on.
    #[doc(alias = "RemoveAllSnapshots_Task")]
    pub async fn remove_all_snapshots(&self, vm: &MoRef<mo::VirtualMachine>, consolidate: bool) -> Result<()> {
        // As with the removal of one.
        let consolidate = self.version().is_at_least("5.0").then_some(consolidate);
        let task = self.invoke(vm, methods::RemoveAllSnapshots_Task { consolidate, ..Default::default() }).await?;
        self.wait(&task).await.map(drop)
    }

    /// Gives a snapshot another name or description; `None` leaves it as it is.
    ///
    /// # Errors
    /// `InvalidName`, `ManagedObjectNotFound`.
    ///
    /// # Privileges
    /// `VirtualMachine.State.RenameSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have renamed it.
    #[doc(alias = "RenameSnapshot")]
    pub async fn rename_snapshot(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<()> {
        let (name, description) = (name.map(str::to_owned), description.map(str::to_owned));
        self.invoke(snapshot, methods::RenameSnapshot { name, description, ..Default::default() }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32, name: &str, children: Vec<VirtualMachineSnapshotTree>) -> VirtualMachineSnapshotTree {
        VirtualMachineSnapshotTree {
            snapshot: MoRef::new(&format!("snapshot-{id}")),
            id,
            name: name.into(),
            child_snapshot_list: children,
            ..Default::default()
        }
    }

    #[test]
    fn the_walk_visits_parents_before_children_in_order() {
        let roots = vec![
            node(1, "a", vec![node(2, "b", vec![node(3, "a", vec![])]), node(4, "c", vec![])]),
            node(5, "a", vec![]),
        ];
        let tree = SnapshotTree::from(VirtualMachineSnapshotInfo { root_snapshot_list: roots, ..Default::default() });
        assert_eq!(tree.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(tree.named("a").map(|snapshot| snapshot.id).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(tree.get(&MoRef::new("snapshot-4")).map(|snapshot| snapshot.name.as_str()), Some("c"));
    }
}
