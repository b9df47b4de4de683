//! Leases: whole disks of a machine exported or imported as streams over HTTPS, without a disk library.
//!
//! ```no_run
//! # async fn example(vim: vsphere_vim::Vim, vm: vsphere_vim::MoRef<vsphere_vim::mo::VirtualMachine>) -> vsphere_vim::Result<()> {
//! use vsphere_vim::lease::LeaseOptions;
//!
//! let lease = vim.export_vm(&vm, LeaseOptions::default()).await?;
//! for device in lease.devices().iter().filter(|device| device.is_disk) {
//!     let mut disk = lease.download(device).await?;
//!     while let Some(piece) = disk.try_next().await? {
//!         // A `streamOptimized` VMDK, as the server makes it.
//! #       drop(piece);
//!     }
//! }
//! let report = lease.complete().await?;
//! println!("{} files, {} checked against the manifest", report.files.len(), report.checked());
//! # Ok(())
//! # }
//! ```
//! A lease dies when the server hears nothing of it for its time-out (minutes). While one is held here, a task of its own
//! tells the server how far things are, well before that and whatever the consumer's pace. When the server cannot be
//! told any more, the next read fails with the reason. A lease that is dropped without [`ExportLease::complete`] is
//! aborted: the server then removes what was imported.
//!
//! A machine has one lease at a time; several devices of a lease may be transferred one after another or at once.

mod device;
mod export;
mod import;
mod keeper;
mod machine;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use vsphere_vim_types::{
    HttpNfcLeaseInfo, HttpNfcLeaseState, LocalizedMethodFault, ManagedObjectReference, MoRef, PropertyPath,
    methods::{HttpNfcLeaseAbort, HttpNfcLeaseComplete, HttpNfcLeaseProgress},
    mo,
};

pub use self::{
    device::LeaseDevice,
    export::{DeviceStream, ExportLease, ExportReport, ExportedFile},
    import::{ImportLease, ImportRequest},
};
use self::{
    keeper::{Shared, keep},
    machine::{Action, Event, Failure, Machine, Seen},
};
use crate::{
    call::CallOptions,
    client::Vim,
    error::{Call, Error, Result, ServerFault},
};

/// How a lease is held. Begin from the default: further settings may come.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// How long the server may prepare. 10 minutes.
    pub ready_timeout: Duration,
    /// Between two questions whether it is ready, at first; grows to eight times that. 250 ms.
    pub poll_interval: Duration,
    /// Longest time between two reports of progress. A quarter of the lease's time-out, if that is shorter. 30 s.
    pub report_interval: Duration,
    /// Whether an export is checked against the server's manifest where there is one. Yes.
    pub verify: bool,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            ready_timeout: Duration::from_secs(600),
            poll_interval: Duration::from_millis(250),
            report_interval: Duration::from_secs(30),
            verify: true,
        }
    }
}

/// What exports and imports have in common: a lease on the server, and the task that keeps it alive.
#[derive(Debug)]
struct Lease {
    vim: Vim,
    moref: MoRef<mo::HttpNfcLease>,
    entity: ManagedObjectReference,
    devices: Vec<LeaseDevice>,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    /// Completed or aborted: nothing is left on the server.
    over: bool,
}

impl Lease {
    /// Takes over a lease that the server has just made: waits until it is ready, then keeps it alive.
    async fn take(vim: &Vim, moref: MoRef<mo::HttpNfcLease>, options: &LeaseOptions) -> Result<Self> {
        // From here on every way out aborts it.
        let mut lease = Self {
            vim: vim.clone(),
            moref,
            entity: ManagedObjectReference::of("ManagedEntity", ""),
            devices: Vec::new(),
            shared: Arc::new(Shared::new()),
            keeper: None,
            over: false,
        };
        match lease.prepare(options).await {
            Ok(()) => Ok(lease),
            Err(error) => {
                lease.abort().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self, options: &LeaseOptions) -> Result<()> {
        let started = tokio::time::Instant::now();
        let mut machine = Machine::new(options);
        let info = loop {
            let seen = self.look().await?;
            let action = machine.step(started.elapsed(), Event::Seen(seen));
            match action {
                Action::Wait(until) => tokio::time::sleep_until(started + until).await,
                Action::Ready => break self.vim.get(&self.moref, mo::HttpNfcLease::INFO).await?,
                Action::Fail(Failure::Refused) => return Err(self.refusal().await),
                Action::Fail(Failure::NotReady) => {
                    let operation = format!("preparing {}", self.moref).into();
                    return Err(Error::TimedOut { operation, after: options.ready_timeout });
                }
                Action::Fail(_) | Action::Report => {
                    let call = Call::on("HttpNfcLease", self.moref.as_untyped());
                    return Err(Error::protocol(call, "the lease ended before it began"));
                }
            }
        };
        self.hold(&info, machine, started)
    }

    fn hold(&mut self, info: &HttpNfcLeaseInfo, machine: Machine, started: tokio::time::Instant) -> Result<()> {
        self.entity = info.entity.erase();
        for url in &info.device_url {
            self.devices.push(LeaseDevice::from_wire(url, self.vim.endpoint())?);
        }
        let sizes: Option<Vec<u64>> =
            self.devices.iter().filter(|device| device.is_disk).map(|device| device.file_size).collect();
        let by_files = sizes.map(|sizes| sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size)));
        let by_capacity = u64::try_from(info.total_disk_capacity_in_kb).unwrap_or(0).saturating_mul(1024);
        self.shared.expect(by_files.filter(|total| *total > 0).unwrap_or(by_capacity));
        let (vim, moref, shared) = (self.vim.clone(), self.moref.clone(), Arc::clone(&self.shared));
        self.keeper = Some(tokio::spawn(keep(vim, moref, shared, machine, started)));
        Ok(())
    }

