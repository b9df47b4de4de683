//! A First Class Disk seen from outside the API: what whoever uses it does to its bytes.

use std::sync::Arc;

use crate::storage::DiskStore;
use crate::{Error, Result};

/// The inside of a First Class Disk; from [`Simulator::first_class_disk`](crate::Simulator::first_class_disk).
#[derive(Clone)]
pub struct FcdHandle {
    id: String,
    store: Arc<DiskStore>,
}

impl FcdHandle {
    pub(crate) fn new(id: &str, store: Arc<DiskStore>) -> Self {
        Self { id: id.into(), store }
    }

    /// The disk's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes bytes, as its consumer does. Change tracking sees it. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`] beyond the end of the disk, and the host's.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.store.guest_write(offset, bytes).map_err(Error::Storage)
    }

    /// Reads bytes, as its consumer does. Blocks.
    ///
    /// # Errors
    /// [`Error::Storage`] beyond the end of the disk, and the host's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.store.guest_read(offset, buffer).map_err(Error::Storage)
    }

    /// Starts tracking anew: all change ids handed out become stale.
    pub fn reset_tracking(&self) {
        self.store.reset_tracking();
    }

    /// Snapshots that hold a layer of it.
    pub fn snapshots(&self) -> u32 {
        self.store.snapshots()
    }
}

impl std::fmt::Debug for FcdHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FcdHandle").field("id", &self.id).finish_non_exhaustive()
    }
}
