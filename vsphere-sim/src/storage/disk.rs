//! A virtual disk: what the VM, its snapshots and the 902 server see of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::base::DiskSource;
use super::blocks::BlockSet;
use super::chain::{Chain, NodeId, Place};
use super::tracking::{Landmark, Page, Tracker, TrackingError, TrackingOptions};
use super::{BLOCK, Error, Result};

pub use super::chain::Consolidation;

/// How a disk is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DiskOptions {
    /// Whether writes go into the user's own image instead of a layer over it.
    pub write_through: bool,
    /// Change tracking.
    pub tracking: TrackingOptions,
}

/// What a remote handle may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Bytes that went through a disk, by who asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Bytes sent to NFC clients.
    pub nfc_read: u64,
    /// Bytes received from NFC clients.
    pub nfc_written: u64,
    /// Bytes written by the guest.
    pub guest_written: u64,
}

/// What a snapshot holds of a disk.
#[derive(Debug, Clone)]
pub struct Point {
    node: NodeId,
    landmark: Option<Landmark>,
}

impl Point {
    /// The change id of the disk in the snapshot; absent when it is not tracked.
    pub fn change_id(&self) -> Option<String> {
        self.landmark.as_ref().map(Landmark::id)
    }

    /// The layer that the snapshot shows.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// One virtual disk with all its layers.
pub struct DiskStore {
    state: RwLock<State>,
    nfc_read: AtomicU64,
    nfc_written: AtomicU64,
    guest_written: AtomicU64,
    writers: AtomicU32,
    uuid: String,
}

struct State {
    chain: Chain,
    tracker: Tracker,
}

impl DiskStore {
    pub(super) fn create(place: Place, source: &DiskSource, options: &DiskOptions) -> Result<Arc<Self>> {
        let write = options.write_through;
        let (base, capacity) = source.open(write)?;
        // Disks come in sectors. What a raw file lacks of its last one reads as zeros.
        let capacity = capacity.div_ceil(512).saturating_mul(512);
        if capacity > MAX_CAPACITY {
            return Err(Error::Refused { disk: place.stem, reason: "larger than any virtual disk may be".into() });
        }
        let uuid = crate::ids::uuid_of(&format!("{}{}", place.prefix, place.stem));
        let chain = Chain::new(place, base, write, capacity);
        Ok(Arc::new(Self {
            state: RwLock::new(State { chain, tracker: Tracker::new(options.tracking.clone()) }),
            nfc_read: AtomicU64::new(0),
            nfc_written: AtomicU64::new(0),
            guest_written: AtomicU64::new(0),
            writers: AtomicU32::new(0),
            uuid,
        }))
    }

    /// Size in bytes now.
    pub fn capacity(&self) -> u64 {
        let state = self.read_state();
        state.chain.capacity(state.chain.current()).unwrap_or(0)
    }

    /// The disk's own UUID (`backing.uuid`), the same after every start.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Bytes so far.
    pub fn counters(&self) -> DiskCounters {
        DiskCounters {
            nfc_read: self.nfc_read.load(Ordering::Relaxed),
            nfc_written: self.nfc_written.load(Ordering::Relaxed),
            guest_written: self.guest_written.load(Ordering::Relaxed),
        }
    }

    /// Sets [`counters`](Self::counters) to zero.
    pub fn reset_counters(&self) {
        self.nfc_read.store(0, Ordering::Relaxed);
        self.nfc_written.store(0, Ordering::Relaxed);
        self.guest_written.store(0, Ordering::Relaxed);
    }

    /// The layer that the VM runs on.
    pub fn current(&self) -> NodeId {
        self.read_state().chain.current()
    }

    /// Datastore paths of `node` and the layers below it, topmost first.
    pub fn paths(&self, node: NodeId) -> Vec<String> {
        let state = self.read_state();
        state.chain.ancestry(node).into_iter().filter_map(|id| state.chain.path(id).ok()).collect()
    }

    /// Size in bytes of the disk as `node` shows it.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn capacity_of(&self, node: NodeId) -> Result<u64> {
        self.read_state().chain.capacity(node)
    }

    /// Every layer's datastore path and the bytes it holds.
    pub fn files(&self) -> Vec<(NodeId, String, u64)> {
        self.read_state().chain.files()
    }

