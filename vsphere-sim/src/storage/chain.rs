//! The chain (in truth a tree) of layers of one disk.
//!
//! Every snapshot freezes the node that the VM runs on and puts a new one above it; reverting starts another
//! branch. A node that no snapshot needs any more is merged with its only child, as a host consolidates a
//! disk; one with several children stays, since they share it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use vmdk::Image;

use super::layer::{Layer, Piece};
use super::{BLOCK, BlockSet, Error, Result};

/// Bytes copied at once when layers are merged.
const COPY: u64 = 1 << 20;

/// One layer of one disk, for as long as the layer exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Where a disk's files lie: on the host and in the datastore's own naming.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Host directory of the VM.
    pub(super) dir: PathBuf,
    /// `[ds1] web/`
    pub(super) prefix: String,
    /// `web` or `web_1`
    pub(super) stem: String,
}

#[derive(Debug)]
struct Node {
    /// `web` or `web-000001`
    file: String,
    parent: Option<NodeId>,
    layer: Layer,
    capacity: u64,
    /// Snapshots that show this node's content.
    points: u32,
    /// Open remote handles.
    handles: u32,
}

/// What a consolidation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consolidation {
    /// Layers merged into the one below.
    pub merged: u32,
    /// Layers dropped because nothing needed them.
    pub dropped: u32,
    /// Whether something is left to do because a layer is open.
    pub blocked: bool,
}

pub(super) struct Chain {
    place: Place,
    base: Option<Arc<dyn Image>>,
    /// Whether writes to the root node go to the base image itself.
    write_through: bool,
    nodes: BTreeMap<NodeId, Node>,
    current: NodeId,
    serial: u32,
}

impl Chain {
    pub(super) fn new(place: Place, base: Option<Arc<dyn Image>>, write_through: bool, capacity: u64) -> Self {
        let root = NodeId(0);
        let layer = Layer::new(place.dir.join(&place.stem));
        let node = Node { file: place.stem.clone(), parent: None, layer, capacity, points: 0, handles: 0 };
        Self { place, base, write_through, nodes: BTreeMap::from([(root, node)]), current: root, serial: 0 }
    }

    pub(super) fn current(&self) -> NodeId {
        self.current
    }

    pub(super) fn capacity(&self, id: NodeId) -> Result<u64> {
        Ok(self.node(id)?.capacity)
    }

