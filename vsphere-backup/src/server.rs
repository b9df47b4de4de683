//! Between the crates for servers and this one: errors, and remote disks as sources and targets.

use std::{fmt, ops::Range};

use bytes::{Bytes, BytesMut};
use vixdisklib::{Access, Connection, ConnectionOptions};
use vsphere_vim::{MoRef, Vim, mo};

use crate::{
    engine::{DiskSource, DiskTarget},
    error::{DiskError, Error, Result},
    repository::storage::BoxFuture,
};

/// Makes an error of this crate out of one of the server's client.
pub(crate) fn failed(operation: &'static str, vm: &str) -> impl FnOnce(vsphere_vim::Error) -> Error + use<> {
    let vm = vm.to_owned();
    move |error| match error {
        vsphere_vim::Error::Cancelled { .. } => Error::Cancelled,
        error => Error::Server { operation, vm, source: vim_error(error) },
    }
}

pub(crate) fn vim_error(error: vsphere_vim::Error) -> DiskError {
    let (retryable, hint) = (error.is_retryable(), error.hint());
    DiskError::new(error).retryable(retryable).with_hint(hint)
}

pub(crate) fn cbt_error(error: vsphere_cbt::Error) -> DiskError {
    let (retryable, hint) = (error.is_retryable(), error.hint());
    DiskError::new(error).retryable(retryable).with_hint(hint)
}

pub(crate) fn disk_error(error: vixdisklib::Error) -> DiskError {
    let (retryable, hint) = (error.is_retryable(), error.hint());
    DiskError::new(error).retryable(retryable).with_hint(hint)
}

/// Names the server for a journal: by its own identity, else by its address.
pub(crate) fn server_name(vim: &Vim) -> String {
    vim.server_uuid().map_or_else(|| vim.endpoint().to_string(), str::to_owned)
}

/// Opens the way to a machine's disks.
///
/// # Errors
/// [`Error::Server`].
pub(crate) async fn connect(
    vim: &Vim,
    vm: &MoRef<mo::VirtualMachine>,
    access: Access,
    transports: &str,
    options: ConnectionOptions,
) -> Result<Connection> {
    Connection::connect_with(vim, vm, access, transports, options).await.map_err(|error| Error::Server {
        operation: "connecting to the disks",
        vm: vm.value().to_owned(),
        source: disk_error(error),
    })
}

/// A disk of `vixdisklib`.
pub(crate) struct RemoteDisk(pub(crate) vixdisklib::Disk);

impl fmt::Debug for RemoteDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteDisk")
    }
}

impl DiskSource for RemoteDisk {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { self.0.read_at(offset, len).await.map_err(disk_error) })
    }

    fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move { self.0.read_with(offset, len, memory).await.map_err(disk_error) })
    }
}

impl DiskTarget for RemoteDisk {
    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { self.0.write_at(offset, data).await.map_err(disk_error) })
    }

    fn zero(&self, range: Range<u64>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { self.0.zero_range(range).await.map_err(disk_error) })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { self.0.flush().await.map_err(disk_error) })
    }
}
