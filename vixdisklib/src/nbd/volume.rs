//! A device as clients may use it: any offset and length, holes known, zeros found.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::{
    device::{AnyDevice, DeviceError},
    layout::{Layout, segment_of},
    wire::reply::{Extent, Piece},
};
use crate::transport::zeros;

/// A device, and what is between it and the requests of all connections.
pub(super) struct Volume {
    device: Arc<dyn AnyDevice>,
    alignment: u64,
    read_only: bool,
    layout: Layout,
    /// Held alone while part of a block is read, changed and written back; shared by writes of whole blocks.
    partial: RwLock<()>,
}

impl Volume {
    pub(super) fn new(device: Arc<dyn AnyDevice>, read_only: bool) -> Self {
        let alignment = u64::from(device.alignment().max(1));
        // An export that is read-only may be one of a device that others write.
        let layout = Layout::new(!device.is_writable());
        let read_only = read_only || !device.is_writable();
        Self { device, alignment, read_only, layout, partial: RwLock::default() }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.device.capacity()
    }

    pub(super) fn alignment(&self) -> u64 {
        self.alignment
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn zeroes_fast(&self) -> bool {
        self.device.zeroes_fast()
    }

    /// The bytes of a range in order. What is known to be a hole is not read; long zeros are found in what is read.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Vec<Piece>, DeviceError> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let part = at..range.end.min(segment_of(at).end);
            at = part.end;
            let areas = if self.layout.is_kept() {
                bridged(self.layout.areas(&*self.device, part.clone()).await)
            } else {
                vec![part.clone()]
            };
            let mut read_to = part.start;
            for area in areas {
                push_hole(&mut pieces, read_to..area.start);
                push_found(&mut pieces, area.start, self.read_bytes(area.clone()).await?);
                read_to = area.end;
            }
            push_hole(&mut pieces, read_to..part.end);
        }
        Ok(pieces)
    }

    /// Writes at any offset.
    pub(super) async fn write(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        let range = offset..offset + data.len() as u64;
        if self.is_aligned(&range) {
            let _shared = self.shared().await;
            return self.device.write_at(offset, data).await;
        }
        let _alone = self.partial.write().await;
        self.merge(range, &data).await
    }

    /// Makes a range read as zeros; with `hole`, storage may be given back.
    pub(super) async fn zero(&self, range: Range<u64>, hole: bool) -> Result<(), DeviceError> {
        let inner = self.inward(&range);
        if inner != range {
            let _alone = self.partial.write().await;
            for edge in [range.start..inner.start, inner.end..range.end] {
                if !edge.is_empty() {
                    let zeros = vec![0; len_of(&edge)];
                    self.merge(edge, &zeros).await?;
                }
            }
        }
        if inner.is_empty() {
            return Ok(());
        }
        let _shared = self.shared().await;
        if hole {
            return self.device.zero_range(inner).await;
        }
        let mut at = inner.start;
        while at < inner.end {
            let piece = zeros(inner.end - at);
            let len = piece.len() as u64;
            self.device.write_at(at, piece).await?;
            at += len;
        }
        Ok(())
    }

    /// Gives back whole blocks of a range; it is a hint, so the edges stay.
    pub(super) async fn discard(&self, range: Range<u64>) -> Result<(), DeviceError> {
        let inner = self.inward(&range);
        if inner.is_empty() {
            return Ok(());
        }
        let _shared = self.shared().await;
        self.device.discard(inner).await
    }

    /// What a range is, from its beginning on; at most `limit` extents, all of which differ from their neighbours.
    pub(super) async fn status(&self, range: Range<u64>, limit: usize) -> Vec<Extent> {
        let mut extents = Extents { all: Vec::new(), limit };
        let mut at = range.start;
        while at < range.end {
            let part = at..range.end.min(segment_of(at).end);
            at = part.end;
            let mut told = part.start;
            for area in self.layout.areas(&*self.device, part.clone()).await {
                if !extents.push(area.start - told, false) || !extents.push(area.end - area.start, true) {
                    return extents.all;
                }
                told = area.end;
            }
            if !extents.push(part.end - told, false) {
                break;
            }
        }
        extents.all
    }

    /// Returns when what was written is durable.
    pub(super) async fn flush(&self) -> Result<(), DeviceError> {
        if self.read_only { Ok(()) } else { self.device.flush().await }
    }

    /// Flushes, and closes the device unless somebody else has it too.
    pub(super) async fn close(self) -> Result<(), DeviceError> {
        let flushed = self.flush().await;
        let closed = self.device.close().await;
        flushed.and(closed)
    }

    async fn shared(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.alignment == 1 { None } else { Some(self.partial.read().await) }
    }

    /// Changes part of some blocks. The caller holds `partial` alone.
    async fn merge(&self, range: Range<u64>, data: &[u8]) -> Result<(), DeviceError> {
        let whole = self.outward(&range);
        let old = self.device.read_at(whole.start, len_of(&whole)).await?;
        let mut new = BytesMut::from(&old[..]);
        let start = len_of(&(whole.start..range.start));
        new[start..start + data.len()].copy_from_slice(data);
        self.device.write_at(whole.start, new.freeze()).await
    }

    async fn read_bytes(&self, range: Range<u64>) -> Result<Bytes, DeviceError> {
        let whole = self.outward(&range);
        let bytes = self.device.read_at(whole.start, len_of(&whole)).await?;
        let start = len_of(&(whole.start..range.start));
        Ok(bytes.slice(start..start + len_of(&range)))
    }

    fn is_aligned(&self, range: &Range<u64>) -> bool {
        range.start.is_multiple_of(self.alignment) && range.end.is_multiple_of(self.alignment)
    }

    fn outward(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end.checked_next_multiple_of(self.alignment).unwrap_or(range.end);
        range.start - range.start % self.alignment..end.min(self.capacity())
    }

    /// The whole blocks of a range; empty, at its start, when there are none.
    fn inward(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.checked_next_multiple_of(self.alignment).unwrap_or(range.end).min(range.end);
        let end = range.end - range.end % self.alignment;
        if start < end { start..end } else { range.end..range.end }
    }
}

