//! A vCenter/ESXi simulator with changed block tracking, snapshots and real disks.
//!
//! It speaks the vSphere Web Services API over HTTPS and NFC on its own "port 902", keeps real bytes behind
//! every snapshot, tracks changes exactly, and can be told to fail anywhere. Backup programs are tested
//! against it; nothing else may depend on it.
//!
//! ```no_run
//! # async fn run() -> vsphere_sim::Result<()> {
//! use vsphere_sim::{DiskSpec, Simulator, VmSpec};
//!
//! let vm = VmSpec::new("web").disk(DiskSpec::raw_file("disk.img")).change_tracking(true);
//! let sim = Simulator::builder().vm(vm).start().await?;
//! // ... back the VM up through sim.url(), let the guest write, back up again ...
//! sim.guest("web")?.disk(2000)?.write_at(1 << 20, b"changed")?;
//! assert!(sim.leftovers().is_clean());
//! sim.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Modules
//! - [`Simulator`], [`VmSpec`], [`DiskSpec`]: starting one and looking inside
//! - [`storage`]: disks as copy-on-write layers over the user's image, change tracking
//! - [`nfc`]: the 902 server
//! - [`Faults`]: injections at SOAP calls; [`nfc::NfcServer::inject`] at steps of the 902 server
//!
//! What real servers are not known to do one way or the other is a switch: [`storage::TrackingOptions`],
//! [`nfc::NfcServerConfig`], [`SimulatorBuilder`].

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

mod alarm;
mod backend;
mod builder;
mod collector;
mod endpoint;
mod error;
mod events;
mod fault;
mod fcd;
mod files;
mod handle;
mod http_ticket;
mod ids;
mod inject;
mod inventory;
mod lease;
pub mod nfc;
mod personality;
mod report;
mod service;
mod session;
mod simulator;
mod spec;
pub mod storage;
mod sts;
mod task;
mod ticket;
mod tls;
mod view;
mod vm;
mod world;

pub use alarm::AlarmHandle;
pub use builder::SimulatorBuilder;
pub use error::{Error, Result};
pub use fault::Fault;
pub use fcd::FcdHandle;
pub use files::{DeltaFormat, FolderCounters};
pub use handle::{DiskHandle, Guest, VmHandle};
pub use inject::{Faults, Injection};
pub use lease::LeaseConfig;
pub use personality::Personality;
pub use report::Leftovers;
pub use simulator::Simulator;
pub use spec::{DiskSpec, VmSpec};
pub use vm::{DiskMode, GuestBehaviour, Power};
pub use world::{FcdOptions, FileOptions, RangeAnswers};
