//! The disk behind instant access: the point, and over it what was written.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use vixdisklib::{BackendError, BackendFuture, DiskBackend};

use super::{chunks::Chunks, overlay::Changes};
use crate::{
    cancel::CancelToken,
    repository::{ExtentKind, Pin},
};

/// What a disk and its handle share.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) point: Chunks,
    pub(super) changes: Option<Changes>,
    /// Held for as long as anything reads the point.
    pub(super) pin: Option<Pin>,
    pub(super) cancel: CancelToken,
}

impl Layers {
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes, BackendError> {
        self.cancel.check()?;
        let changed = self.changes.as_ref().map(|changes| (changes, changes.changed(&range)));
        let Some((changes, changed)) = changed.filter(|(_, changed)| !changed.is_empty()) else {
            return Ok(self.point.read(range).await?);
        };
        if changed == [range.clone()] {
            return Ok(changes.read(range).await?);
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        for part in changed {
            if at < part.start {
                bytes.extend_from_slice(&self.point.read(at..part.start).await?);
            }
            at = part.end;
            bytes.extend_from_slice(&changes.read(part).await?);
        }
        if at < range.end {
            bytes.extend_from_slice(&self.point.read(at..range.end).await?);
        }
        Ok(bytes.freeze())
    }

    fn changes(&self) -> Result<&Changes, BackendError> {
        self.changes.as_ref().ok_or_else(|| "the recovery point was opened for reading".into())
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), BackendError> {
        let changes = self.changes()?;
        let range = offset..offset + data.len() as u64;
        if changes.is_whole(&range) {
            let _shared = changes.partial.read().await;
            return Ok(changes.write(offset, data).await?);
        }
        let _alone = changes.partial.write().await;
        let whole = changes.outward(&range);
        let mut bytes = BytesMut::from(&self.read(whole.clone()).await?[..]);
        bytes[(range.start - whole.start) as usize..(range.end - whole.start) as usize].copy_from_slice(&data);
        Ok(changes.write(whole.start, bytes.freeze()).await?)
    }

    async fn zero(&self, range: Range<u64>) -> Result<(), BackendError> {
        let changes = self.changes()?;
        let outward = changes.outward(&range);
        let aligned = |at: u64, up: bool| {
            if up { at.next_multiple_of(super::overlay::BLOCK) } else { at - at % super::overlay::BLOCK }
        };
        // Blocks that are zeroed whole, and the edges, which are written.
        let start = aligned(range.start, true).min(range.end);
        let end = if range.end == outward.end { range.end } else { aligned(range.end, false).max(start) };
        for edge in [range.start..start, end..range.end] {
            if !edge.is_empty() {
                self.write(edge.start, vec![0; (edge.end - edge.start) as usize].into()).await?;
            }
        }
        if start < end {
            let _alone = changes.partial.write().await;
            changes.zero(start..end).await?;
        }
        Ok(())
    }

    async fn allocated(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, BackendError> {
        let mut areas = self.changes.as_ref().map(|changes| changes.data(&range)).unwrap_or_default();
        let mut extents = std::pin::pin!(self.point.reader().extents(range));
        while let Some(extent) = extents.try_next().await? {
            if extent.kind == ExtentKind::Data {
                areas.push(extent.range);
            }
        }
        areas.sort_unstable_by_key(|area| area.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(areas.len());
        for area in areas {
            match joined.last_mut() {
                Some(last) if area.start <= last.end => last.end = last.end.max(area.end),
                _ => joined.push(area),
            }
        }
        Ok(joined)
    }
}

/// The layers as a disk.
pub(super) struct Backend(pub(super) Arc<Layers>);

impl DiskBackend for Backend {
    fn capacity(&self) -> u64 {
        self.0.point.reader().capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BackendFuture<'_, Bytes> {
        Box::pin(self.0.read(offset..offset + len as u64))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BackendFuture<'_, ()> {
        Box::pin(self.0.write(offset, data))
    }

    fn zero_range(&self, range: Range<u64>) -> BackendFuture<'_, ()> {
        Box::pin(self.0.zero(range))
    }

    fn allocated(&self, range: Range<u64>) -> BackendFuture<'_, Option<Vec<Range<u64>>>> {
        Box::pin(async move { self.0.allocated(range).await.map(Some) })
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.0.point.reader().record().metadata.get(key).cloned()
    }

    fn flush(&self) -> BackendFuture<'_, ()> {
        // Changes end with the disk: nothing is to outlive a power cut.
        Box::pin(std::future::ready(Ok(())))
    }
}