    /// `[ds1] web/web-000001.vmdk`
    pub(super) fn path(&self, id: NodeId) -> Result<String> {
        Ok(format!("{}{}.vmdk", self.place.prefix, self.node(id)?.file))
    }

    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        self.nodes.keys().copied().find(|id| self.path(*id).is_ok_and(|own| own == path))
    }

    /// `id` and its ancestors down to the root.
    pub(super) fn ancestry(&self, id: NodeId) -> Vec<NodeId> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            chain.push(id);
            next = self.nodes.get(&id).and_then(|node| node.parent);
        }
        chain
    }

    /// Every layer with its path, bytes held and whether the VM runs on it or on a descendant of it.
    pub(super) fn files(&self) -> Vec<(NodeId, String, u64)> {
        self.nodes
            .iter()
            .map(|(id, node)| (*id, self.path(*id).unwrap_or_default(), node.layer.present().len() * BLOCK))
            .collect()
    }

    /// The blocks that the layer itself holds, ascending.
    pub(super) fn held(&self, id: NodeId) -> Result<Vec<u64>> {
        Ok(self.node(id)?.layer.present().runs(0..u64::MAX).flatten().collect())
    }

    pub(super) fn metadata(&self, key: &str) -> Option<String> {
        self.base.as_ref().and_then(|base| base.ddb_get(key))
    }

    pub(super) fn read(&self, id: NodeId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check(id, offset, buffer.len() as u64)?;
        self.read_node(id, offset, buffer)
    }

    /// Reads what the layer itself holds; all else is zeros.
    pub(super) fn read_alone(&self, id: NodeId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check(id, offset, buffer.len() as u64)?;
        let node = self.node(id)?;
        if node.parent.is_none() {
            return self.read_node(id, offset, buffer);
        }
        for piece in node.layer.pieces(offset..offset + buffer.len() as u64) {
            let (Piece::Here(range) | Piece::Below(range)) = &piece;
            let part = &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize];
            match &piece {
                Piece::Here(_) => node.layer.read(range.start, part)?,
                Piece::Below(_) => part.fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(id, offset, bytes.len() as u64)?;
        self.store(id, offset, bytes)
    }

    pub(super) fn sync(&self, id: NodeId) -> Result<()> {
        let node = self.node(id)?;
        if let (None, true, Some(base)) = (node.parent, self.write_through, &self.base) {
            base.flush()
                .map_err(|error| Error::io("flush base image", &self.place.dir, std::io::Error::other(error)))?;
        }
        node.layer.sync()
    }

    /// The blocks of `range` that may hold data in `id`, in units of [`BLOCK`].
    pub(super) fn allocated(&self, id: NodeId, range: Range<u64>) -> Result<BlockSet> {
        let capacity = self.node(id)?.capacity;
        let range = range.start.min(capacity)..range.end.min(capacity);
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let mut set = BlockSet::new();
        for id in self.ancestry(id) {
            self.node(id)?.layer.present().runs(blocks.clone()).for_each(|run| set.insert(run));
        }
        if let Some(base) = &self.base {
            let within = range.start..range.end.min(base.capacity());
            if within.start < within.end {
                super::base::data(&**base, within, |run| set.insert(run.start / BLOCK..run.end.div_ceil(BLOCK)))
                    .map_err(|error| Error::io("map base image", &self.place.dir, error))?;
            }
        }
        Ok(set)
    }

    /// The same of the layer itself.
    pub(super) fn allocated_alone(&self, id: NodeId, range: Range<u64>) -> Result<BlockSet> {
        let node = self.node(id)?;
        if node.parent.is_none() {
            return self.allocated(id, range);
        }
        let range = range.start.min(node.capacity)..range.end.min(node.capacity);
        let mut set = BlockSet::new();
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        node.layer.present().runs(blocks).for_each(|run| set.insert(run));
        Ok(set)
    }

    /// Freezes the current node for a snapshot and runs on a new one above it.
    pub(super) fn freeze(&mut self) -> Result<NodeId> {
        let frozen = self.current;
        self.branch(frozen)?;
        self.node_mut(frozen)?.points += 1;
        Ok(frozen)
    }

    /// Runs on a new node above `id`; what was written since is dropped by the next consolidation.
    pub(super) fn revert(&mut self, id: NodeId) -> Result<()> {
        self.branch(id)
    }

    /// One snapshot less shows `id`.
    pub(super) fn release(&mut self, id: NodeId) -> Result<()> {
        let node = self.node_mut(id)?;
        node.points = node.points.saturating_sub(1);
        Ok(())
    }

    pub(super) fn hold(&mut self, id: NodeId) -> Result<()> {
        self.node_mut(id)?.handles += 1;
        Ok(())
    }

    pub(super) fn let_go(&mut self, id: NodeId) {
        if let Ok(node) = self.node_mut(id) {
            node.handles = node.handles.saturating_sub(1);
        }
    }

    pub(super) fn handles(&self) -> u32 {
        self.nodes.values().map(|node| node.handles).sum()
    }

    pub(super) fn snapshots(&self) -> u32 {
        self.nodes.values().map(|node| node.points).sum()
    }

    pub(super) fn grow(&mut self, capacity: u64) -> Result<()> {
        let refuse = |reason: &str| Error::Refused { disk: self.place.stem.clone(), reason: reason.into() };
        if self.nodes.len() > 1 {
            return Err(refuse("a disk with snapshots cannot grow"));
        }
        if self.write_through && self.base.is_some() {
            return Err(refuse("a disk that writes to the user's image cannot grow"));
        }
        let current = self.current;
        let node = self.node_mut(current)?;
        if capacity < node.capacity {
            return Err(Error::Refused { disk: node.file.clone(), reason: "a disk cannot shrink".into() });
        }
        node.capacity = capacity;
        Ok(())
    }

    /// Whether a layer exists that no snapshot needs and that could be merged or dropped.
    pub(super) fn needs_consolidation(&self) -> bool {
        self.removable().next().is_some()
    }

    /// Merges and drops what no snapshot needs.
    pub(super) fn consolidate(&mut self) -> Result<Consolidation> {
        let mut done = Consolidation::default();
        loop {
            let work: Vec<_> = self.removable().collect();
            let free = work.iter().find(|(id, child)| {
                let idle = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.handles == 0);
                idle(id) && child.as_ref().is_none_or(idle)
            });
            match free.copied() {
                Some((id, None)) => {
                    self.drop_node(id)?;
                    done.dropped += 1;
                }
                Some((id, Some(child))) => {
                    self.merge_into_parent(id, child)?;
                    done.merged += 1;
                }
                None => {
                    done.blocked = !work.is_empty();
                    return Ok(done);
                }
            }
        }
    }

    /// Deletes every layer file.
    pub(super) fn delete(&mut self) -> Result<()> {
        self.nodes.values().try_for_each(|node| node.layer.delete())
    }

    /// Nodes without a purpose of their own, each with its only child if it has one.
    fn removable(&self) -> impl Iterator<Item = (NodeId, Option<NodeId>)> + '_ {
        self.nodes.iter().filter(|(id, node)| node.points == 0 && **id != self.current).filter_map(|(id, _)| {
            let mut children = self.nodes.iter().filter(|(_, node)| node.parent == Some(*id)).map(|(child, _)| *child);
            match (children.next(), children.next()) {
                (first, None) => Some((*id, first)),
                _ => None,
            }
        })
    }

    fn drop_node(&mut self, id: NodeId) -> Result<()> {
        match self.nodes.remove(&id) {
            Some(node) => node.layer.delete(),
            None => Ok(()),
        }
    }

    /// Copies the blocks of `child` over those of `parent`. The child keeps its id (snapshots know it) and
    /// takes over the parent's file and place in the chain.
    fn merge_into_parent(&mut self, parent: NodeId, child: NodeId) -> Result<()> {
        let capacity = self.node(child)?.capacity;
        self.node_mut(parent)?.capacity = capacity;
        let whole = 0..capacity.div_ceil(BLOCK);
        // A copy of the block map (bits only), so that the parent can be written while it is walked. Should a
        // copy fail half way, the child still hides every block already copied and nothing is lost.
        let present = self.node(child)?.layer.present().clone();
        let mut buffer = vec![0; COPY as usize];
        for run in present.runs(whole) {
            let end = (run.end * BLOCK).min(capacity);
            let mut at = run.start * BLOCK;
            while at < end {
                let len = COPY.min(end - at);
                let part = &mut buffer[..len as usize];
                self.node(child)?.layer.read(at, part)?;
                self.store(parent, at, part)?;
                at += len;
            }
        }
        let Some(below) = self.nodes.remove(&parent) else {
            return Err(self.missing(parent));
        };
        let node = self.node_mut(child)?;
        node.file = below.file;
        node.parent = below.parent;
        std::mem::replace(&mut node.layer, below.layer).delete()
    }

    fn branch(&mut self, below: NodeId) -> Result<()> {
        let capacity = self.node(below)?.capacity;
        let file = (1u32..)
            .map(|n| format!("{}-{n:06}", self.place.stem))
            .find(|name| self.nodes.values().all(|node| node.file != *name));
        let file = file.unwrap_or_default();
        self.serial += 1;
        let id = NodeId(self.serial);
        let layer = Layer::new(self.place.dir.join(&file));
        self.nodes.insert(id, Node { file, parent: Some(below), layer, capacity, points: 0, handles: 0 });
        self.current = id;
        Ok(())
    }

    fn read_node(&self, id: NodeId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let node = self.node(id)?;
        for piece in node.layer.pieces(offset..offset + buffer.len() as u64) {
            let (Piece::Here(range) | Piece::Below(range)) = &piece;
            let part = &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize];
            match (&piece, node.parent) {
                (Piece::Here(_), _) => node.layer.read(range.start, part)?,
                (Piece::Below(_), Some(parent)) => self.read_node(parent, range.start, part)?,
                (Piece::Below(_), None) => self.read_base(range.start, part)?,
            }
        }
        Ok(())
    }

    fn read_base(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let held = self.base.as_ref().map_or(0, |base| base.capacity().saturating_sub(offset));
        let split = usize::try_from(held).map_or(buffer.len(), |held| held.min(buffer.len()));
        let (inside, outside) = buffer.split_at_mut(split);
        outside.fill(0);
        match &self.base {
            Some(base) if !inside.is_empty() => base
                .read_at(offset, inside)
                .map_err(|error| Error::io("read base image", &self.place.dir, std::io::Error::other(error))),
            _ => Ok(()),
        }
    }

    fn store(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let (capacity, is_root) = (self.node(id)?.capacity, self.node(id)?.parent.is_none());
        if let (true, true, Some(base)) = (is_root, self.write_through, &self.base) {
            return base
                .write_at(offset, bytes)
                .map_err(|error| Error::io("write base image", &self.place.dir, std::io::Error::other(error)));
        }
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let block = at / BLOCK;
            let block_range = block * BLOCK..((block + 1) * BLOCK).min(capacity);
            let rest = &bytes[(at - offset) as usize..];
            let len = if at == block_range.start && end >= block_range.end {
                // Whole blocks, up to the last one that is covered to its end.
                if end >= capacity { rest.len() as u64 } else { rest.len() as u64 / BLOCK * BLOCK }
            } else {
                block_range.end.min(end) - at
            };
            let part = &rest[..len as usize];
            let whole = at == block_range.start && at + len >= block_range.end;
            if whole || self.node(id)?.layer.present().contains(block) {
                self.node_mut(id)?.layer.write(at, part)?;
            } else {
                let mut copy = vec![0; (block_range.end - block_range.start) as usize];
                self.read_node(id, block_range.start, &mut copy)?;
                let from = (at - block_range.start) as usize;
                copy[from..from + part.len()].copy_from_slice(part);
                self.node_mut(id)?.layer.write(block_range.start, &copy)?;
            }
            at += len;
        }
        Ok(())
    }

    fn check(&self, id: NodeId, offset: u64, len: u64) -> Result<()> {
        let capacity = self.node(id)?.capacity;
        match offset.checked_add(len) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(Error::OutOfRange { disk: self.path(id)?, offset, len, capacity }),
        }
    }

    fn node(&self, id: NodeId) -> Result<&Node> {
        self.nodes.get(&id).ok_or_else(|| self.missing(id))
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node> {
        let missing = self.missing(id);
        self.nodes.get_mut(&id).ok_or(missing)
    }

    fn missing(&self, id: NodeId) -> Error {
        Error::NoSuchLayer { disk: format!("{}{}.vmdk", self.place.prefix, self.place.stem), layer: format!("{id:?}") }
    }
}
