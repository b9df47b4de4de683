//! The work on reads and writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vsphere_nfc::wire::aio::Kind;
use vsphere_nfc::wire::compress::Compression;
use vsphere_nfc::wire::io::{Direction, Io};

use super::config::FragmentOrder;
use super::requests::{OpenDisk, blocking};
use super::session::{CODE_INVALID, Data, Replies, Working};

/// Answers the read `io` with fragments.
pub(super) async fn read(replies: &Replies, op_id: u32, disk: &OpenDisk, io: &Io, buffer_size: u32) -> io::Result<()> {
    let _working = replies.working();
    let config = replies.config();
    let size = config.fragment_size.unwrap_or(buffer_size).clamp(512, buffer_size);
    let fragments = fragments(io.total, size, config.fragment_order, op_id);
    for (index, (fragment_offset, fragment_len)) in fragments.into_iter().enumerate() {
        let at = io.offset + u64::from(fragment_offset);
        let data = match disk.file.resident(at, fragment_len as usize) {
            Some(data) => Data::Resident(data),
            None => {
                let file = Arc::clone(&disk.file);
                let mut data = replies.buffers().take(fragment_len as usize);
                let data = blocking(move || file.read_at(at, &mut data).map(|()| data));
                match data.await? {
                    Ok(data) => Data::Own(data),
                    Err(error) => return replies.error(op_id, CODE_INVALID, error.to_string()).await,
                }
            }
        };
        let compression = config.compression.of(io.compression, index);
        let (compression, data) = match compression.compress(&data) {
            Some(packed) => (compression, packed.into()),
            None => (Compression::None, data),
        };
        let reply = Io {
            handle: 0,
            direction: Direction::Read,
            compression,
            offset: io.offset,
            total: io.total,
            fragment_offset,
            fragment_len,
            // At most the fragment's length.
            wire_len: u32::try_from(data.len()).map_err(io::Error::other)?,
        };
        replies.shared().counters.count(&disk.path, |traffic| traffic.read += u64::from(fragment_len));
        replies.send(Kind::Io, op_id, &reply.encode(), data).await?;
    }
    Ok(())
}

/// Cuts `total` bytes into fragments (offset and length) in the wished for order.
fn fragments(total: u32, size: u32, order: FragmentOrder, seed: u32) -> Vec<(u32, u32)> {
    let mut fragments: Vec<(u32, u32)> =
        (0..total).step_by(size as usize).map(|offset| (offset, size.min(total - offset))).collect();
    match order {
        FragmentOrder::InOrder => {}
        FragmentOrder::Reversed => fragments.reverse(),
        // The same for the same operation, so that a failing test fails again.
        FragmentOrder::Shuffled => {
            fragments.sort_by_key(|(offset, _)| (offset ^ seed).wrapping_add(seed).wrapping_mul(0x9E37_79B1));
        }
    }
    fragments
}

/// A write of which not all fragments have come.
pub(super) struct Write {
    progress: Arc<Progress>,
    offset: u64,
    total: u32,
    received: u32,
}

/// What the fragments of a write share.
struct Progress {
    replies: Replies,
    op_id: u32,
    disk: OpenDisk,
    written: AtomicU32,
    failed: AtomicBool,
    _working: Working,
}

impl Write {
    pub(super) fn new(replies: &Replies, op_id: u32, disk: OpenDisk, io: &Io) -> Self {
        let progress = Progress {
            replies: replies.clone(),
            op_id,
            disk,
            written: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            _working: replies.working(),
        };
        Self { progress: Arc::new(progress), offset: io.offset, total: io.total, received: 0 }
    }

    /// Takes note of the next fragment; `false` when it is not the next one.
    pub(super) fn accept(&mut self, io: &Io) -> bool {
        let next = io.offset == self.offset && io.total == self.total && io.fragment_offset == self.received;
        if next {
            self.received += io.fragment_len;
        }
        next
    }

    /// Whether the last fragment has been accepted.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.total
    }

    /// The work on a fragment that was accepted.
    pub(super) fn fragment(&self, io: Io, data: Vec<u8>) -> Fragment {
        Fragment { progress: Arc::clone(&self.progress), io, data }
    }
}

/// The work on one fragment of a write.
pub(super) struct Fragment {
    progress: Arc<Progress>,
    io: Io,
    data: Vec<u8>,
}

impl Fragment {
    /// Writes the fragment, and sends the reply when it was the last to be written.
    pub(super) async fn run(self) -> io::Result<()> {
        let Self { progress, io, data } = self;
        let file = Arc::clone(&progress.disk.file);
        let at = io.offset + u64::from(io.fragment_offset);
        let written = blocking(move || {
            let written = match io.compression {
                Compression::None => file.write_at(at, &data),
                packed => packed
                    .decompress(&data, io.fragment_len as usize)
                    .map_err(io::Error::other)
                    .and_then(|data| file.write_at(at, &data)),
            };
            (written, data)
        });
        let (written, data) = written.await?;
        progress.replies.buffers().give(data);
        if let Err(error) = written {
            if !progress.failed.swap(true, Ordering::SeqCst) {
                progress.replies.error(progress.op_id, CODE_INVALID, error.to_string()).await?;
            }
            return Ok(());
        }
        let counters = &progress.replies.shared().counters;
        counters.count(&progress.disk.path, |traffic| traffic.written += u64::from(io.fragment_len));
        let before = progress.written.fetch_add(io.fragment_len, Ordering::SeqCst);
        if before + io.fragment_len < io.total {
            return Ok(());
        }
        let reply = Io {
            handle: 0,
            direction: Direction::Write,
            compression: Compression::None,
            offset: io.offset,
            total: io.total,
            fragment_offset: 0,
            fragment_len: io.total,
            wire_len: io.total,
        };
        progress.replies.send(Kind::Io, progress.op_id, &reply.encode(), Vec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_covers_the_request_once() {
        for order in [FragmentOrder::InOrder, FragmentOrder::Reversed, FragmentOrder::Shuffled] {
            for seed in 0..10 {
                let mut parts = fragments(10_240 + 512, 1024, order, seed);
                parts.sort_unstable();
                let mut next = 0;
                for (offset, len) in parts {
                    assert_eq!(offset, next);
                    next += len;
                }
                assert_eq!(next, 10_240 + 512);
            }
        }
        let shuffled = fragments(8192, 1024, FragmentOrder::Shuffled, 3);
        assert_ne!(shuffled, fragments(8192, 1024, FragmentOrder::InOrder, 3));
    }
}
