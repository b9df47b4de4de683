//! Power operations.

use std::fmt;

use vsphere_vim_types::{MoRef, PropertyPath, VirtualMachinePowerState, methods, mo};

use crate::{client::Vim, error::Result};

/// The power state of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PowerState {
    /// Off; disks may be written.
    Off,
    /// Running.
    On,
    /// Suspended: memory is in a file, disks are still in use.
    Suspended,
    /// A state of a newer server.
    Other(Box<str>),
}

impl From<&VirtualMachinePowerState> for PowerState {
    fn from(state: &VirtualMachinePowerState) -> Self {
        match state {
            VirtualMachinePowerState::PoweredOff => Self::Off,
            VirtualMachinePowerState::PoweredOn => Self::On,
            VirtualMachinePowerState::Suspended => Self::Suspended,
            VirtualMachinePowerState::Other(name) => Self::Other(name.clone()),
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "powered off",
            Self::On => "powered on",
            Self::Suspended => "suspended",
            Self::Other(name) => name,
        })
    }
}

impl Vim {
    /// The power state at this moment.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn power_state(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<PowerState> {
        const PATH: PropertyPath<mo::VirtualMachine, VirtualMachinePowerState> =
            PropertyPath::new("runtime.powerState");
        Ok(PowerState::from(&self.get(vm, PATH).await?))
    }

    /// Powers a virtual machine on, or resumes it, and waits until that is done.
    ///
    /// # Errors
    /// `InvalidPowerState` when it is on already.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.PowerOn`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation may go on.
    #[doc(alias = "PowerOnVM_Task")]
    pub async fn power_on(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let task = self.invoke(vm, methods::PowerOnVM_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }

    /// Cuts the power, without asking the guest, and waits until that is done.
    ///
    /// # Errors
    /// `InvalidPowerState` when it is off already.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.PowerOff`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation may go on.
    #[doc(alias = "PowerOffVM_Task")]
    pub async fn power_off(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let task = self.invoke(vm, methods::PowerOffVM_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }

    /// Suspends a virtual machine and waits until that is done.
    ///
    /// # Errors
    /// `InvalidPowerState` when it is not on.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.Suspend`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation may go on.
    #[doc(alias = "SuspendVM_Task")]
    pub async fn suspend(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let task = self.invoke(vm, methods::SuspendVM_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }

    /// Resets a virtual machine, without asking the guest, and waits until that is done.
    ///
    /// # Errors
    /// `InvalidPowerState` when it is not on.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.Reset`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the operation may go on.
    #[doc(alias = "ResetVM_Task")]
    pub async fn reset(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let task = self.invoke(vm, methods::ResetVM_Task::default()).await?;
        self.wait(&task).await.map(drop)
    }

    /// Asks the guest to shut down and returns at once; the power state tells when it is done.
    ///
    /// # Errors
    /// `ToolsUnavailable` when VMware Tools are not running.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.PowerOff`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have asked the guest.
    #[doc(alias = "ShutdownGuest")]
    pub async fn shut_down_guest(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        self.invoke(vm, methods::ShutdownGuest::default()).await
    }

    /// Asks the guest to restart and returns at once.
    ///
    /// # Errors
    /// `ToolsUnavailable` when VMware Tools are not running.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.Reset`.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have asked the guest.
    #[doc(alias = "RebootGuest")]
    pub async fn restart_guest(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        self.invoke(vm, methods::RebootGuest::default()).await
    }
}
