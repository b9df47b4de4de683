//! Pages that points share are looked at once.

use std::collections::HashMap;

use super::super::id::PageId;

/// Leaves of disks' indexes that were found sound, with the number of chunks that each names.
///
/// Only leaves that lie inside their disk as a whole are in here: what is sound of one disk is sound of all.
#[derive(Debug, Default)]
pub(in super::super) struct KnownLeaves(HashMap<PageId, u64>);

impl KnownLeaves {
    pub(in super::super) fn chunks(&self, leaf: &PageId) -> Option<u64> {
        self.0.get(leaf).copied()
    }

    /// Remembers a leaf, while there is room: more are only looked at again.
    pub(in super::super) fn remember(&mut self, leaf: PageId, chunks: u64) {
        if self.0.len() < MAX_LEAVES {
            self.0.insert(leaf, chunks);
        }
    }
}

/// About 60 MB; as many GiB of different disk contents.
const MAX_LEAVES: usize = 1 << 20;
