//! Reads a sector of an idle session now and then: the asynchronous layer has no sign of life.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;

use super::connection::Connection;
use super::range_lock::{Access, RangeLock};
use crate::options::NfcOptions;

/// Keeps `connection` in use while it lives, if the options say so.
pub(crate) fn keep_alive(connection: &Arc<Connection>, ranges: &Arc<RangeLock>, options: &NfcOptions) {
    let Some(idle) = options.keep_alive else { return };
    // Sector sizes were checked: at most 64 KiB.
    let sector = connection.disk.sector_size.max(512);
    if connection.disk.capacity < u64::from(sector) {
        // An empty disk has nothing to read, and so nothing to lose.
        return;
    }
    let task = run(Arc::downgrade(connection), Arc::clone(ranges), idle, sector, options.timeouts.read);
    connection.adopt(tokio::spawn(task).abort_handle());
}

/// Looks twice in `idle` whether anything was replied to since the last look.
async fn run(connection: Weak<Connection>, ranges: Arc<RangeLock>, idle: Duration, sector: u32, limit: Duration) {
    let mut seen = None;
    loop {
        tokio::time::sleep(idle / 2).await;
        let Some(connection) = connection.upgrade() else { return };
        let progress = Some(connection.progress());
        if progress == seen && connection.is_idle() {
            // Waits for a write of this handle that overlaps, and holds up later ones.
            let waiting = ranges.acquire(0..u64::from(sector), Access::Read);
            let reading = async {
                let guard = Arc::new(connection.in_time(limit, waiting).await?);
                let request = connection.read(0, sector, BytesMut::new(), Some(guard), limit).await?;
                connection.wait(request, limit).await
            };
            if let Err(error) = reading.await {
                tracing::debug!(%error, "keeping an NFC session alive failed");
            }
        }
        seen = Some(connection.progress());
    }
}
