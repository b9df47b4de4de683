//! Restoring: which way, what it costs, what it leaves when it ends early.
//!
//! | To | Call | Reads of the point | Writes |
//! |---|---|---|---|
//! | the machine, all of it | [`Restore::to_vm`] | every stored chunk | everything; zeros only where the disk has something |
//! | the machine, what differs | the same, [`RestoreMode::OnlyDifferences`] | chunks that differ | those; the whole disk is read and hashed |
//! | the machine, what changed since | the same, [`Restore::change_tracking`] | chunks that differ | those; only changed areas are read |
//! | a new machine, here or on another server | [`Restore::to_new_vm`] | every stored chunk | stored chunks only |
//! | a file: raw, VMDK | [`Restore::to_file`] | every stored chunk | stored chunks only, holes elsewhere |
//! | an OVA | [`Restore::to_ova`] | every stored chunk, twice | packed grains that are not zeros |
//! | nothing yet | [`RecoveryPoint::open_disk`] | what is asked for | into an overlay, never into the point |
//!
//! # Forward and backward are the same
//! A chain of increments is restored by applying them: forward from an old full image, or backward from the newest,
//! undoing one change after the other. Here no increment exists to be applied. A point holds, for each disk, the root of
//! a tree whose leaves name the chunk at each place of the grid; an incremental backup makes a new tree that shares
//! every page and chunk that did not change with its parent's. So each point is a full image, and
//!
//! - *forward*: from an older state on the disk to a newer point, [`RestoreMode::OnlyDifferences`] writes the chunks in
//!   which they differ, each once, however many points lie between; an increment chain would write each of its versions;
//! - *backward*: from a newer state to an older point it is the same call and the same cost;
//! - *sideways*: to a point of which the disk was never a descendant, as after a failed update was undone, too;
//! - no point depends on another: deleting the oldest, the newest or one in the middle touches no other, and a damaged
//!   chunk hurts exactly the points that hold it, which [`RecoveryPoint::verify`] names.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> vsphere_backup::Result<()> {
//! use std::sync::Arc;
//! use futures_util::{StreamExt, stream};
//! use vsphere_backup::{
//!     engine::{DiskBackup, DiskRestore, MemoryDisk, Parent, RestoreMode},
//!     repository::{BackupMode, Consistency, CreateOptions, DiskRecord, RecoveryPoint, Repository, VmId, VmRecord, storage::MemoryStorage},
//! };
//!
//! // Three points of one disk: the first is read whole, of the others only what changed.
//! let repository = Repository::create(Arc::new(MemoryStorage::new()), CreateOptions::default().chunk_size(65536)).await?;
//! let disk = MemoryDisk::new(vec![1; 1 << 20]);
//! let mut points = Vec::new();
//! for round in 0..3_u64 {
//!     let changed = round * 65536..(round + 1) * 65536;
//!     disk.edit(|bytes| bytes[changed.start as usize..changed.end as usize].fill(10 + round as u8));
//!     let areas = if round == 0 { 0..1 << 20 } else { changed };
//!     let vm = VmRecord { instance_uuid: VmId::parse("5029c440")?, mo_ref: "vm-1".into(), name: "web".into() };
//!     let mut point = repository.begin(vm, Consistency::Crash, Default::default()).await?;
//!     let parent = match points.last() {
//!         Some((point, _)) => Some(Parent::new(RecoveryPoint::disk(point, 2000).await?)),
//!         None => None,
//!     };
//!     let done = DiskBackup::new(2000, &disk, point.writer()).parent(parent).run(stream::iter([Ok(areas)]).boxed()).await?;
//!     point.add_disk(DiskRecord {
//!         key: 2000, label: String::new(), backing_uuid: None, path: String::new(), capacity: done.capacity, change_id: None,
//!         root: done.root, mode: BackupMode::Full, reason: String::new(), bytes: done.bytes, metadata: Default::default(),
//!         distrust: None,
//!     })?;
//!     points.push((point.commit().await?.0, disk.content()));
//! }
//!
//! // From the newest state back to the first, forward to the second, back and forth: two or one chunks each time.
//! for (to, chunks) in [(0, 2), (1, 1), (0, 1), (2, 2)] {
//!     let (point, content) = &points[to];
//!     let stored = point.disk(2000).await?;
//!     let done = DiskRestore::new(&stored, &disk).mode(RestoreMode::OnlyDifferences).run().await?;
//!     assert_eq!(done.written, chunks * 65536);
//!     assert!(disk.content() == *content);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Every default, and why
//! | Choice | Default | Why |
//! |---|---|---|
//! | [`Restore::mode`] | [`RestoreMode::Full`] | nothing is assumed of what lies on the disk |
//! | [`Restore::verify`] | yes | a write that was confirmed is not yet one that is read again |
//! | [`Restore::power`] | [`PowerPolicy::Refuse`] | who restores may not know who works on the machine |
//! | [`Restore::remove_snapshots`] | no | they may be somebody's only way back |
//! | [`Restore::change_tracking`] | no | servers have had defects; a hash has none |
//! | [`Restore::pin`] | yes | a prune meanwhile would take away what is read |
//! | [`VmIdentity`] of a new machine | new | two machines of one identity harm each other |
//! | [`UnmappedNetworks`] | keep the name | a restore at the old place works without a word |
//! | [`NewVm::power_on`] | no | somebody looks first |
//!
//! # What is left when it ends early
//! | | Error or cancelled | Process killed |
//! |---|---|---|
//! | in place | disks in part, machine off if it was powered off for it; positions beside the journal | the same; run it again |
//! | its change tracking snapshot | removed, or in the machine's journal | in the machine's journal: [`Backup::clean_up`] or the next backup |
//! | new machine | destroyed, or in its journal | in its journal: [`Restore::clean_up`] |
//! | raw file, flat or sparse VMDK | `<name>.restoring/` with the file and how far it is; run it again | the same |
//! | streamOptimized VMDK, OVA | nothing | `<name>.restoring/`, in which the next run begins again |
//! | instant access | the overlay is gone | the overlay is gone: its file has no name |
//!
//! No half file has the name that was asked for. What is written at random is gone on with: a record in the folder says
//! below which byte everything was durable; that part is compared by hashes and mended, the rest is written, and where
//! the file has holes no zeros are. The record counts only for the same point, disk, size and format. What is packed
//! from front to back begins again: whether half a stream is right is known only by unpacking it and, in a package, by
//! taking its digests anew, which costs what packing it does.
//!
//! Restoring in place marks the machine's disks in the repository before the first write, so that the next backup reads
//! them whole: change tracking may not see what a restore writes.
//!
//! [`Backup::clean_up`]: crate::Backup::clean_up
//! [`NewVm::power_on`]: crate::NewVm::power_on
//! [`PowerPolicy::Refuse`]: crate::PowerPolicy::Refuse
//! [`RecoveryPoint::open_disk`]: crate::repository::RecoveryPoint::open_disk
//! [`RecoveryPoint::verify`]: crate::repository::RecoveryPoint::verify
//! [`Restore::change_tracking`]: crate::Restore::change_tracking
//! [`Restore::clean_up`]: crate::Restore::clean_up
//! [`Restore::mode`]: crate::Restore::mode
//! [`Restore::pin`]: crate::Restore::pin
//! [`Restore::power`]: crate::Restore::power
//! [`Restore::remove_snapshots`]: crate::Restore::remove_snapshots
//! [`Restore::to_file`]: crate::Restore::to_file
//! [`Restore::to_new_vm`]: crate::Restore::to_new_vm
//! [`Restore::to_ova`]: crate::Restore::to_ova
//! [`Restore::to_vm`]: crate::Restore::to_vm
//! [`Restore::verify`]: crate::Restore::verify
//! [`RestoreMode::Full`]: crate::RestoreMode::Full
//! [`RestoreMode::OnlyDifferences`]: crate::RestoreMode::OnlyDifferences
//! [`UnmappedNetworks`]: crate::UnmappedNetworks
//! [`VmIdentity`]: crate::VmIdentity
