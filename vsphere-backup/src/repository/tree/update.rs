//! A new index out of an old one.

use crate::error::{Error, Result};

use super::{
    super::{
        id::{ChunkId, PageId},
        page::{Page, PageStore, SLOTS, Slot},
    },
    Shape, Tree, TreeRoot, span,
};

/// Makes a new index out of an old one: changes come in ascending order, pages that no change
/// touches are shared, one page a level is in memory.
pub(crate) struct TreeUpdate {
    pages: PageStore,
    shape: Shape,
    first_unknown: Option<Box<FirstUnknown>>,
    root: Slot,
    /// By level, the lowest first.
    open: Vec<Option<OpenPage>>,
    /// The next chunk that may be set.
    next: u64,
    pages_written: u64,
    bytes_written: u64,
}

/// What a [`TreeUpdate`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeTotals {
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
}

/// Tells which of some chunks the repository does not have: its place among them.
pub(crate) type FirstUnknown = dyn Fn(&[ChunkId]) -> Option<usize> + Send + Sync;

#[derive(Debug)]
struct OpenPage {
    number: u64,
    original: Slot,
    page: Page,
    dirty: bool,
}

impl TreeUpdate {
    /// Begins with nothing allocated.
    pub(crate) fn new(pages: PageStore, shape: Shape) -> Self {
        Self::over(pages, shape, Slot::Unallocated)
    }

    /// Begins with the index of a parent of the same disk, which may be smaller, never larger. All pages are read
    /// from and written to `pages`: the parent may have been opened through a copy of the repository.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the parent is larger or has chunks of another size.
    pub(crate) fn from_parent(pages: PageStore, shape: Shape, parent: &Tree) -> Result<Self> {
        if parent.shape.capacity > shape.capacity || parent.shape.chunk_size != shape.chunk_size {
            return Err(Error::invalid(format!(
                "disk {}: an index of {} bytes cannot begin as that of {} bytes",
                shape.disk, shape.capacity, parent.shape.capacity
            )));
        }
        let mut update = Self::over(pages, shape, parent.root.into());
        // The old root becomes the first slot of a new page; what is behind it is unallocated.
        // New pages have no stored form yet: they are open from the start.
        let (old, new) = (parent.shape.top(), shape.top());
        for level in old + 1..=new {
            let mut page = Page::uniform(level, Slot::Unallocated);
            if level == old + 1 {
                page.set(0, update.root);
            }
            let open = OpenPage { number: 0, original: Slot::Unallocated, page, dirty: true };
            update.open[usize::from(level)] = Some(open);
        }
        Ok(update)
    }

    fn over(pages: PageStore, shape: Shape, root: Slot) -> Self {
        let mut open = Vec::new();
        open.resize_with(usize::from(shape.top()) + 1, || None);
        Self { pages, shape, first_unknown: None, root, open, next: 0, pages_written: 0, bytes_written: 0 }
    }

    /// Has each leaf that is written anew checked: every chunk that it names, the parent's too, must be there.
    pub(crate) fn checked(mut self, first_unknown: Box<FirstUnknown>) -> Self {
        self.first_unknown = Some(first_unknown);
        self
    }

    /// Sets what lies at chunk `index`, which must be above those set before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `index` is out of order or behind the disk; what reading the
    /// parent's pages and writing pages returns; [`Error::DamagedChunk`] when a leaf is [checked](Self::checked) and
    /// names a chunk that is not there.
    pub(crate) async fn set(&mut self, index: u64, slot: Slot) -> Result<()> {
        if index < self.next || index >= self.shape.chunks() {
            return Err(Error::invalid(format!(
                "disk {}: chunk {index} cannot follow chunk {}",
                self.shape.disk,
                self.next.saturating_sub(1)
            )));
        }
        self.next = index + 1;
        self.seek(index).await?;
        let leaf = self.open[0].as_mut().expect("seek opens the leaf");
        let at = (index % SLOTS as u64) as usize;
        if leaf.page.slot(at) != slot {
            leaf.page.set(at, slot);
            leaf.dirty = true;
        }
        Ok(())
    }

    /// Writes what is open and returns the root of the index as it is now; more may be set afterwards.
    ///
    /// # Errors
    /// What writing pages returns.
    pub(crate) async fn checkpoint(&mut self) -> Result<TreeRoot> {
        for level in 0..self.open.len() {
            self.close(level).await?;
        }
        Ok(self.root.into())
    }

    /// Writes what is open and returns the root and what was written.
    ///
    /// # Errors
    /// What writing pages returns.
    pub(crate) async fn finish(mut self) -> Result<(TreeRoot, TreeTotals)> {
        let root = self.checkpoint().await?;
        let totals = TreeTotals { pages: self.pages_written, bytes: self.bytes_written };
        Ok((root, totals))
    }

