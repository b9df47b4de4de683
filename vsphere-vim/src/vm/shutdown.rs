//! Off, gently if possible: the guest is asked, waited for, and then switched off or not.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vsphere_vim_types::{MoRef, mo};

use super::PowerState;
use crate::{
    client::Vim,
    error::{Error, Result},
};

/// How far [`Vim::shut_down`] goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ShutdownPolicy {
    guest_timeout: Duration,
    force_after_timeout: bool,
    force_without_tools: bool,
}

impl ShutdownPolicy {
    /// The guest is asked and has five minutes; a guest that cannot or does not obey is an error.
    pub fn guest_only() -> Self {
        Self { guest_timeout: Duration::from_secs(300), force_after_timeout: false, force_without_tools: false }
    }

    /// The guest is asked and has five minutes; then, or when it cannot be asked, the power is cut.
    pub fn force() -> Self {
        Self { force_after_timeout: true, force_without_tools: true, ..Self::guest_only() }
    }

    /// How long the guest may take.
    pub fn guest_timeout(self, timeout: Duration) -> Self {
        Self { guest_timeout: timeout, ..self }
    }

    /// Whether the power is cut when the guest takes longer.
    pub fn force_after_timeout(self, force: bool) -> Self {
        Self { force_after_timeout: force, ..self }
    }

    /// Whether the power is cut when the guest cannot be asked: without VMware Tools, or while it is suspended.
    pub fn force_without_tools(self, force: bool) -> Self {
        Self { force_without_tools: force, ..self }
    }
}

/// How a machine came to be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownOutcome {
    /// It was off already.
    WasOff,
    /// The guest shut down.
    GuestObeyed,
    /// The power was cut.
    PowerCut(Forced),
}

/// Why the power was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forced {
    /// The guest did not obey in time.
    TimedOut,
    /// VMware Tools were not running.
    NoTools,
    /// It was suspended.
    Suspended,
}

impl Vim {
    /// Shuts a machine down as far as the policy allows, and returns when it is off.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when the guest does not obey in time and the power is not to be cut; `ToolsUnavailable`, or
    /// `InvalidPowerState` of a suspended machine, when it cannot be asked and the power is not to be cut.
    ///
    /// # Privileges
    /// `VirtualMachine.Interact.PowerOff`.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; a guest that was asked goes on shutting down.
    #[doc(alias = "ShutdownGuest")]
    pub async fn shut_down(&self, vm: &MoRef<mo::VirtualMachine>, policy: ShutdownPolicy) -> Result<ShutdownOutcome> {
        let state = self.power_state(vm).await?;
        if state == PowerState::Off {
            return Ok(ShutdownOutcome::WasOff);
        }
        if state == PowerState::Suspended && policy.force_without_tools {
            return self.cut_power(vm, Forced::Suspended).await;
        }
        match self.shut_down_guest(vm).await {
            Ok(()) => {}
            Err(error) if error.is_fault("ToolsUnavailable") && policy.force_without_tools => {
                return self.cut_power(vm, Forced::NoTools).await;
            }
            // It went off between the question and the request.
            Err(error) if error.is_fault("InvalidPowerState") && self.is_off(vm).await? => {
                return Ok(ShutdownOutcome::WasOff);
            }
            Err(error) => return Err(error),
        }
        if self.wait_for_power(vm, &PowerState::Off, policy.guest_timeout).await? {
            return Ok(ShutdownOutcome::GuestObeyed);
        }
        if policy.force_after_timeout {
            return self.cut_power(vm, Forced::TimedOut).await;
        }
        Err(Error::TimedOut { operation: format!("ShutdownGuest on {vm}").into(), after: policy.guest_timeout })
    }

    /// Waits until a machine's power state is `wanted`; false when `limit` passes first.
    ///
    /// # Errors
    /// As [`Vim::power_state`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "runtime.powerState")]
    pub async fn wait_for_power(
        &self,
        vm: &MoRef<mo::VirtualMachine>,
        wanted: &PowerState,
        limit: Duration,
    ) -> Result<bool> {
        // A limit beyond all time is none.
        let deadline = Instant::now().checked_add(limit);
        let mut pause = FIRST_PAUSE;
        loop {
            if self.power_state(vm).await? == *wanted {
                return Ok(true);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(false);
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn is_off(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<bool> {
        Ok(self.power_state(vm).await? == PowerState::Off)
    }

    async fn cut_power(&self, vm: &MoRef<mo::VirtualMachine>, why: Forced) -> Result<ShutdownOutcome> {
        match self.power_off(vm).await {
            // The guest was a moment faster.
            Err(error) if error.is_fault("InvalidPowerState") && self.is_off(vm).await? => {
                Ok(ShutdownOutcome::GuestObeyed)
            }
            other => other.map(|()| ShutdownOutcome::PowerCut(why)),
        }
    }
}

/// A guest takes seconds: the first questions come quickly, the later ones at leisure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
