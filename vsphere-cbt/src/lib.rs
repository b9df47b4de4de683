//! Changed block tracking (CBT) of VMware vSphere: which bytes of a virtual disk changed since a backup.
//!
//! ```no_run
//! use std::pin::pin;
//! use futures_util::TryStreamExt as _;
//! use vsphere_cbt::{AreaQuery, ChangeId, Since, changed_areas};
//! use vsphere_vim::{MoRef, Vim, device::DeviceKey, mo};
//!
//! # async fn example(vim: Vim, vm: MoRef<mo::VirtualMachine>, snapshot: MoRef<mo::VirtualMachineSnapshot>, base: ChangeId) -> vsphere_cbt::Result<()> {
//! // The capacity is that of the snapshot's disk.
//! let query = AreaQuery::new(vm, snapshot, DeviceKey(2000), Since::Change(&base), 40 << 30);
//! let mut areas = pin!(changed_areas(&vim, query));
//! while let Some(range) = areas.try_next().await? {
//!     println!("{} bytes changed at {}", range.end - range.start, range.start);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied on
//! A changed byte is never left out: every answer of the server is checked, and one that breaks a rule is an error.
//! An area may be reported although its bytes are equal. Servers have known defects ([`Growth`]), so a backup program
//! should read and compare a sample of what is called unchanged.
//!
//! # Modules
//! - [`ChangeId`] and [`Since`]: what names a state of a disk
//! - [`changed_areas`], [`changed_fcd_areas`], [`AreaSource`], [`Walk`]: the paging stream
//! - [`areas`]: range algebra
//! - [`enable()`], [`preflight()`]: switching tracking on, and what stands in the way
//! - [`Growth`]: disks that were resized

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))] // Lists of one range are what tests expect.

pub mod areas;
mod change_id;
mod enable;
mod error;
mod growth;
mod page;
mod preflight;
mod query;
mod server;

pub use self::{
    areas::Areas,
    change_id::{ChangeId, Continuity, ParseChangeIdError, Since},
    enable::{EnableOptions, Enabled},
    error::{Error, Result},
    growth::Growth,
    page::{Page, PageProblem},
    preflight::{Blocker, DiskTracking, Preflight, Untrackable},
    query::{AreaSource, Walk},
    server::{AreaQuery, FcdAreaQuery, changed_areas, changed_fcd_areas, enable, preflight},
};
