//! Back up and restore vSphere virtual machines: engine and repository.
//!
//! ```no_run
//! use vsphere_backup::{Backup, Restore, RestoreMode, Since, repository::Repository};
//! use vsphere_vim::{Vim, VmLookup};
//!
//! # async fn example(vim: Vim) -> Result<(), Box<dyn std::error::Error>> {
//! let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await?.moref;
//! let repository = Repository::open_local("/backup").await?;
//!
//! // The first backup reads everything, the next only what changed; every point is a full image.
//! let report = Backup::of(&vim, vm.clone()).journal("/var/lib/backup").run(&repository).await?;
//! println!("{} read {} bytes", report.point.id(), report.bytes().read);
//!
//! // In place, only what differs now; the machine is off.
//! Restore::of(&report.point).mode(RestoreMode::OnlyDifferences).to_vm(&vim, vm).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//! - [`Backup`]: plan, journal, lock, snapshot, read, commit, undo
//! - [`Backup::preflight`]: what a backup would do and what not, by the table of [`Condition`]s
//! - [`BackupSet`]: several machines as one consistent set, such as a vApp
//! - [`Job`]: many machines, one report; [`schedule`]: when machines begin, for all jobs together; [`task`]: what runs,
//!   as a tree
//! - [`FcdBackup`]: a First Class Disk, in and out
//! - [`Restore`]: in place, as a new machine, or into files; [`RecoveryPoint::verify`](repository::RecoveryPoint::verify)
//! - [`instant`]: a disk of a recovery point as a disk at once, read-only or copy-on-write
//! - [`repository`]: recovery points that share chunks; the format is in `FORMAT.md`. [`repository::keys`]: encryption
//! - [`engine`]: one disk in and out, over the traits [`DiskSource`](engine::DiskSource) and
//!   [`DiskTarget`](engine::DiskTarget)
//! - [`step`]: the steps of a job, their order, and what is undone from where
//! - [`reaper`]: what dead jobs left on a server, without a journal
//! - [`store`]: stores of others, to which [`Backup::run_into`] goes
//! - [`journal`]: what a backup does to a server, durable before it is done
//! - [`manual`]: defaults, failures, who holds what when, which way to restore
//! - [`conformance`]: what the suites for stores and storages say
//! - [`Event`], [`CancelToken`], [`Clock`], [`Error`]
//!
//! # Absent on purpose
//! The crate reads no environment, installs no signal handler, writes to no terminal and has no
//! global state. It needs a tokio runtime.
#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

mod backup;
mod cancel;
mod chance;
mod clock;
pub mod conformance;
pub mod engine;
mod error;
mod event;
pub mod instant;
pub mod job;
pub mod journal;
pub mod manual;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod reaper;
pub mod repository;
mod restore;
mod retry;
pub mod schedule;
mod server;
pub mod step;
pub mod store;
pub mod task;
mod thread;

pub use crate::{
    backup::{
        Backup, BackupReport, BackupSet, CONFIG_OBJECT, ChangeTracking, Condition, DiskReport, EncryptedMachines,
        Estimate, EstimateBasis, FCD_KEY, FCD_OBJECT, FcdBackup, FcdReport, Finding, GiveWay, NVRAM_OBJECT, Plan,
        PlannedDisk, Preflight, PreflightDisk, Quiesce, QuiescePolicy, QuiesceStep, QuiesceWay, RunningBackup,
        SetMember, SetReport, Severity, Since, SinkReport, Subject, VMX_OBJECT, VSS_OBJECT, VirtualTpms, fcd_vm_id,
    },
    cancel::CancelToken,
    clock::{Clock, ClockHand},
    engine::{RestoreMode, Trust},
    error::{DiskError, Error, ErrorKind, ErrorPhase, Result},
    event::Event,
    job::Job,
    restore::{
        FileFormat, ImageTarget, NetworkChoice, NewVm, NewVmReport, PowerPolicy, Restore, RestoreReport,
        RestoredDiskReport, UnmappedNetworks, VmIdentity,
    },
    retry::Retries,
};
