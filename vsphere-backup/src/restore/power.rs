//! Off before its disks are written, and as it was afterwards.

use vsphere_vim::{
    MoRef, PowerState, Vim, mo,
    vm::{ShutdownOutcome, ShutdownPolicy},
};

use super::Restore;
use crate::{
    error::Result,
    event::Event,
    server::failed,
    step::{Step, Steps},
};

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
    pub(super) async fn power_down(&self, steps: &Steps, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<bool> {
        let wrong = || failed("powering off", vm.value());
        let ask = || async { vim.power_state(vm).await.map_err(wrong()) };
        let state = steps.take(Step::AskPower, ask).await?;
        if state == PowerState::Off || self.power == PowerPolicy::Refuse {
            return Ok(false);
        }
        let cut = steps.take(Step::PowerOff, || async {
            // An answer may have been lost before.
            if vim.power_state(vm).await.map_err(wrong())? == PowerState::Off {
                return Ok(None);
            }
            match &self.power {
                PowerPolicy::ShutDown(policy) => {
                    let down = async { vim.shut_down(vm, policy.clone()).await.map_err(wrong()) };
                    match self.cancel.run(down).await? {
                        ShutdownOutcome::PowerCut(why) => Ok(Some(why)),
                        _ => Ok(None),
                    }
                }
                _ => vim.power_off(vm).await.map(|()| None).map_err(wrong()),
            }
        });
        if let Some(why) = cut.await? {
            self.events.warn(format!("the power of {vm} was cut: {why:?}"));
        }
        self.events.send(Event::PoweredOff);
        // A suspended machine's memory does not fit the restored disks: it starts anew, or not at all.
        Ok(state == PowerState::On)
    }

    /// Powers the machine on.
    pub(super) async fn power_up(&self, steps: &Steps, vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<()> {
        let wrong = || failed("powering on", vm.value());
        let on = || async {
            // An answer may have been lost before.
            if vim.power_state(vm).await.map_err(wrong())? == PowerState::On {
                return Ok(());
            }
            vim.power_on(vm).await.map_err(wrong())
        };
        steps.take(Step::PowerOn, on).await?;
        self.events.send(Event::PoweredOn);
        Ok(())
    }
}
