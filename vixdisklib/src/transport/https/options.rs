//! Settings of the transport `https`.

use std::time::Duration;

use vmdk::PathPolicy;
use vsphere_vim::{RetryPolicy, datastore::FileRoute};

/// Settings of the transport `https`. The defaults are meant to be right.
///
/// `gap` and `longest` trade requests for bytes: with a wide gap one request brings bytes that nobody asked for, with a
/// narrow one each piece costs a round trip.
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpsOptions {
    pub(super) connections: usize,
    pub(super) per_file: usize,
    pub(super) read_ahead: u64,
    pub(super) gap: u64,
    pub(super) longest: u64,
    pub(super) request_timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) check_modified: bool,
    pub(super) paths: PathPolicy,
    pub(super) cache_bytes: usize,
    pub(super) route: FileRoute,
}

impl Default for HttpsOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            per_file: 8,
            read_ahead: 16 << 20,
            gap: 16 << 10,
            longest: 2 << 20,
            request_timeout: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            check_modified: true,
            paths: PathPolicy::Any,
            cache_bytes: 8 << 20,
            route: FileRoute::default(),
        }
    }
}

impl HttpsOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many ranges of one disk travel at the same time, each over a connection of its own. 8.
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.max(1), ..self }
    }

    /// How many of them may be of one file of the chain. 8.
    pub fn connections_per_file(self, connections: usize) -> Self {
        Self { per_file: connections.max(1), ..self }
    }

    /// How many bytes are read in advance for whoever reads the disk from front to back. 16 MiB; 0 for none. Memory of
    /// as many bytes is held for it while the disk is open.
    pub fn read_ahead(self, bytes: u64) -> Self {
        Self { read_ahead: bytes, ..self }
    }

    /// Ranges of a file with at most so many bytes between them are asked for as one. 16 KiB.
    pub fn gap(self, bytes: u64) -> Self {
        Self { gap: bytes, ..self }
    }

    /// The longest range that is asked for at once; longer reads are cut, and their parts travel at the same time.
    /// 2 MiB.
    pub fn longest(self, bytes: u64) -> Self {
        Self { longest: bytes.max(vmdk::SECTOR), ..self }
    }

    /// How long one range may take with all its tries. 5 minutes. The limits of a single try are the client's
    /// (`VimBuilder::stream_options`).
    pub fn request_timeout(self, limit: Duration) -> Self {
        Self { request_timeout: limit, ..self }
    }

    /// What is done when a range breaks off: it goes on where it was, as often as this says without a new byte. A
    /// session that has ended is opened again besides.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        Self { retry: policy, ..self }
    }

    /// Whether a file whose `Last-Modified` changes while the disk is open is an error. It is: bytes of two points in
    /// time would be mixed. A file that changes its size is an error in any case.
    pub fn check_modified(self, check: bool) -> Self {
        Self { check_modified: check, ..self }
    }

    /// Which files a descriptor may name. Any of the session's datastores unless set: the parents of linked clones lie
    /// in other folders. [`PathPolicy::SameDirectory`] is for descriptors that others than the host may have written.
    pub fn paths(self, policy: PathPolicy) -> Self {
        Self { paths: policy, ..self }
    }

    /// Bounds the tables of sparse files in memory, in bytes. 8 MiB.
    pub fn cache_bytes(self, bytes: usize) -> Self {
        Self { cache_bytes: bytes, ..self }
    }

    /// Which way bytes take: through the connected server, or straight to a host.
    pub fn route(self, route: FileRoute) -> Self {
        Self { route, ..self }
    }
}
