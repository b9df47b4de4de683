//! First Class Disks: virtual disks with an identity of their own, whether a virtual machine uses them or not.
//!
//! VMware also calls them improved virtual disks; Kubernetes volumes on vSphere are such disks. A disk is known by
//! [`FcdId`], has snapshots of its own, and is backed up like a virtual machine's disk: snapshot, changed areas, read.
//!
//! One model, three back ends:
//!
//! | | [`Vim::first_class_disks`](crate::Vim::first_class_disks) on vCenter | on ESXi | [`Vslm::first_class_disks`](crate::Vslm::first_class_disks) |
//! |---|---|---|---|
//! | finds disks | by datastore | by datastore | anywhere, page by page |
//! | changed areas, snapshot details, associations | yes | no: the host's API has none | yes |
//! | since | 6.5, snapshots 6.7 | 6.5, snapshots 6.7 | 6.7 U2 |
//!
//! ```no_run
//! use vsphere_vim::{Vim, fcd::FcdScope};
//! use futures_util::TryStreamExt as _;
//!
//! # async fn example(vim: Vim) -> vsphere_vim::Result<()> {
//! let disks = vim.first_class_disks()?;
//! let found: Vec<_> = disks.list(FcdScope::All).try_collect().await?;
//! for disk in &found {
//!     let snapshot = disks.create_snapshot(disk, "nightly").await?;
//!     let details = disks.snapshot_details(disk, &snapshot).await?;
//!     println!("{disk}: {:?}, change id {:?}", details.path, details.change_id);
//!     disks.delete_snapshot(disk, &snapshot).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod back_end;
mod catalogue;
mod create;
mod disk;
mod id;
mod list;
mod register;
mod snapshot;

pub use self::{
    catalogue::FirstClassDisks,
    create::CreateFcd,
    disk::{Fcd, FcdConsumer, Provisioning},
    id::{FcdId, FcdRef, FcdSnapshotId},
    list::{FcdScope, FcdStream},
    register::RegisterFcd,
    snapshot::{FcdSnapshot, FcdSnapshotDetails},
};
