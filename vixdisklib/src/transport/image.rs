//! An open disk as the crate `vmdk` takes it: blocking, for its copies and exports.

use std::{io, ops::Range, sync::Arc};

use tokio::runtime::Handle;
use vmdk::{Image, MapEntry, MapKind};

use super::SharedHandle;
use crate::{allocation::MIN_CHUNK, error::Error};

/// The view of an open disk for threads that may block; never use it from a task. Files are read directly.
pub(crate) fn blocking_image(handle: SharedHandle, name: &str, runtime: Handle) -> Arc<dyn Image> {
    match handle.local_image() {
        Some(image) => image,
        None => Arc::new(BlockingImage { handle, name: name.to_owned(), runtime }),
    }
}

/// A disk of any transport.
struct BlockingImage {
    handle: SharedHandle,
    name: String,
    runtime: Handle,
}

impl BlockingImage {
    fn failed(&self, operation: &'static str, offset: u64) -> impl FnOnce(Error) -> vmdk::Error {
        let name = self.name.clone();
        move |error| vmdk::Error::io(operation, name, Some(offset), io::Error::other(error))
    }

    /// What is in a part of the disk that is small enough for one answer.
    fn map_window(&self, window: Range<u64>) -> vmdk::Result<Vec<MapEntry>> {
        let allocation = self.runtime.block_on(self.handle.allocated(window.clone(), MIN_CHUNK));
        let allocation = allocation.map_err(self.failed("map", window.start))?;
        let mut entries = Vec::with_capacity(2 * allocation.areas.len() + 1);
        let mut at = window.start;
        for area in allocation.areas {
            if at < area.start {
                entries.push(MapEntry::new(at..area.start, MapKind::Unallocated));
            }
            at = area.end;
            entries.push(MapEntry::new(area, MapKind::Data));
        }
        if at < window.end {
            entries.push(MapEntry::new(at..window.end, MapKind::Unallocated));
        }
        Ok(entries)
    }

    fn read_only(&self, operation: &'static str) -> vmdk::Error {
        vmdk::Error::ReadOnly { operation, object: self.name.clone(), reason: "it is only read here" }
    }
}

impl Image for BlockingImage {
    fn capacity(&self) -> u64 {
        self.handle.capacity()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vmdk::Result<()> {
        let (len, capacity) = (buf.len() as u64, self.capacity());
        let end = offset.checked_add(len).filter(|end| *end <= capacity);
        let end = end.ok_or(vmdk::Error::OutOfRange { operation: "read", offset, len, capacity })?;
        if len == 0 {
            return Ok(());
        }
        let sector = u64::from(self.handle.alignment());
        let start = offset - offset % sector;
        let whole = (end.next_multiple_of(sector) - start) as usize;
        let bytes = self.runtime.block_on(self.handle.read_at(start, whole)).map_err(self.failed("read", offset))?;
        let from = (offset - start) as usize;
        match bytes.get(from..from + buf.len()) {
            Some(wanted) => buf.copy_from_slice(wanted),
            None => {
                let short = io::Error::new(io::ErrorKind::UnexpectedEof, "the transport returned fewer bytes");
                return Err(vmdk::Error::io("read", &*self.name, Some(offset), short));
            }
        }
        Ok(())
    }

    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = vmdk::Result<MapEntry>> + Send + '_> {
        let end = range.end.min(self.capacity());
        in_windows(range.start..end, |window| self.map_window(window))
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> vmdk::Result<()> {
        Err(self.read_only("write"))
    }

    fn zero_at(&self, _range: Range<u64>) -> vmdk::Result<()> {
        Err(self.read_only("zero"))
    }

    fn flush(&self) -> vmdk::Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn ddb_get(&self, key: &str) -> Option<String> {
        let value = self.runtime.block_on(self.handle.metadata(key));
        value.inspect_err(|error| tracing::warn!(name = self.name, key, %error, "a value is not known")).ok().flatten()
    }
}

/// Maps a range window by window, so that no answer becomes large. Ends after an error.
pub(super) fn in_windows<'a>(
    range: Range<u64>,
    map: impl Fn(Range<u64>) -> vmdk::Result<Vec<MapEntry>> + Send + 'a,
) -> Box<dyn Iterator<Item = vmdk::Result<MapEntry>> + Send + 'a> {
    let mut start = Some(range.start).filter(|start| *start < range.end);
    let windows = std::iter::from_fn(move || {
        let window = start?..range.end.min(start?.saturating_add(WINDOW));
        let entries = map(window.clone());
        start = Some(window.end).filter(|next| entries.is_ok() && *next < range.end);
        Some(entries.map_or_else(|error| vec![Err(error)], |entries| entries.into_iter().map(Ok).collect()))
    });
    Box::new(windows.flatten())
}

/// What is mapped at once: an answer in chunks of 64 KiB has at most 8 MiB then.
const WINDOW: u64 = 64 << 30;
