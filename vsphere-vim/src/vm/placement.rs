//! Where a machine lives and runs: moving it, and making another of it.

use std::collections::BTreeMap;

use vsphere_vim_types::{
    MoRef, VirtualMachineCloneSpec, VirtualMachineConfigSpec, VirtualMachineRelocateSpec,
    VirtualMachineRelocateSpecDiskLocator, methods, mo,
};

use crate::{client::Vim, device::DeviceKey, error::Result};

/// Where a machine goes; what is not stated stays as it is.
#[doc(alias = "VirtualMachineRelocateSpec")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Relocation {
    datastore: Option<MoRef<mo::Datastore>>,
    disks: BTreeMap<DeviceKey, MoRef<mo::Datastore>>,
    pool: Option<MoRef<mo::ResourcePool>>,
    host: Option<MoRef<mo::HostSystem>>,
    folder: Option<MoRef<mo::Folder>>,
}

impl Relocation {
    /// Nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Configuration and all disks that [`disk`](Self::disk) says nothing about go to that datastore.
    pub fn datastore(self, datastore: &MoRef<mo::Datastore>) -> Self {
        Self { datastore: Some(datastore.clone()), ..self }
    }

    /// One disk goes to that datastore.
    pub fn disk(mut self, disk: DeviceKey, datastore: &MoRef<mo::Datastore>) -> Self {
        self.disks.insert(disk, datastore.clone());
        self
    }

    /// It runs in that resource pool.
    pub fn pool(self, pool: &MoRef<mo::ResourcePool>) -> Self {
        Self { pool: Some(pool.clone()), ..self }
    }

    /// It runs on that host.
    pub fn host(self, host: &MoRef<mo::HostSystem>) -> Self {
        Self { host: Some(host.clone()), ..self }
    }

    /// It is shown in that folder. Needs vSphere 6.0.
    pub fn folder(self, folder: &MoRef<mo::Folder>) -> Self {
        Self { folder: Some(folder.clone()), ..self }
    }

    fn into_spec(self) -> VirtualMachineRelocateSpec {
        let locators = self.disks.into_iter().map(|(disk, datastore)| VirtualMachineRelocateSpecDiskLocator {
            disk_id: disk.0,
            datastore,
            ..Default::default()
        });
        VirtualMachineRelocateSpec {
            datastore: self.datastore,
            disk: locators.collect(),
            pool: self.pool,
            host: self.host,
            folder: self.folder,
            ..Default::default()
        }
    }
}

/// What a copy of a machine is to be.
#[doc(alias = "VirtualMachineCloneSpec")]
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct CloneOptions {
    place: Relocation,
    config: Option<VirtualMachineConfigSpec>,
    snapshot: Option<MoRef<mo::VirtualMachineSnapshot>>,
    template: bool,
    power_on: bool,
}

impl CloneOptions {
    /// A machine that is off, beside the old one, of its present state.
    pub fn new() -> Self {
        Self::default()
    }

    /// In another place.
    pub fn place(self, place: Relocation) -> Self {
        Self { place, ..self }
    }

    /// With changes to its configuration.
    pub fn config(self, config: VirtualMachineConfigSpec) -> Self {
        Self { config: Some(config), ..self }
    }

    /// Of the state that a snapshot holds.
    pub fn snapshot(self, snapshot: &MoRef<mo::VirtualMachineSnapshot>) -> Self {
        Self { snapshot: Some(snapshot.clone()), ..self }
    }

    /// As a template.
    pub fn template(self, template: bool) -> Self {
        Self { template, ..self }
    }

    /// Powered on when it is complete.
    pub fn power_on(self, power_on: bool) -> Self {
        Self { power_on, ..self }
    }
}

impl Vim {
    /// Moves a machine, its files or both, and waits until that is done.
    ///
    /// # Errors
    /// `InvalidArgument` for a disk or place that does not exist, `NoDiskSpace`, `MigrationFault` with the reason,
    /// `MethodDisabled` while a backup locks the machine in its place.
    ///
    /// # Privileges
    /// `Resource.HotMigrate` or `Resource.ColdMigrate`, `Datastore.AllocateSpace` on the new datastores.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the migration goes on.
    #[doc(alias = "RelocateVM_Task")]
    pub async fn relocate(&self, vm: &MoRef<mo::VirtualMachine>, to: Relocation) -> Result<()> {
        let task = self.invoke(vm, methods::RelocateVM_Task { spec: to.into_spec(), ..Default::default() }).await?;
        self.wait(&task).await.map(drop)
    }

    /// Makes another machine of one, and waits until it is complete. vCenter only.
    ///
    /// # Errors
    /// `DuplicateName`, `InvalidName`, `NoDiskSpace`, `FileFault`, `NotSupported` on an ESXi host.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.Clone`, `VirtualMachine.Inventory.CreateFromExisting` on the folder,
    /// `Datastore.AllocateSpace`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the copy may still be made.
    #[doc(alias = "CloneVM_Task")]
    pub async fn clone_vm(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        folder: &MoRef<mo::Folder>,
        name: &str,
        options: CloneOptions,
    ) -> Result<MoRef<mo::VirtualMachine>> {
        let CloneOptions { place, config, snapshot, template, power_on } = options;
        let location = place.into_spec();
        let spec = VirtualMachineCloneSpec { location, template, config, power_on, snapshot, ..Default::default() };
        let args = methods::CloneVM_Task { folder: folder.clone(), name: name.to_owned(), spec, ..Default::default() };
        let task = self.invoke(vm, args).await?;
        self.wait(&task).await?.result()
    }
}
