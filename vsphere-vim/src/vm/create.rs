//! How machines come into the inventory and go: creating, registering, destroying, marking.

use vsphere_vim_types::{Managed, MoRef, VirtualMachineConfigSpec, methods, mo};

use crate::{client::Vim, error::Result};

/// A machine whose files exist, to be taken into the inventory.
#[derive(Clone, Debug)]
#[must_use]
pub struct RegisterVm {
    path: String,
    name: Option<String>,
    pool: Option<MoRef<mo::ResourcePool>>,
    host: Option<MoRef<mo::HostSystem>>,
    as_template: bool,
}

impl RegisterVm {
    /// The machine with that configuration file, `[datastore] folder/name.vmx`, in that resource pool.
    pub fn new(path: impl Into<String>, pool: &MoRef<mo::ResourcePool>) -> Self {
        Self { path: path.into(), name: None, pool: Some(pool.clone()), host: None, as_template: false }
    }

    /// The template with that configuration file, `[datastore] folder/name.vmtx`, on that host.
    pub fn template(path: impl Into<String>, host: &MoRef<mo::HostSystem>) -> Self {
        Self { path: path.into(), name: None, pool: None, host: Some(host.clone()), as_template: true }
    }

    /// A name other than the one in the configuration file.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// On that host.
    pub fn host(self, host: &MoRef<mo::HostSystem>) -> Self {
        Self { host: Some(host.clone()), ..self }
    }
}

impl Vim {
    /// Creates a machine and waits until it is there.
    ///
    /// `spec` comes from [`ConfigConversion`](crate::config_spec::ConfigConversion) for a machine that was backed up.
    ///
    /// # Errors
    /// `DuplicateName`, `InvalidName`, `FileAlreadyExists`, `InvalidDatastorePath`, `InvalidDeviceSpec` and the other
    /// faults of devices, `InsufficientResourcesFault`, `OutOfBounds`.
    ///
    /// # Privileges
    /// `VirtualMachine.Inventory.Create` on the folder, `Resource.AssignVMToPool`, `Datastore.AllocateSpace`,
    /// `Network.Assign`, and those of the devices.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the machine may still be created.
    #[doc(alias = "CreateVM_Task")]
    pub async fn create_vm(
        &self,
        folder: &MoRef<mo::Folder>,
        pool: &MoRef<mo::ResourcePool>,
        host: Option<&MoRef<mo::HostSystem>>,
        spec: VirtualMachineConfigSpec,
    ) -> Result<MoRef<mo::VirtualMachine>> {
        let (pool, host) = (pool.clone(), host.cloned());
        let task =
            self.invoke(folder, methods::CreateVM_Task { config: spec, pool, host, ..Default::default() }).await?;
        self.wait(&task).await?.result()
    }

    /// Creates a machine in a vApp and waits until it is there.
    ///
    /// # Errors
    /// As [`Vim::create_vm`].
    ///
    /// # Privileges
    /// As [`Vim::create_vm`], on the vApp.
    ///
    /// # Cancel safety
    /// As [`Vim::create_vm`].
    #[doc(alias = "CreateChildVM_Task")]
    pub async fn create_vm_in_vapp(
        &self,
        vapp: &MoRef<mo::VirtualApp>,
        host: Option<&MoRef<mo::HostSystem>>,
        spec: VirtualMachineConfigSpec,
    ) -> Result<MoRef<mo::VirtualMachine>> {
        let args = methods::CreateChildVM_Task { config: spec, host: host.cloned(), ..Default::default() };
        let task = self.invoke(&vapp.cast::<mo::ResourcePool>(), args).await?;
        self.wait(&task).await?.result()
    }

    /// Takes a machine whose files exist into the inventory.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there already, `DuplicateName`, `InvalidName`, `InvalidDatastorePath`, `NotFound`
    /// when there is no such file.
    ///
    /// # Privileges
    /// `VirtualMachine.Inventory.Register` on the folder, `Resource.AssignVMToPool`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the machine may still be registered.
    #[doc(alias = "RegisterVM_Task")]
    pub async fn register_vm(&self, folder: &MoRef<mo::Folder>, what: RegisterVm) -> Result<MoRef<mo::VirtualMachine>> {
        let RegisterVm { path, name, pool, host, as_template } = what;
        let args = methods::RegisterVM_Task { path, name, as_template, pool, host, ..Default::default() };
        let task = self.invoke(folder, args).await?;
        self.wait(&task).await?.result()
    }

    /// Takes a machine out of the inventory; its files stay.
    ///
    /// # Errors
    /// `InvalidPowerState` unless it is off.
    ///
    /// # Privileges
    /// `VirtualMachine.Inventory.Unregister`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have unregistered it.
    #[doc(alias = "UnregisterVM")]
    pub async fn unregister_vm(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        self.invoke(vm, methods::UnregisterVM::default()).await
    }

    /// Destroys an object of the inventory and what belongs to it: a machine's files, a folder's content.
    ///
    /// # Errors
    /// `InvalidPowerState` for a machine that is not off, `ResourceInUse`.
    ///
    /// # Privileges
    /// Depends on the object; `VirtualMachine.Inventory.Delete` for machines.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the object is destroyed all the same.
    #[doc(alias = "Destroy_Task")]
    pub async fn destroy<T: Managed>(&self, object: &MoRef<T>) -> Result<()> {
        let task = self.invoke(&object.cast::<mo::ManagedEntity>(), methods::Destroy_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }

    /// Raises the version of a machine's virtual hardware, to the newest that the host knows or to `version`.
    ///
    /// # Errors
    /// `AlreadyUpgraded` when it is that new already, `InvalidPowerState` unless it is off.
    ///
    /// # Privileges
    /// `VirtualMachine.Config.UpgradeVirtualHardware`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the upgrade goes on.
    #[doc(alias = "UpgradeVM_Task")]
    pub async fn upgrade_hardware(&self, vm: &MoRef<mo::VirtualMachine>, version: Option<u32>) -> Result<()> {
        let version = version.map(|number| format!("vmx-{number:02}"));
        let task = self.invoke(vm, methods::UpgradeVM_Task { version, ..Default::default() }).await?;
        self.wait(&task).await.map(drop)
    }

    /// Makes a template of a machine.
    ///
    /// # Errors
    /// `InvalidPowerState` unless it is off; `NotSupported` on ESXi hosts without vCenter and for templates.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.MarkAsTemplate`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have marked it.
    #[doc(alias = "MarkAsTemplate")]
    pub async fn mark_as_template(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        self.invoke(vm, methods::MarkAsTemplate::default()).await
    }

    /// Makes a machine of a template again, in that resource pool.
    ///
    /// # Errors
    /// `NotSupported` when it is no template, `InvalidDatastore`, `VmConfigFault`.
    ///
    /// # Privileges
    /// `VirtualMachine.Provisioning.MarkAsVM`, `Resource.AssignVMToPool`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have marked it.
    #[doc(alias = "MarkAsVirtualMachine")]
    pub async fn mark_as_vm(
        &self,
        template: &MoRef<mo::VirtualMachine>,
        pool: &MoRef<mo::ResourcePool>,
        host: Option<&MoRef<mo::HostSystem>>,
    ) -> Result<()> {
        let (pool, host) = (pool.clone(), host.cloned());
        self.invoke(template, methods::MarkAsVirtualMachine { pool, host, ..Default::default() }).await
    }
}
