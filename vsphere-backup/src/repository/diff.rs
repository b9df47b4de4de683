//! What differs between two stored disks, from their indexes alone: no chunk is read, and no page that both share.

use std::ops::Range;

use futures_core::Stream;
use futures_util::{TryStreamExt, stream};

use crate::error::{Error, Result};

use super::{
    id::PageId,
    page::{SLOTS, Slot},
    reader::DiskReader,
    tree::{Tree, span},
};

impl DiskReader {
    /// Returns the areas whose bytes differ from an earlier, or another, state of the disk, as ascending ranges on the
    /// chunk grid.
    ///
    /// Where one of them is larger, what lies behind the end of the other counts as zeros. An area is told although few
    /// of its bytes differ; a byte that differs is never left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the other is in another repository, [`Error::DamagedPage`], [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub fn changed_since<'a>(&'a self, other: &'a DiskReader) -> impl Stream<Item = Result<Range<u64>>> + Send + 'a {
        let size = u64::from(self.tree().shape().chunk_size);
        let capacity = self.capacity().max(other.capacity());
        let begin = if self.repository().id() == other.repository().id() {
            Ok(Diff::new(self.tree(), other.tree()))
        } else {
            Err(Error::invalid("disks of two repositories cannot be compared by their indexes"))
        };
        stream::once(std::future::ready(begin))
            .map_ok(|diff| {
                stream::try_unfold(diff, |mut diff: Diff<'a>| async move {
                    let run = diff.next().await?;
                    Ok(run.map(|run| (run, diff)))
                })
            })
            .try_flatten()
            .map_ok(move |run| run.start * size..(run.end * size).min(capacity))
            .try_filter(|area| std::future::ready(area.start < area.end))
    }

    /// Returns how many bytes those areas have.
    ///
    /// # Errors
    /// As [`changed_since`](Self::changed_since).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn changed_bytes_since(&self, other: &DiskReader) -> Result<u64> {
        self.changed_since(other).try_fold(0, async |sum, area| Ok(sum + area.end - area.start)).await
    }
}

/// A walk over both trees at once, in the order of the disk.
struct Diff<'a> {
    one: &'a Tree,
    other: &'a Tree,
    /// Pairs to be compared, the next one last; at most one page's slots per level.
    waiting: Vec<Pair>,
    /// Runs of the leaf that was compared last, the next one last.
    found: Vec<Range<u64>>,
}

#[derive(Clone, Copy)]
struct Pair {
    one: Node,
    other: Node,
    level: u8,
    number: u64,
}

/// A part of one tree, seen from the level of the higher one.
#[derive(Clone, Copy, PartialEq)]
enum Node {
    Slot(Slot),
    /// Above the root, whose level is given: the first slot leads to it, the rest is unallocated.
    Above(Slot, u8),
}

impl Node {
    /// Tells whether both hold the same bytes, as far as can be told without reading a page.
    fn is_same(self, other: Self) -> bool {
        let zeros = |node| matches!(node, Self::Slot(Slot::Zero | Slot::Unallocated));
        self == other || (zeros(self) && zeros(other))
    }
}

impl<'a> Diff<'a> {
    fn new(one: &'a Tree, other: &'a Tree) -> Self {
        let level = one.shape().top().max(other.shape().top());
        let root = |tree: &Tree| match tree.shape().top() {
            top if top < level => Node::Above(tree.root(), top),
            _ => Node::Slot(tree.root()),
        };
        let pair = Pair { one: root(one), other: root(other), level, number: 0 };
        Self { one, other, waiting: vec![pair], found: Vec::new() }
    }

    /// Returns the next run of chunks that differ.
    async fn next(&mut self) -> Result<Option<Range<u64>>> {
        loop {
            if let Some(run) = self.found.pop() {
                return Ok(Some(run));
            }
            let Some(pair) = self.waiting.pop() else { return Ok(None) };
            if pair.one.is_same(pair.other) {
                continue;
            }
            let one = slots(self.one, pair.one, pair.level, pair.number).await?;
            let other = slots(self.other, pair.other, pair.level, pair.number).await?;
            let first = pair.number.saturating_mul(SLOTS as u64);
            for at in (0..SLOTS).rev() {
                let number = first.saturating_add(at as u64);
                if one[at].is_same(other[at]) {
                } else if pair.level > 0 {
                    self.waiting.push(Pair { one: one[at], other: other[at], level: pair.level - 1, number });
                } else {
                    match self.found.last_mut() {
                        Some(run) if run.start == number + 1 => run.start = number,
                        _ => self.found.push(number..number + 1),
                    }
                }
            }
        }
    }
}

/// Returns what a part of a tree is made of, one level below.
async fn slots(tree: &Tree, node: Node, level: u8, number: u64) -> Result<Vec<Node>> {
    Ok(match node {
        Node::Slot(Slot::Ref(id)) => {
            let page = tree.read_once(PageId(id), level, number).await?;
            // Slots behind the end of the disk mean nothing, whatever they say.
            let below = if level == 0 { 1 } else { span(level - 1) };
            let slot = |at: usize| {
                let begin = (number.saturating_mul(SLOTS as u64) + at as u64).saturating_mul(below);
                if begin < tree.shape().chunks() { page.slot(at) } else { Slot::Unallocated }
            };
            (0..SLOTS).map(|at| Node::Slot(slot(at))).collect()
        }
        Node::Slot(uniform) => vec![Node::Slot(uniform); SLOTS],
        Node::Above(root, top) => {
            let first = if level == top + 1 { Node::Slot(root) } else { Node::Above(root, top) };
            let mut slots = vec![Node::Slot(Slot::Unallocated); SLOTS];
            slots[0] = first;
            slots
        }
    })
}