    /// Opens the pages on the way to chunk `index`, having closed those that are not on it.
    async fn seek(&mut self, index: u64) -> Result<()> {
        let number = |level: usize| index / span(level as u8);
        // A child is closed before its parent: a parent off the way has no child on it.
        for level in 0..self.open.len() {
            if self.open[level].as_ref().is_some_and(|open| open.number != number(level)) {
                self.close(level).await?;
            }
        }
        for level in (0..self.open.len()).rev() {
            if self.open[level].is_some() {
                continue;
            }
            let number = number(level);
            let original = match self.open.get(level + 1) {
                Some(parent) => {
                    let parent = parent.as_ref().expect("parents are opened first");
                    parent.page.slot((number % SLOTS as u64) as usize)
                }
                None => self.root,
            };
            let level_number = level as u8;
            let page = match original {
                Slot::Ref(id) => {
                    let id = PageId(id);
                    let page = self.pages.read(id, level_number).await;
                    let wrong = |fault| self.shape.fault(fault, id, level_number, number);
                    Page::clone(&*page.map_err(wrong)?)
                }
                uniform => Page::uniform(level_number, uniform),
            };
            self.open[level] = Some(OpenPage { number, original, page, dirty: false });
        }
        Ok(())
    }

    fn check(&self, leaf: &OpenPage) -> Result<()> {
        let Some(first_unknown) = &self.first_unknown else { return Ok(()) };
        let (places, chunks): (Vec<_>, Vec<_>) = (0..SLOTS)
            .filter_map(|at| match leaf.page.slot(at) {
                Slot::Ref(id) => Some((at, ChunkId(id))),
                _ => None,
            })
            .unzip();
        match first_unknown(&chunks) {
            None => Ok(()),
            Some(at) => Err(Error::DamagedChunk {
                disk: self.shape.disk,
                offset: (leaf.number * SLOTS as u64 + places[at] as u64) * u64::from(self.shape.chunk_size),
                chunk: chunks[at],
                reason: "no pack of the repository holds it".into(),
            }),
        }
    }

