//! The index of a disk: a tree of pages, of which a new recovery point rewrites only what changed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    chance::Chance,
    error::{Error, Result},
};

use super::{
    id::{ChunkId, PageId},
    page::{Page, PageStore, ReadFault, SLOTS, Slot},
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

/// Tells which of some chunks the repository does not have: its place among them.
pub(crate) type FirstUnknown = dyn Fn(&[ChunkId]) -> Option<usize> + Send + Sync;

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
        /// The leaf.
        page: Page,
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
        let shape = self.tree.shape;
        while let Some((id, level, number)) = self.waiting.pop() {
            let page = match self.tree.pages.read_uncached(id, level).await {
                Ok(page) => page,
                Err(fault @ ReadFault::Damaged(_)) => {
                    return Ok(Some(Visited::Damaged(shape.fault(fault, id, level, number))));
                }
                Err(ReadFault::Failed(error)) => return Err(error),
            };
            if level == 0 {
                return Ok(Some(Visited::Leaf { first: number * SLOTS as u64, page }));
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
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
                    let Visited::Leaf { first, page } = visited else { panic!("damaged") };
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
