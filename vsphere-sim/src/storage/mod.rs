//! The storage behind the simulated VMs: real bytes in real files.
//!
//! ```text
//! Datastore      a directory; hands out disks and datastore paths
//! └─ DiskStore   one virtual disk: a chain of layers, a tracker, counters
//!    ├─ [`vmdk::Image`] what the user gave: a raw file, a VMDK, or nothing (an empty disk)
//!    ├─ Layer    a copy-on-write layer in a sparse file; one per snapshot, and one over the base
//!    └─ Tracker  changed block tracking: one block map per sequence number
//! ```
//! Nothing here knows SOAP or NFC. All calls block on file I/O; async callers use `spawn_blocking`.

mod base;
mod blocks;
mod chain;
mod datastore;
mod disk;
mod error;
mod layer;
mod segmented;
mod tracking;

pub use base::DiskSource;
pub use blocks::BlockSet;
pub use chain::NodeId;
pub use datastore::Datastore;
pub use disk::{Access, Consolidation, DiskCounters, DiskOptions, DiskStore, NodeHandle, Point};
pub use error::{Error, Result};
pub use tracking::{Page, TrackingError, TrackingOptions, UuidStyle};

/// Bytes of one copy-on-write block.
pub const BLOCK: u64 = 64 * 1024;