    async fn look(&self) -> Result<Seen> {
        let state = self.vim.get(&self.moref, mo::HttpNfcLease::STATE).await?;
        Ok(match state {
            HttpNfcLeaseState::Initializing | HttpNfcLeaseState::Other(_) => Seen::Initializing,
            HttpNfcLeaseState::Ready => {
                let path = PropertyPath::<mo::HttpNfcLease, i32>::new("info.leaseTimeout");
                let seconds = self.vim.get_optional(&self.moref, path).await?;
                let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
                Seen::Ready { timeout: Duration::from_secs(seconds.unwrap_or(USUAL_TIMEOUT)) }
            }
            HttpNfcLeaseState::Done => Seen::Done,
            HttpNfcLeaseState::Error => Seen::Error,
        })
    }

    /// A lease that is gone was completed or timed out, and with the latter goes what was imported.
    async fn entity_is_there(&self) -> bool {
        let entity: MoRef<mo::ManagedEntity> = self.entity.cast();
        self.vim.get_optional(&entity, PropertyPath::<_, String>::new("name")).await.is_ok()
    }

    /// Why the server put the lease into its error state.
    async fn refusal(&self) -> Error {
        let reason = self.vim.get_optional(&self.moref, mo::HttpNfcLease::ERROR).await;
        let call = Call::on("HttpNfcLease", self.moref.as_untyped());
        match reason {
            Ok(Some(LocalizedMethodFault { fault, localized_message, .. })) => {
                let message = localized_message.unwrap_or_default().into();
                Error::Fault(Box::new(ServerFault { call, fault, message }))
            }
            Ok(None) => Error::protocol(call, "the lease failed without a reason"),
            Err(error) => error,
        }
    }

    /// Ends the lease as a success.
    async fn complete(&mut self) -> Result<()> {
        if let Some(failure) = self.shared.failure() {
            self.abort().await;
            return Err(failure);
        }
        self.stop();
        let full = HttpNfcLeaseProgress { percent: 100, ..Default::default() };
        if let Err(error) = self.vim.invoke(&self.moref, full).await {
            tracing::debug!(%error, lease = %self.moref, "the last report of progress");
        }
        let outcome = self.vim.invoke(&self.moref, HttpNfcLeaseComplete::default()).await;
        let outcome = match outcome {
            // The answer was lost: what became of it?
            Err(error @ Error::Transport(_)) => match self.look().await {
                Ok(Seen::Done) => Ok(()),
                Err(gone) if gone.is_fault("ManagedObjectNotFound") && self.entity_is_there().await => Ok(()),
                _ => Err(error),
            },
            other => other,
        };
        match outcome {
            Ok(()) => {
                self.over = true;
                Ok(())
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Ends the lease as a failure, as well as the network lets it.
    async fn abort(&mut self) {
        self.stop();
        if !self.over {
            // Dropped in here, it is asked once more in the background.
            abort(&self.vim, &self.moref).await;
            self.over = true;
        }
    }

    fn stop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop();
        if self.over {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let (vim, moref) = (self.vim.clone(), self.moref.clone());
                runtime.spawn(async move { abort(&vim, &moref).await });
            }
            Err(_) => tracing::warn!(lease = %self.moref, "dropped outside of a runtime; the server lets it time out"),
        }
    }
}

/// Aborting twice does no harm, and a lease that is gone needs none.
async fn abort(vim: &Vim, lease: &MoRef<mo::HttpNfcLease>) {
    let options = CallOptions::default().idempotent(true);
    match vim.invoke_with(lease, HttpNfcLeaseAbort::default(), options).await {
        Ok(()) => tracing::info!(%lease, "aborted"),
        Err(error) if error.is_fault("ManagedObjectNotFound") || error.is_fault("InvalidState") => {}
        Err(error) => tracing::warn!(%lease, %error, "could not be aborted; the server lets it time out"),
    }
}

/// What servers give, for those that do not say it. Seconds.
const USUAL_TIMEOUT: u64 = 300;
