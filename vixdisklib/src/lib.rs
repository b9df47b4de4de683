//! Virtual disks of VMware vSphere, local and remote: connections and disks that close themselves.
//!
//! ```no_run
//! use vixdisklib::{Access, Connection};
//! use vsphere_vim::{MoRef, Vim, mo};
//!
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>) -> vixdisklib::Result<()> {
//! let disks = Connection::connect(&vim, &vm, Access::ReadOnly, "nbdssl").await?;
//! let disk = disks.open("[ds1] web/web.vmdk").await?;
//! println!("{} bytes over {}", disk.capacity(), disk.transport());
//! for range in disk.allocated(0..disk.capacity()).await?.areas {
//!     let len = (range.end - range.start).min(1 << 20) as usize;
//!     let bytes = disk.read_at(range.start, len).await?; // `&self`: have many in flight
//!     # let _ = bytes;
//! }
//! disk.close().await
//! # }
//! ```
//!
//! # Transports
//! | Name | What | Disks are named by |
//! |---|---|---|
//! | `nbdssl` | NFC over port 902, encrypted | datastore path: `[ds1] web/web.vmdk` |
//! | `nbd` | the same with the data in clear; used only where it is named | datastore path |
//! | `file` | files of this machine: VMDK of all kinds, raw | file path |
//! | `san`, `hotadd`, `https` | known by name, not offered yet | |
//!
//! A list such as `nbdssl:nbd` is tried from left to right for every disk; [`Disk::transport`] tells which it was and
//! [`Disk::passed_over`] why the ones before it were not. A certificate that is not the expected one ends the search:
//! nothing falls back to clear text because of it.
//!
//! # Modules
//! - [`Connection`], [`ConnectionOptions`]: where disks come from
//! - [`Disk`], [`DiskInfo`], [`Allocation`]: positioned reads and writes, in bytes
//! - [`TransportMode`], [`TransportList`]: the names above
//! - `blocking` (feature `blocking`): the same for callers without async
//! - [`Governor`], [`GovernorLimits`]: limits, bandwidth and turns of many disks
//! - `nbd` (feature `nbd-server`): any disk for qemu, nbdcopy and the Linux kernel

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))] // Lists of one range are what tests expect.

mod allocation;
mod attach;
#[cfg(feature = "blocking")]
pub mod blocking;
mod clone;
mod connection;
mod create;
mod disk;
mod error;
mod governor;
mod info;
mod machine;
mod mode;
#[cfg(feature = "nbd-server")]
pub mod nbd;
mod open;
mod options;
mod transport;
mod upkeep;

use std::sync::Arc;

pub use vsphere_nfc::CompressionWish;

pub use self::{
    allocation::{Allocation, AllocationBasis, Holes},
    clone::{CloneOptions, clone_disk},
    connection::Connection,
    create::{CreateSpec, DiskKind},
    disk::Disk,
    error::{Attempt, Error, Result},
    governor::{Governor, GovernorLimits, GovernorUsage},
    info::{DiskInfo, Geometry},
    machine::ListedDisk,
    mode::{TransportList, TransportMode},
    open::{Access, OpenOptions},
    options::ConnectionOptions,
    transport::VmTickets,
    upkeep::{CheckOutcome, rename},
};

/// What is told how far long work is, in percent. Called from any thread, never twice at once; it must be quick.
#[doc(alias = "VixDiskLibProgressFunc")]
pub type Progress = Arc<dyn Fn(u8) + Send + Sync>;