    /// The blocks of [`BLOCK`] bytes that a layer itself holds, ascending.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn layer_blocks(&self, node: NodeId) -> Result<Vec<u64>> {
        self.read_state().chain.held(node)
    }

    /// The layer with this datastore path.
    pub fn find(&self, path: &str) -> Option<NodeId> {
        self.read_state().chain.find(path)
    }

    /// Reads as the guest does. Blocks.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] and the host's.
    pub fn guest_read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let state = self.read_state();
        state.chain.read(state.chain.current(), offset, buffer)
    }

    /// Writes as the guest does. Blocks.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] and the host's.
    pub fn guest_write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.write_state();
        let current = state.chain.current();
        state.chain.write(current, offset, bytes)?;
        state.tracker.record(offset..offset + bytes.len() as u64);
        self.guest_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a snapshot of this disk.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], which would be a defect.
    pub fn freeze(&self) -> Result<Point> {
        let mut state = self.write_state();
        let node = state.chain.freeze()?;
        Ok(Point { node, landmark: state.tracker.landmark() })
    }

    /// The present state as a point, for questions about a VM that is off. It holds nothing: writes go on.
    pub fn present(&self) -> Point {
        let state = self.read_state();
        Point { node: state.chain.current(), landmark: state.tracker.now() }
    }

    /// Gives a snapshot up; [`consolidate`](Self::consolidate) then frees its layer.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] for a point of another disk.
    pub fn release(&self, point: &Point) -> Result<()> {
        let mut state = self.write_state();
        state.tracker.stun();
        state.chain.release(point.node)
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] for a point of another disk.
    pub fn revert(&self, point: &Point) -> Result<()> {
        let mut state = self.write_state();
        state.chain.revert(point.node)?;
        state.tracker.reverted(point.landmark.as_ref());
        state.tracker.stun();
        state.chain.consolidate().map(|_| ())
    }

    /// Merges and drops layers that no snapshot needs. Blocks for as long as the copying takes.
    ///
    /// # Errors
    /// The host's.
    pub fn consolidate(&self) -> Result<Consolidation> {
        self.write_state().chain.consolidate()
    }

    /// Whether [`consolidate`](Self::consolidate) has something to do.
    pub fn needs_consolidation(&self) -> bool {
        self.read_state().chain.needs_consolidation()
    }

    /// Makes the disk larger.
    ///
    /// # Errors
    /// [`Error::Refused`] with snapshots, when shrinking, and when writes go to the user's image.
    pub fn grow(&self, capacity: u64) -> Result<()> {
        let mut state = self.write_state();
        let before = state.chain.capacity(state.chain.current())?;
        state.chain.grow(capacity)?;
        if state.tracker.options().growth_is_change {
            state.tracker.record(before..capacity);
        }
        Ok(())
    }

    /// Switches change tracking on or off in the configuration; a [`stun`](Self::stun) makes it true.
    pub fn set_tracking(&self, wanted: bool) {
        self.write_state().tracker.set_wanted(wanted);
    }

    /// The VM was stunned (power on, resume, snapshot).
    pub fn stun(&self) {
        self.write_state().tracker.stun();
    }

    /// Starts tracking anew: all change ids handed out become stale.
    pub fn reset_tracking(&self) {
        self.write_state().tracker.reset();
    }

    /// The change id of the running disk; absent when it is not tracked.
    pub fn change_id(&self) -> Option<String> {
        self.read_state().tracker.current_id()
    }

    /// One page of the areas changed between `since` and the snapshot `point`; `*` asks for allocated areas.
    ///
    /// # Errors
    /// [`TrackingError`].
    pub fn changed_areas(&self, point: &Point, since: &str, start: i64) -> Result<Page, TrackingError> {
        let state = self.read_state();
        let storage = |error: Error| TrackingError::Storage(error.to_string());
        let capacity = state.chain.capacity(point.node).map_err(storage)?;
        let start_offset = u64::try_from(start).ok().filter(|start| *start < capacity);
        let start = start_offset.ok_or(TrackingError::StartOffset { start, capacity })?;
        let stale =
            |reason: String| TrackingError::Stale { disk: state.chain.path(point.node).unwrap_or_default(), reason };
        let landmark =
            point.landmark.as_ref().ok_or_else(|| stale("the snapshot was taken without change tracking".into()))?;
        let (unit, set) = if since == "*" {
            (BLOCK, state.chain.allocated(point.node, start..capacity).map_err(storage)?)
        } else {
            (state.tracker.options().granularity.max(512), state.tracker.changes(landmark, since).map_err(stale)?)
        };
        let areas = set
            .runs(start / unit..capacity.div_ceil(unit))
            .map(|run| (run.start * unit).max(start)..(run.end * unit).min(capacity));
        Ok(Page::cut(start, capacity, state.tracker.options().max_areas, areas))
    }

    /// The parts of `range` that may hold data in `node`, ascending and apart.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] and the host's.
    pub fn allocated(&self, node: NodeId, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.allocated_by(node, range, Chain::allocated)
    }

    fn allocated_by(
        &self,
        node: NodeId,
        range: Range<u64>,
        blocks: fn(&Chain, NodeId, Range<u64>) -> Result<BlockSet>,
    ) -> Result<Vec<Range<u64>>> {
        let state = self.read_state();
        let capacity = state.chain.capacity(node)?;
        let range = range.start.min(capacity)..range.end.min(capacity);
        let set = blocks(&state.chain, node, range.clone())?;
        let cut = |run: Range<u64>| (run.start * BLOCK).max(range.start)..(run.end * BLOCK).min(range.end);
        Ok(set.runs(range.start / BLOCK..range.end.div_ceil(BLOCK)).map(cut).collect())
    }

    /// A value of the disk database, key without `ddb.`.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let state = self.read_state();
        if let Some(value) = state.chain.metadata(key) {
            return Some(value);
        }
        let (cylinders, heads, sectors) = geometry(state.chain.capacity(state.chain.current()).ok()?);
        let hex = |part: &str| {
            part.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect::<Vec<_>>().join(" ")
        };
        let plain: String = self.uuid.chars().filter(char::is_ascii_hexdigit).collect();
        Some(match key {
            "adapterType" => "lsilogic".into(),
            "uuid" => format!("{}-{}", hex(&plain[..16]), hex(&plain[16..])),
            "geometry.cylinders" | "geometry.biosCylinders" => cylinders.to_string(),
            "geometry.heads" | "geometry.biosHeads" => heads.to_string(),
            "geometry.sectors" | "geometry.biosSectors" => sectors.to_string(),
            "virtualHWVersion" => "19".into(),
            "thinProvisioned" => "1".into(),
            _ => return None,
        })
    }

    /// Open remote handles on any layer.
    pub fn open_handles(&self) -> u32 {
        self.read_state().chain.handles()
    }

    /// Snapshots that hold a layer.
    pub fn snapshots(&self) -> u32 {
        self.read_state().chain.snapshots()
    }

    /// Open remote handles that may write.
    pub fn open_writers(&self) -> u32 {
        self.writers.load(Ordering::Relaxed)
    }

    /// Opens a layer for a remote client; the layer stays until the handle is dropped.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn open(self: &Arc<Self>, node: NodeId, access: Access) -> Result<NodeHandle> {
        self.write_state().chain.hold(node)?;
        if access == Access::ReadWrite {
            self.writers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(NodeHandle { disk: self.clone(), node, access, alone: false })
    }

    /// Deletes the disk's layers. The user's own image stays.
    ///
    /// # Errors
    /// The host's.
    pub fn delete(&self) -> Result<()> {
        self.write_state().chain.delete()
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        // A panic under the lock would be a defect of ours; the state stays usable since layers are updated
        // file first, map second.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer opened by a remote client.
pub struct NodeHandle {
    disk: Arc<DiskStore>,
    node: NodeId,
    access: Access,
    /// The layers below are left out.
    alone: bool,
}

impl NodeHandle {
    /// Size in bytes.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn capacity(&self) -> Result<u64> {
        self.disk.capacity_of(self.node)
    }

    /// The same without the layers below: what this one does not hold is zeros.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Reads the merged chain, or this layer [`alone`](Self::alone). Blocks.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] and the host's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = if self.alone { Chain::read_alone } else { Chain::read };
        read(&self.disk.read_state().chain, self.node, offset, buffer)?;
        self.disk.nfc_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes to this layer. Change tracking sees it. Blocks.
    ///
    /// # Errors
    /// [`Error::Refused`] on a handle for reading, [`Error::OutOfRange`], and the host's.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.access == Access::ReadOnly {
            let disk = self.disk.paths(self.node).first().cloned().unwrap_or_default();
            return Err(Error::Refused { disk, reason: "opened for reading only".into() });
        }
        let mut state = self.disk.write_state();
        state.chain.write(self.node, offset, bytes)?;
        state.tracker.record(offset..offset + bytes.len() as u64);
        self.disk.nfc_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The parts of `range` that may hold data.
    ///
    /// # Errors
    /// The host's.
    pub fn allocated(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        let blocks = if self.alone { Chain::allocated_alone } else { Chain::allocated };
        self.disk.allocated_by(self.node, range, blocks)
    }

    /// Makes writes durable.
    ///
    /// # Errors
    /// The host's.
    pub fn sync(&self) -> Result<()> {
        self.disk.read_state().chain.sync(self.node)
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<DiskStore> {
        &self.disk
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.disk.write_state().chain.let_go(self.node);
        if self.access == Access::ReadWrite {
            self.disk.writers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// More than vSphere's 62 TiB, and few enough for the signed numbers of the API.
const MAX_CAPACITY: u64 = 64 << 40;

/// Cylinders, heads and sectors per track that a disk of `capacity` bytes claims to have.
pub(crate) fn geometry(capacity: u64) -> (u32, u32, u32) {
    let cylinders = capacity / 512 / (255 * 63);
    (cylinders.clamp(1, 65535) as u32, 255, 63)
}
