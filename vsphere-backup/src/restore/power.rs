//! Off before its disks are written, and as it was afterwards.

use vsphere_vim::{
    MoRef, PowerState, Vim, mo,
    vm::{ShutdownOutcome, ShutdownPolicy},
};

use super::Restore;
use crate::{error::Result, event::Event, server::failed};

/// What is done with a machine that is not off when its disks are to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PowerPolicy {
    /// The restore is refused.
    #[default]
    Refuse,
    /// It is shut down, by the guest and otherwise as the policy says, and powered on again after the restore.
    ShutDown(ShutdownPolicy),
    /// Its power is cut, and it is powered on again after the restore. What the guest had not written is lost, which
    /// the restore does away with anyway.
    PowerOff,
}

impl Restore {
    /// Powers the machine off where the policy allows it. Tells whether it was on, and so is to be powered on again.
    pub(super) async fn power_down(&self, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<bool> {
        let wrong = || failed("powering off", vm.value());
        let state = vim.power_state(vm).await.map_err(wrong())?;
        if state == PowerState::Off {
            return Ok(false);
        }
        match &self.power {
            PowerPolicy::Refuse => return Ok(false),
            PowerPolicy::PowerOff => vim.power_off(vm).await.map_err(wrong())?,
            PowerPolicy::ShutDown(policy) => {
                let down = self.cancel.run(async { vim.shut_down(vm, policy.clone()).await.map_err(wrong()) }).await?;
                if let ShutdownOutcome::PowerCut(why) = down {
                    self.events.warn(format!("the power of {vm} was cut: {why:?}"));
                }
            }
        }
        self.events.send(Event::PoweredOff);
        // A suspended machine's memory does not fit the restored disks: it starts anew, or not at all.
        Ok(state == PowerState::On)
    }

    /// Powers the machine on again. A failure is a warning: its disks are restored.
    pub(super) async fn power_up(&self, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> bool {
        match vim.power_on(vm).await {
            Ok(()) => self.events.send(Event::PoweredOn),
            Err(error) => {
                self.events.warn(format!("{vm} is restored and could not be powered on again: {error}"));
                return false;
            }
        }
        true
    }
}
