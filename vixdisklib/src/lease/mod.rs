//! Whole disks through leases (`HttpNfcLease`): the only way that needs neither port 902 nor readable files.
//!
//! ```no_run
//! use vixdisklib::lease::{LeaseSource, Piece};
//! use vsphere_vim::{MoRef, Vim, lease::LeaseOptions, mo};
//!
//! # async fn example(vim: Vim, snapshot: MoRef<mo::VirtualMachineSnapshot>) -> vixdisklib::Result<()> {
//! let source = LeaseSource::of_snapshot(&vim, &snapshot, LeaseOptions::default()).await?;
//! for device in source.disks() {
//!     let mut disk = source.read(device).await?;
//!     while let Some(piece) = disk.next().await? {
//!         match piece {
//!             Piece::Data { offset, bytes } => println!("{} bytes at {offset}", bytes.len()),
//!             Piece::Zeros(range) => println!("zeros in {range:?}"),
//!         }
//!     }
//! }
//! // Only now are the bytes known to be what the server sent.
//! source.complete().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it can
//! Read all disks of a VM that is off ([`LeaseSource::of_vm`]) or of a snapshot of a running one
//! ([`LeaseSource::of_snapshot`]), each from front to back, on any kind of datastore. Make a VM and fill its disks
//! ([`LeaseTarget`]).
//!
//! # What it cannot
//! Read or write a part of a disk, or go on after a break: a stream begins at the beginning. Tell what has changed. A VM
//! has one lease at a time.
//!
//! # Privileges
//! `VApp.Export` to read; `VApp.Import` and those of making a VM to write.

mod pieces;
mod source;
mod target;

pub(crate) use self::pieces::Pieces;
pub use self::{
    pieces::Piece,
    source::{LeaseDisk, LeaseSource},
    target::{LeaseTarget, LeaseWriter},
};
