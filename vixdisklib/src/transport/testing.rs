//! Transports for tests: one that opens zeros, one that refuses.

use std::ops::Range;

use bytes::Bytes;

use super::{BoxFuture, DiskHandle, Transport};
use crate::{
    allocation::Allocation,
    error::{Error, Result},
    info::{DiskInfo, Geometry},
    mode::TransportMode,
    open::{Access, OpenOptions},
};

type Refusal = Box<dyn Fn() -> Error + Send + Sync>;

/// Opens a disk of zeros, or refuses with an error.
pub(crate) struct Scripted {
    mode: TransportMode,
    outcome: Result<u64, Refusal>,
}

impl Scripted {
    pub(crate) fn opening(mode: TransportMode, capacity: u64) -> Self {
        Self { mode, outcome: Ok(capacity) }
    }

    pub(crate) fn refusing(mode: TransportMode, error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self { mode, outcome: Err(Box::new(error)) }
    }
}

impl Transport for Scripted {
    fn mode(&self) -> TransportMode {
        self.mode
    }

    fn open<'a>(
        &'a self,
        _path: &'a str,
        _access: Access,
        _options: &'a OpenOptions,
    ) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>> {
        let outcome = match &self.outcome {
            Ok(capacity) => Ok(Box::new(Zeros { mode: self.mode, capacity: *capacity }) as Box<dyn DiskHandle>),
            Err(error) => Err(error()),
        };
        Box::pin(async { outcome })
    }
}

/// A disk that reads as zeros, in sectors of 512 bytes.
struct Zeros {
    mode: TransportMode,
    capacity: u64,
}

impl DiskHandle for Zeros {
    fn mode(&self) -> TransportMode {
        self.mode
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn alignment(&self) -> u32 {
        512
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(async {
            Ok(DiskInfo {
                capacity: self.capacity,
                logical_sector_size: 512,
                physical_sector_size: 512,
                geometry: Geometry { cylinders: 1, heads: 1, sectors: 1 },
                bios_geometry: None,
                adapter_type: None,
                uuid: None,
                links: None,
                parent_hint: None,
            })
        })
    }

    fn read_at(&self, _offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move { Ok(vec![0; len].into()) })
    }

    fn write_at(&self, _offset: u64, _data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn zero_range(&self, _range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn allocated(&self, range: Range<u64>, _chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(async { Ok(Allocation::assumed(range, "a test")) })
    }

    fn metadata<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async { Ok(None) })
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
