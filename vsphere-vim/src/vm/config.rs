//! Reading and changing the configuration.

use vsphere_vim_types::{MoRef, PropertyPath, VirtualMachineConfigInfo, VirtualMachineConfigSpec, methods, mo};

use crate::{client::Vim, error::Result};

impl Vim {
    /// The whole configuration of a virtual machine, as a backup keeps it.
    ///
    /// # Errors
    /// [`Error::Property`](crate::Error::Property) while the machine is inaccessible.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "vim.vm.ConfigInfo")]
    pub async fn config(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<VirtualMachineConfigInfo> {
        self.get(vm, mo::VirtualMachine::CONFIG).await
    }

    /// The configuration as it was when the snapshot was taken.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn snapshot_config(
        &self,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
    ) -> Result<VirtualMachineConfigInfo> {
        self.get(snapshot, mo::VirtualMachineSnapshot::CONFIG).await
    }

    /// Changes the configuration and waits until that is done. Fields that are `None` or empty stay as they are.
    ///
    /// # Errors
    /// `InvalidPowerState`, `ConcurrentAccess` (read again and retry), `TaskInProgress` and the faults of the devices.
    ///
    /// # Privileges
    /// Depends on what is changed; `VirtualMachine.Config.ChangeTracking` for changed block tracking.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the change may still happen.
    #[doc(alias = "ReconfigVM_Task")]
    pub async fn reconfigure(&self, vm: &MoRef<mo::VirtualMachine>, spec: VirtualMachineConfigSpec) -> Result<()> {
        let task = self.invoke(vm, methods::ReconfigVM_Task { spec, ..Default::default() }).await?;
        self.wait(&task).await.map(drop)
    }

    /// Whether changed block tracking is configured. It takes effect with the next stun (snapshot, power cycle).
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "changeTrackingEnabled")]
    pub async fn change_tracking_enabled(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<bool> {
        const PATH: PropertyPath<mo::VirtualMachine, bool> = PropertyPath::new("config.changeTrackingEnabled");
        Ok(self.get_optional(vm, PATH).await?.unwrap_or(false))
    }

    /// Switches changed block tracking on or off in the configuration. See [`Vim::change_tracking_enabled`].
    ///
    /// # Errors
    /// As [`Vim::reconfigure`].
    ///
    /// # Privileges
    /// `VirtualMachine.Config.ChangeTracking`.
    ///
    /// # Cancel safety
    /// As [`Vim::reconfigure`].
    pub async fn set_change_tracking(&self, vm: &MoRef<mo::VirtualMachine>, enabled: bool) -> Result<()> {
        let spec = VirtualMachineConfigSpec { change_tracking_enabled: Some(enabled), ..Default::default() };
        self.reconfigure(vm, spec).await
    }

    /// True when the disks of removed snapshots still wait to be merged.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "consolidationNeeded")]
    pub async fn consolidation_needed(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<bool> {
        const PATH: PropertyPath<mo::VirtualMachine, bool> = PropertyPath::new("runtime.consolidationNeeded");
        Ok(self.get_optional(vm, PATH).await?.unwrap_or(false))
    }

    /// Merges what removed snapshots left behind, and waits until that is done.
    ///
    /// # Errors
    /// `TaskInProgress`, `FileLocked` while another program reads the disks.
    ///
    /// # Privileges
    /// `VirtualMachine.State.RemoveSnapshot`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the merge goes on.
    ///
    /// # Since
    /// vSphere 5.0.
    #[doc(alias = "ConsolidateVMDisks_Task")]
    pub async fn consolidate_disks(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let task = self.invoke(vm, methods::ConsolidateVMDisks_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }
}