    async fn close(&mut self, level: usize) -> Result<()> {
        let Some(open) = self.open[level].take() else { return Ok(()) };
        let slot = if !open.dirty {
            open.original
        } else if let Some(uniform) = open.page.collapsed() {
            uniform
        } else {
            if level == 0 {
                self.check(&open)?;
            }
            let (id, len) = self.pages.write(open.page).await?;
            self.pages_written += 1;
            self.bytes_written += len;
            Slot::Ref(id.0)
        };
        match self.open.get_mut(level + 1) {
            Some(parent) => {
                let parent = parent.as_mut().expect("a parent is closed after its children");
                let at = (open.number % SLOTS as u64) as usize;
                if parent.page.slot(at) != slot {
                    parent.page.set(at, slot);
                    parent.dirty = true;
                }
            }
            None => self.root = slot,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::{
        super::{Leaf, Visited},
        *,
    };
    use crate::repository::{id::IdKeys, object::Objects, storage::MemoryStorage};

    const CHUNK: u32 = 64 << 10;
    const N: u64 = SLOTS as u64;

    fn shape(chunks: u64) -> Shape {
        Shape { disk: 2000, capacity: chunks * u64::from(CHUNK) - 512, chunk_size: CHUNK }
    }

    fn pages() -> PageStore {
        PageStore::new(Objects::plain(Arc::new(MemoryStorage::new())), IdKeys::derive(&[1; 32]))
    }

    async fn write(
        pages: &PageStore,
        shape: Shape,
        parent: Option<&Tree>,
        changes: &BTreeMap<u64, Slot>,
    ) -> (Tree, u64) {
        let mut update = match parent {
            Some(parent) => TreeUpdate::from_parent(pages.clone(), shape, parent).unwrap(),
            None => TreeUpdate::new(pages.clone(), shape),
        };
        for (&index, &slot) in changes {
            update.set(index, slot).await.unwrap();
        }
        let (root, written) = update.finish().await.unwrap();
        (Tree::new(pages.clone(), shape, root), written.pages)
    }

    /// Writes with a checkpoint in the middle, from which the same or another update goes on.
    async fn write_in_two(
        pages: &PageStore,
        shape: Shape,
        parent: Option<&Tree>,
        changes: &BTreeMap<u64, Slot>,
        resume: bool,
    ) -> Tree {
        let mut update = match parent {
            Some(parent) => TreeUpdate::from_parent(pages.clone(), shape, parent).unwrap(),
            None => TreeUpdate::new(pages.clone(), shape),
        };
        let middle = changes.keys().nth(changes.len() / 2).copied().unwrap_or(0);
        for (&index, &slot) in changes.range(..middle) {
            update.set(index, slot).await.unwrap();
        }
        let root = update.checkpoint().await.unwrap();
        if resume {
            let half = Tree::new(pages.clone(), shape, root);
            update = TreeUpdate::from_parent(pages.clone(), shape, &half).unwrap();
        }
        for (&index, &slot) in changes.range(middle..) {
            update.set(index, slot).await.unwrap();
        }
        Tree::new(pages.clone(), shape, update.finish().await.unwrap().0)
    }

    async fn slot_at(tree: &Tree, index: u64) -> Slot {
        match tree.leaf(index).await.unwrap() {
            Leaf::Page { page, .. } => page.slot((index % N) as usize),
            Leaf::Uniform { slot, .. } => slot,
        }
    }

    #[test]
    fn the_root_is_as_high_as_the_disk_needs() {
        assert_eq!(shape(1).top(), 0);
        assert_eq!(shape(N).top(), 0);
        assert_eq!(shape(N + 1).top(), 1);
        assert_eq!(shape(N * N + 1).top(), 2);
        assert_eq!(Shape { disk: 0, capacity: u64::MAX, chunk_size: CHUNK }.top(), 3);
        assert_eq!(shape(3).chunk_len(2), CHUNK - 512);
    }

    #[tokio::test]
    async fn a_small_change_rewrites_only_the_pages_on_its_way() {
        let pages = pages();
        let shape = shape(N * N * 2);
        let all: BTreeMap<_, _> = [0, 1, N, N * 7 + 3, N * N + 5].map(|at| (at, Slot::Ref([at as u8 + 1; 32]))).into();
        let (parent, written) = write(&pages, shape, None, &all).await;
        assert_eq!(written, 4 + 2 + 1);
        let change = BTreeMap::from([(N * 7 + 4, Slot::Zero)]);
        let (child, written) = write(&pages, shape, Some(&parent), &change).await;
        assert_eq!(written, 3);
        assert_eq!(slot_at(&child, N * 7 + 4).await, Slot::Zero);
        assert_eq!(slot_at(&child, N * 7 + 3).await, slot_at(&parent, N * 7 + 3).await);
        assert_eq!(slot_at(&parent, N * 7 + 4).await, Slot::Unallocated);
        let (same, written) = write(&pages, shape, Some(&child), &change).await;
        assert_eq!((same.root, written), (child.root, 0));
    }

    #[tokio::test]
    async fn a_disk_that_grew_keeps_its_old_part() {
        let pages = pages();
        let content = BTreeMap::from([(0, Slot::Ref([1; 32])), (5, Slot::Zero)]);
        let (parent, _) = write(&pages, shape(10), None, &content).await;
        let last = N * N * 2 - 1;
        for change in [BTreeMap::new(), BTreeMap::from([(last, Slot::Ref([2; 32]))])] {
            let (child, _) = write(&pages, shape(last + 1), Some(&parent), &change).await;
            assert_eq!(slot_at(&child, 0).await, Slot::Ref([1; 32]));
            assert_eq!(slot_at(&child, 5).await, Slot::Zero);
            assert_eq!(slot_at(&child, 6).await, Slot::Unallocated);
            let end = change.get(&last).copied().unwrap_or(Slot::Unallocated);
            assert_eq!(slot_at(&child, last).await, end);
        }
        let smaller = TreeUpdate::from_parent(pages.clone(), shape(9), &parent);
        assert!(matches!(smaller, Err(Error::Invalid { .. })));
    }

    #[tokio::test]
    async fn an_all_zero_disk_needs_no_page() {
        let pages = pages();
        let zeros = (0..N).map(|at| (at, Slot::Zero)).collect();
        let (tree, written) = write(&pages, shape(N), None, &zeros).await;
        assert_eq!((tree.root, written), (TreeRoot::Zero, 0));
        let mut update = TreeUpdate::new(pages, shape(2));
        update.set(1, Slot::Zero).await.unwrap();
        assert!(update.set(1, Slot::Zero).await.is_err(), "out of order");
        assert!(update.set(2, Slot::Zero).await.is_err(), "behind the disk");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_a_map_after_any_updates(
            rounds in proptest::collection::vec(
                proptest::collection::btree_map(0..3 * N, 0u8..4, 0..40), 1..4)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let pages = pages();
                let shape = shape(3 * N);
                let mut model = BTreeMap::new();
                let mut tree: Option<Tree> = None;
                for (at, round) in rounds.into_iter().enumerate() {
                    let changes: BTreeMap<_, _> = round.into_iter().map(|(at, kind)| (at, match kind {
                        0 => Slot::Unallocated,
                        1 => Slot::Zero,
                        other => Slot::Ref([other; 32]),
                    })).collect();
                    model.extend(changes.clone());
                    tree = Some(match at % 3 {
                        0 => write(&pages, shape, tree.as_ref(), &changes).await.0,
                        other => write_in_two(&pages, shape, tree.as_ref(), &changes, other == 1).await,
                    });
                }
                let tree = tree.unwrap();
                for (&at, &slot) in &model {
                    assert_eq!(slot_at(&tree, at).await, slot);
                }
                let mut found = BTreeMap::new();
                let mut walk = tree.walk();
                while let Some(visited) = walk.next().await.unwrap() {
                    let Visited::Leaf { first, page, .. } = visited else { panic!("damaged") };
                    for at in 0..SLOTS {
                        if page.slot(at) != Slot::Unallocated {
                            found.insert(first + at as u64, page.slot(at));
                        }
                    }
                }
                model.retain(|_, slot| *slot != Slot::Unallocated);
                assert_eq!(found, model);
            });
        }
    }
}
