//! Going over the leaves of a tree.

use crate::{
    chance::Chance,
    error::{Error, Result},
};

use super::{
    super::{
        id::PageId,
        page::{Page, ReadFault, SLOTS, Slot},
    },
    Tree, TreeRoot, span,
};

impl Tree {
    /// Begins a walk over all leaves.
    pub(crate) fn walk(&self) -> Walk<'_> {
        let waiting = match self.root {
            TreeRoot::Page(root) => vec![(root, self.shape.top(), 0)],
            _ => Vec::new(),
        };
        Walk { tree: self, waiting, sample: None }
    }

    /// Begins a walk over all pages above the leaves and about `leaves` of them, chosen by chance.
    pub(crate) fn walk_some(&self, leaves: u64, seed: u64) -> Walk<'_> {
        let all = self.shape.chunks().div_ceil(SLOTS as u64);
        let sample = (all > leaves).then(|| {
            let mut chance = Chance::new(seed);
            let mean = all as f64 / leaves.max(1) as f64;
            Sample { mean, skip: chance.skip(mean), chance }
        });
        Walk { sample, ..self.walk() }
    }
}

/// A walk over the leaves of a tree in the order of the disk. Pages are read from the storage, not
/// from the cache, and damage does not end it.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    /// Pages to be read, the next one last; at most one page's slots per level.
    waiting: Vec<(PageId, u8, u64)>,
    /// Which leaves are visited, when not all are.
    sample: Option<Sample>,
}

#[derive(Debug)]
struct Sample {
    mean: f64,
    skip: u64,
    chance: Chance,
}

impl Sample {
    fn takes_next(&mut self) -> bool {
        let taken = self.skip == 0;
        self.skip = if taken { self.chance.skip(self.mean) } else { self.skip - 1 };
        taken
    }
}

/// A leaf that a [`Walk`] came to.
#[derive(Debug)]
pub(crate) enum Visited {
    /// A leaf.
    Leaf {
        /// The chunk that its first slot describes.
        first: u64,
        /// Its identity.
        id: PageId,
        /// The leaf.
        page: Page,
    },
    /// A leaf that the caller knows, which was not read.
    Known {
        /// Its identity.
        id: PageId,
    },
    /// A page that is damaged; what is below it is not visited.
    Damaged(Error),
}

impl Walk<'_> {
    /// Goes on to the next leaf.
    ///
    /// # Errors
    /// Failures that are not damage.
    pub(crate) async fn next(&mut self) -> Result<Option<Visited>> {
        self.next_but(|_| false).await
    }

    /// The same, but does not read leaves that are known.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) async fn next_but(&mut self, is_known: impl Fn(&PageId) -> bool) -> Result<Option<Visited>> {
        let shape = self.tree.shape;
        while let Some((id, level, number)) = self.waiting.pop() {
            if level == 0 && is_known(&id) {
                return Ok(Some(Visited::Known { id }));
            }
            let page = match self.tree.pages.read_uncached(id, level).await {
                Ok(page) => page,
                Err(fault @ ReadFault::Damaged(_)) => {
                    return Ok(Some(Visited::Damaged(shape.fault(fault, id, level, number))));
                }
                Err(ReadFault::Failed(error)) => return Err(error),
            };
            if level == 0 {
                return Ok(Some(Visited::Leaf { first: number * SLOTS as u64, id, page }));
            }
            for at in (0..SLOTS).rev() {
                let child = number * SLOTS as u64 + at as u64;
                if let Slot::Ref(id) = page.slot(at)
                    && child.saturating_mul(span(level - 1)) < shape.chunks()
                    && (level > 1 || self.sample.as_mut().is_none_or(Sample::takes_next))
                {
                    self.waiting.push((PageId(id), level - 1, child));
                }
            }
        }
        Ok(None)
    }
}
