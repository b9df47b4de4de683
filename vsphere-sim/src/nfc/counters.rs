//! What went over the connections, for tests that assert it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::holding::Gauge;

/// Bytes of one file that were asked for and delivered, before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileTraffic {
    /// Bytes read by clients.
    pub read: u64,
    /// Bytes written by clients.
    pub written: u64,
    /// Times the file was opened.
    pub opens: u64,
}

/// The server's counters.
#[derive(Debug, Default)]
pub struct NfcCounters {
    open: AtomicU64,
    accepted: AtomicU64,
    most_in_flight: AtomicU64,
    refused: AtomicU64,
    pub(super) handed_over: Gauge,
    pub(super) via_vcenter: Gauge,
    pub(super) memory: Gauge,
    pub(super) open_files: Gauge,
    files: Mutex<BTreeMap<String, FileTraffic>>,
}

impl NfcCounters {
    /// Connections that are open now.
    pub fn connections_open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    /// Connections that were ever accepted.
    pub fn connections_total(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections that the daemon has handed over and that are still open.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.held()
    }

    /// Bytes of NFC memory in use: the buffers of all sessions.
    pub fn memory_in_use(&self) -> u64 {
        self.memory.held()
    }

    /// Connections and sessions that were refused because the host had no place or no memory for them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Files that are open now.
    pub fn files_open(&self) -> u64 {
        self.open_files.held()
    }

    /// The most requests of one connection that were worked on at the same time.
    pub fn most_in_flight(&self) -> u64 {
        self.most_in_flight.load(Ordering::SeqCst)
    }

    /// The traffic of the file `path`.
    pub fn file(&self, path: &str) -> FileTraffic {
        self.lock().get(path).copied().unwrap_or_default()
    }

    /// The traffic of every file that was ever opened, by path.
    pub fn files(&self) -> BTreeMap<String, FileTraffic> {
        self.lock().clone()
    }

    /// Forgets the traffic of all files.
    pub fn reset(&self) {
        self.lock().clear();
    }

    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn in_flight(&self, requests: u64) {
        self.most_in_flight.fetch_max(requests, Ordering::SeqCst);
    }

    pub(super) fn count(&self, path: &str, count: impl FnOnce(&mut FileTraffic)) {
        let mut files = self.lock();
        match files.get_mut(path) {
            Some(traffic) => count(traffic),
            None => count(files.entry(path.to_owned()).or_default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, FileTraffic>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
