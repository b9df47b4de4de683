//! Marking: gathering all roots, then walking from them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt, stream};

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    super::{
        Repository,
        envelope::Kind,
        id::{ChunkId, PageId, PointId},
        lease::{
            record::{Roots, TreePin},
            watch::Found,
        },
        object::is_absent,
        page::{self, Page, ReadFault, SLOTS, Slot},
        tree::Shape,
    },
    chunks::{ChunkTable, Part},
    inventory::{Listed, Packs},
};

/// What is reachable.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) points: u64,
    /// Reachable chunks that are in a listed pack.
    pub(super) chunks: u64,
    /// Reachable chunks that are in none, at least: new ones, or damage.
    pub(super) missing: u64,
    pub(super) passes: u32,
}

/// What anybody needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// How many points there are.
    pub(super) points: u64,
    /// Roots of points, and of those whose deletion began meanwhile: all below them is there, or there is damage.
    kept: Roots,
    /// Roots that leases name. A holder pins first and looks then, so some may have been gone before.
    pinned: Roots,
}

/// Gathers the roots of all that anybody needs: leases first, then manifests, then deletions that began meanwhile.
///
/// Deletions that were `over` when this run began need nothing.
///
/// # Errors
/// [`Error::Damaged`] when a manifest or a record cannot be read: what it needs is not known then.
pub(super) async fn roots(repository: &Repository, leases: &[Found], over: &BTreeSet<PointId>) -> Result<Needs> {
    let mut needs = Needs::default();
    leases.iter().for_each(|lease| needs.pinned.extend(&lease.body.roots));
    let mut gone: BTreeSet<PointId> = BTreeSet::new();
    for ids in repository.list_points("points").await?.chunks(PARALLEL) {
        let read = async |id: &PointId| (id.clone(), repository.point(id).await);
        let read: Vec<_> = stream::iter(ids).map(read).buffered(PARALLEL).collect().await;
        for (id, point) in read {
            match point {
                Ok(point) => {
                    needs.points += 1;
                    needs.kept.extend(&Roots::of(point.manifest()));
                }
                Err(Error::PointNotFound { .. }) => drop(gone.insert(id)),
                Err(error) => return Err(error),
            }
        }
    }
    // A point that went while this ran may have handed on what it needed to a lease that came meanwhile.
    for id in repository.deletions().await?.difference(over) {
        needs.kept.extend(&repository.deletion_roots(id).await?);
    }
    tracing::debug!(points = needs.points, gone = gone.len(), "roots gathered");
    Ok(needs)
}

/// Walks from the roots and notes what is reachable in `packs`, `pages` and `metas`.
///
/// # Errors
/// [`Error::Damaged`] when a page cannot be read: what lies below it is not known then. [`Error::Storage`],
/// [`Error::Cancelled`].
pub(super) async fn mark(
    repository: &Repository,
    needs: &Needs,
    (packs, pages, metas): (&mut Packs, &mut Listed, &mut Listed),
    rank: impl Fn(&Packs) -> Vec<u32>,
    memory: u64,
    cancel: &CancelToken,
) -> Result<Marked> {
    for id in needs.kept.objects.iter().chain(&needs.pinned.objects) {
        metas.reach(&id.0);
    }
    let trees = |roots: &Roots| -> BTreeMap<[u8; 32], TreePin> {
        roots.trees.iter().map(|tree| (tree.page.0, *tree)).collect()
    };
    let (kept, pinned) = (trees(&needs.kept), trees(&needs.pinned));
    let passes = (packs.estimate() * ChunkTable::ROW).div_ceil(memory.max(1)).clamp(1, MAX_PASSES) as u32;
    let mut marked = Marked { points: needs.points, chunks: 0, missing: 0, passes };
    for number in 0..passes {
        let mut table = ChunkTable::new(Part { number, of: passes });
        packs
            .read(repository.objects(), |pack, _, entries| {
                for (at, entry) in entries.entries.iter().enumerate() {
                    table.add(&entry.id, pack, at as u32, entry.stored);
                }
            })
            .await?;
        table.sort();
        pages.forget_reached();
        let mut walk = Walk { repository, pages, unlisted: HashSet::new(), table: &mut table, missing: 0 };
        for tree in kept.values() {
            walk.tree(tree, false, cancel).await?;
        }
        // Behind the others: a page of a point that is absent is told, whoever else names it.
        for tree in pinned.values() {
            walk.tree(tree, true, cancel).await?;
        }
        marked.missing += walk.missing;
        marked.chunks += table.settle(packs, &rank(packs));
    }
    Ok(marked)
}

/// A walk over the pages of all trees, each page once.
struct Walk<'a> {
    repository: &'a Repository,
    pages: &'a mut Listed,
    /// Pages that were reached and are younger than the listing.
    unlisted: HashSet<[u8; 32]>,
    table: &'a mut ChunkTable,
    missing: u64,
}

impl Walk<'_> {
    /// Walks one tree. Of a `pinned` one, pages may be absent: its holder finds that out, and cannot use what they named.
    async fn tree(&mut self, tree: &TreePin, pinned: bool, cancel: &CancelToken) -> Result<()> {
        let shape = Shape { disk: 0, capacity: tree.capacity, chunk_size: self.repository.chunk_size() };
        // At most the slots of one page a level, and of those read at once.
        let mut waiting = vec![(tree.page, shape.top())];
        while !waiting.is_empty() {
            cancel.check()?;
            let batch: Vec<_> = waiting
                .split_off(waiting.len().saturating_sub(PARALLEL))
                .into_iter()
                .filter(|(id, _)| self.is_new(id))
                .collect();
            let store = self.repository.pages();
            let read = async |(id, level): (PageId, u8)| (id, level, store.read_uncached(id, level).await);
            let read: Vec<_> = stream::iter(batch).map(read).buffered(PARALLEL).collect().await;
            for (id, level, page) in read {
                match page {
                    Ok(page) => self.page(&page, level, &mut waiting),
                    Err(ReadFault::Damaged(_)) if pinned && self.is_absent(id).await? => {}
                    Err(ReadFault::Damaged(reason)) => return Err(Error::damaged(page::key(id), reason)),
                    Err(ReadFault::Failed(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn is_absent(&self, id: PageId) -> Result<bool> {
        match self.repository.objects().read(Kind::Page, &page::key(id)).await {
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) if !error.is_damage() => Err(error),
            _ => Ok(false),
        }
    }

    fn is_new(&mut self, id: &PageId) -> bool {
        match self.pages.reach(&id.0) {
            Some(known) => !known,
            None => self.unlisted.insert(id.0),
        }
    }

    fn page(&mut self, page: &Page, level: u8, waiting: &mut Vec<(PageId, u8)>) {
        for at in 0..SLOTS {
            match page.slot(at) {
                Slot::Ref(id) if level > 0 => waiting.push((PageId(id), level - 1)),
                Slot::Ref(id) => self.missing += u64::from(!self.table.reach(&ChunkId(id))),
                _ => {}
            }
        }
    }
}

const PARALLEL: usize = 16;
/// More passes would read every page more often than memory is worth.
const MAX_PASSES: u64 = 256;