struct Extents {
    all: Vec<Extent>,
    limit: usize,
}

impl Extents {
    /// False when there is no place for it.
    fn push(&mut self, len: u64, data: bool) -> bool {
        let Ok(len) = u32::try_from(len) else { return false };
        if len == 0 {
            return true;
        }
        let full = self.all.len() == self.limit;
        match self.all.last_mut() {
            Some(last) if last.data == data => last.len += len,
            _ if full => return false,
            _ => self.all.push(Extent { len, data }),
        }
        true
    }
}

/// Joins areas that are so near to each other that reading across is better than asking twice.
fn bridged(areas: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for area in areas {
        match out.last_mut() {
            Some(last) if area.start - last.end <= BRIDGE => last.end = area.end,
            _ => out.push(area),
        }
    }
    out
}

fn push_hole(pieces: &mut Vec<Piece>, range: Range<u64>) {
    match pieces.last_mut() {
        _ if range.is_empty() => {}
        Some(Piece::Hole(last)) => last.end = range.end,
        _ => pieces.push(Piece::Hole(range)),
    }
}

/// Takes bytes apart into data and blocks of zeros. A buffer that has both keeps its memory until all of it is sent.
fn push_found(pieces: &mut Vec<Piece>, offset: u64, bytes: Bytes) {
    let mut data_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        // Blocks of the device's grid, so that what is found does not depend on where a request begins.
        let to_grid = ZERO_BLOCK - len_of(&(0..(offset + at as u64) % ZERO_BLOCK as u64));
        let end = bytes.len().min(at + to_grid);
        if end - at == ZERO_BLOCK && is_zero(&bytes[at..end]) {
            if data_from < at {
                pieces.push(Piece::Data(offset + data_from as u64, bytes.slice(data_from..at)));
            }
            push_hole(pieces, offset + at as u64..offset + end as u64);
            data_from = end;
        }
        at = end;
    }
    if data_from < bytes.len() {
        pieces.push(Piece::Data(offset + data_from as u64, bytes.slice(data_from..)));
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

/// Lengths of requests, which are far below 4 GiB.
fn len_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

/// Holes up to this are read with the data around them: two round trips cost more.
const BRIDGE: u64 = 256 << 10;

/// Zeros are looked for in blocks of this many bytes, which are worth a chunk of their own.
const ZERO_BLOCK: usize = 32 << 10;
