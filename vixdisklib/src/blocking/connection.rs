//! Where disks come from, for callers without async.

use tokio::runtime::Handle;

use super::{Disk, block_on};
use crate::error::Result;

/// A [`Connection`](crate::Connection) together with the runtime that its disks need.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: crate::Connection,
    runtime: Handle,
}

impl Connection {
    /// Makes a connection's calls blocking ones.
    pub fn new(connection: crate::Connection, runtime: &Handle) -> Self {
        Self { inner: connection, runtime: runtime.clone() }
    }

    /// Opens a disk.
    ///
    /// # Errors
    /// As [`Connection::open`](crate::Connection::open).
    pub fn open(&self, path: impl Into<String>) -> Result<Disk> {
        let disk = block_on(&self.runtime, self.inner.open(path))?;
        Ok(Disk::new(disk, &self.runtime))
    }

    /// The connection itself.
    pub fn asynchronous(&self) -> &crate::Connection {
        &self.inner
    }
}
