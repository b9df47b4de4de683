//! The index of a disk: a tree of pages, of which a new recovery point rewrites only what changed.

mod update;
mod walk;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::{
    id::PageId,
    page::{Page, PageStore, ReadFault, SLOTS, Slot},
};

#[cfg(test)]
pub(crate) use self::update::TreeTotals;
pub(crate) use self::{
    update::{FirstUnknown, TreeUpdate},
    walk::{Visited, Walk},
};

/// The root of a disk's index, as the manifest holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TreeRoot {
    /// No chunk of the disk is allocated.
    Unallocated,
    /// Every chunk of the disk is zero.
    Zero,
    /// The root page.
    Page(PageId),
}

impl From<TreeRoot> for Slot {
    fn from(root: TreeRoot) -> Self {
        match root {
            TreeRoot::Unallocated => Self::Unallocated,
            TreeRoot::Zero => Self::Zero,
            TreeRoot::Page(id) => Self::Ref(id.0),
        }
    }
}

impl From<Slot> for TreeRoot {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Unallocated => Self::Unallocated,
            Slot::Zero => Self::Zero,
            Slot::Ref(id) => Self::Page(PageId(id)),
        }
    }
}

/// The shape of a disk: what its index needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The disk's key, for messages.
    pub(crate) disk: i32,
    /// In bytes.
    pub(crate) capacity: u64,
    /// In bytes, a power of two.
    pub(crate) chunk_size: u32,
}

impl Shape {
    /// Returns the number of chunks; the last one may be shorter than the rest.
    pub(crate) fn chunks(self) -> u64 {
        self.capacity.div_ceil(self.chunk_size.into())
    }

    /// Returns the length in bytes of chunk number `index`, which must exist.
    pub(crate) fn chunk_len(self, index: u64) -> u32 {
        let size = u64::from(self.chunk_size);
        (self.capacity - index * size).min(size) as u32
    }

    /// Returns the level of the root.
    pub(crate) fn top(self) -> u8 {
        let mut top = 0;
        while span(top) < self.chunks() {
            top += 1;
        }
        top
    }

    /// Returns the first byte that page `number` of `level` describes.
    fn page_offset(self, level: u8, number: u64) -> u64 {
        number.saturating_mul(span(level)).saturating_mul(self.chunk_size.into())
    }

    fn fault(self, fault: ReadFault, page: PageId, level: u8, number: u64) -> Error {
        match fault {
            ReadFault::Damaged(reason) => {
                Error::DamagedPage { disk: self.disk, offset: self.page_offset(level, number), page, reason }
            }
            ReadFault::Failed(error) => error,
        }
    }
}

/// Returns how many chunks a page of `level` describes.
pub(crate) fn span(level: u8) -> u64 {
    (SLOTS as u64).saturating_pow(u32::from(level) + 1)
}

/// Reads a disk's index.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pages: PageStore,
    shape: Shape,
    root: TreeRoot,
}

impl Tree {
    pub(crate) fn new(pages: PageStore, shape: Shape, root: TreeRoot) -> Self {
        Self { pages, shape, root }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn root(&self) -> Slot {
        self.root.into()
    }

    /// Reads a page that is not worth a place in the cache.
    pub(crate) async fn read_once(&self, id: PageId, level: u8, number: u64) -> Result<Page> {
        self.pages.read_uncached(id, level).await.map_err(|fault| self.shape.fault(fault, id, level, number))
    }

    /// Returns the leaf that describes chunk `index`, or the slot that stands for a part of the
    /// disk without a leaf together with the first chunk behind that part.
    pub(crate) async fn leaf(&self, index: u64) -> Result<Leaf> {
        let mut slot = Slot::from(self.root);
        let mut level = self.shape.top();
        loop {
            let number = index / span(level);
            let end = ((number + 1).saturating_mul(span(level))).min(self.shape.chunks());
            let Slot::Ref(id) = slot else {
                return Ok(Leaf::Uniform { slot, end });
            };
            let page = self.read(PageId(id), level, number).await?;
            if level == 0 {
                return Ok(Leaf::Page { page, end });
            }
            slot = page.slot((index / span(level - 1) % SLOTS as u64) as usize);
            level -= 1;
        }
    }

    async fn read(&self, id: PageId, level: u8, number: u64) -> Result<Arc<Page>> {
        self.pages.read(id, level).await.map_err(|fault| self.shape.fault(fault, id, level, number))
    }
}

/// A part of a disk's index.
#[derive(Debug)]
pub(crate) enum Leaf {
    /// A page; it describes chunks up to `end`.
    Page {
        /// The page.
        page: Arc<Page>,
        /// The first chunk behind it.
        end: u64,
    },
    /// Chunks that are all alike up to `end`.
    Uniform {
        /// What they are.
        slot: Slot,
        /// The first chunk behind them.
        end: u64,
    },
}
