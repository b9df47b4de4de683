//! Disks written through a lease: a new machine.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinHandle;
use vmdk::stream::{AsyncSink, AsyncStreamWriter, StreamSpec};
use vsphere_vim::{
    MoRef, Vim,
    lease::{ImportLease, ImportRequest, LeaseDevice, LeaseOptions},
    mo,
    transport::stream::{Upload, UploadSender},
};

use super::{Piece, Pieces, source::failed};
use crate::{
    disk::Disk,
    error::{Error, Result},
};

/// A machine that is being made, and its disks to be filled from front to back.
///
/// Dropping it gives the lease up, and the server removes the machine.
pub struct LeaseTarget {
    lease: Arc<ImportLease>,
    /// Disks that are as they should be.
    filled: Arc<Mutex<BTreeSet<String>>>,
    /// Each writer has one more of it.
    writers: Arc<()>,
}

/// Fills one disk of a [`LeaseTarget`] with what it is given, packed on the way.
///
/// Dropping it before [`finish`](Self::finish) breaks the transfer off; the disk may be begun again.
#[must_use = "dropping it breaks the transfer off"]
pub struct LeaseWriter {
    key: String,
    writer: AsyncStreamWriter<Sink>,
    transfer: Transfer,
    filled: Arc<Mutex<BTreeSet<String>>>,
    _one_more: Arc<()>,
}

/// The task that sends a disk. It ends with this value.
struct Transfer(JoinHandle<vsphere_vim::Result<()>>);

struct Sink(UploadSender);

impl LeaseTarget {
    /// Has a machine made, and leases its disks.
    ///
    /// # Errors
    /// [`Error::Server`] when the server refuses the machine.
    ///
    /// # Privileges
    /// `VApp.Import`, and those of making the machine.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease up, and with it the machine.
    #[doc(alias = "ImportVApp")]
    pub async fn import(vim: &Vim, request: ImportRequest, options: LeaseOptions) -> Result<Self> {
        let lease = vim.import(request, options).await.map_err(failed("the import", "a machine"))?;
        Ok(Self { lease: Arc::new(lease), filled: Arc::default(), writers: Arc::default() })
    }

    /// The disks to be filled.
    pub fn disks(&self) -> impl Iterator<Item = &LeaseDevice> {
        self.lease.devices().iter().filter(|device| device.is_disk)
    }

    /// The machine that is being made.
    pub fn machine(&self) -> MoRef<mo::VirtualMachine> {
        self.lease.machine()
    }

    /// States how many bytes will be sent in all, for the progress that people see.
    pub fn expect(&self, bytes: u64) {
        self.lease.expect(bytes);
    }

    /// Begins to fill a disk. `spec` has its size, and may have a descriptor, an adapter, a level of compression.
    ///
    /// # Errors
    /// [`Error::File`] for a specification that makes no disk; [`Error::Server`] when the host takes nothing.
    ///
    /// # Cancel safety
    /// Dropping the future breaks the transfer off.
    pub async fn write(&self, device: &LeaseDevice, spec: &StreamSpec) -> Result<LeaseWriter> {
        lock(&self.filled).remove(&device.key);
        let (sender, upload) = Upload::channel(None, DEPTH);
        let (lease, sent) = (Arc::clone(&self.lease), device.clone());
        let transfer = Transfer(tokio::spawn(async move { lease.upload(&sent, upload).await }));
        match AsyncStreamWriter::new(Sink(sender), spec).await {
            Ok(writer) => Ok(LeaseWriter {
                key: device.key.clone(),
                writer,
                transfer,
                filled: Arc::clone(&self.filled),
                _one_more: Arc::clone(&self.writers),
            }),
            Err(error) => Err(transfer.why(&device.key, error).await),
        }
    }

    /// Fills a disk with all of another one, whatever its transport: what is allocated travels, the rest is left out.
    ///
    /// # Errors
    /// Those of reading `source`, and of [`write`](Self::write) and [`LeaseWriter`].
    ///
    /// # Cancel safety
    /// Dropping the future breaks the transfer off; the disk may be begun again.
    pub async fn write_disk(&self, device: &LeaseDevice, source: &Disk) -> Result<()> {
        let mut spec = StreamSpec::new(source.capacity());
        if let Some(adapter) = source.info().await?.adapter_type {
            spec = spec.adapter_type(vmdk::AdapterType::from_name(&adapter));
        }
        let mut writer = self.write(device, &spec).await?;
        let mut pieces = Pieces::of(source);
        while let Some(piece) = pieces.next().await? {
            writer.put(&piece).await?;
        }
        writer.finish().await
    }

    /// Says that a disk stays as the server made it: all zeros.
    pub fn leave_empty(&self, device: &LeaseDevice) {
        lock(&self.filled).insert(device.key.clone());
    }

    /// Ends the lease: the machine is whole. Returns it.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when a disk was not filled to its end nor [left empty](Self::leave_empty);
    /// [`Error::Server`] when the lease is lost. After an error the lease is given up, and with it the machine.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease up, if it was not completed.
    #[doc(alias = "HttpNfcLeaseComplete")]
    pub async fn complete(self) -> Result<MoRef<mo::VirtualMachine>> {
        let unfinished = self.disks().find(|device| !lock(&self.filled).contains(&device.key));
        let unfinished = unfinished.map(|device| device.key.clone());
        let machine = self.machine().to_string();
        // A writer that is still there has not filled its disk.
        let unfilled = |disk: Option<String>| Error::Unfinished {
            operation: "writing",
            disk: disk.unwrap_or_else(|| machine.clone()),
        };
        match self.alone().await {
            Some(lease) if unfinished.is_none() => {
                lease.complete().await.map_err(failed("the end of the import", &machine))
            }
            Some(lease) => {
                lease.abort().await;
                Err(unfilled(unfinished))
            }
            None => Err(unfilled(unfinished)),
        }
    }

    /// Gives the lease up, and with it the machine, and waits until the server knows.
    ///
    /// # Cancel safety
    /// A dropped future may leave the lease to time out.
    pub async fn abort(self) {
        // Writers that still live give it up when they go.
        if let Some(lease) = self.alone().await {
            lease.abort().await;
        }
    }

    /// The lease, unless there are writers. The tasks of those that were dropped may have it for another moment.
    async fn alone(self) -> Option<ImportLease> {
        let Self { mut lease, writers, .. } = self;
        if Arc::strong_count(&writers) > 1 {
            return None;
        }
        loop {
            lease = match Arc::try_unwrap(lease) {
                Ok(lease) => return Some(lease),
                Err(shared) => shared,
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl LeaseWriter {
    /// Writes `data` at `offset`; offsets must not go back. What is left out, and grains of nothing but zeros, does not
    /// travel.
    ///
    /// # Errors
    /// [`Error::Server`] when the host refuses the data or the connection broke, [`Error::File`] for an offset that goes
    /// back or leaves the disk. The disk may be begun again.
    ///
    /// # Cancel safety
    /// None: a dropped future breaks the stream, and what follows says so.
    pub async fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        match self.writer.write_at(offset, data).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.transfer.why_broken(&self.key, error).await),
        }
    }

    /// Writes a piece of a disk that is read from front to back.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// # Cancel safety
    /// None, as [`write_at`](Self::write_at).
    pub async fn put(&mut self, piece: &Piece) -> Result<()> {
        match piece {
            Piece::Data { offset, bytes } => self.write_at(*offset, bytes).await,
            Piece::Zeros(_) => Ok(()),
        }
    }

    /// Bytes sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.writer.bytes_written()
    }

    /// Ends the disk, and waits until the host has all of it.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    ///
    /// # Cancel safety
    /// Dropping the future breaks the transfer off.
    pub async fn finish(self) -> Result<()> {
        let Self { key, writer, mut transfer, filled, .. } = self;
        let told = match writer.finish().await {
            Ok(Sink(sender)) => sender.finish().await,
            Err(error) => return Err(transfer.why_broken(&key, error).await),
        };
        // A transfer that has ended by itself says why. Were it content all the same, the end was not among what it took.
        transfer.end(&key).await?;
        if told.is_err() {
            return Err(Error::CutOff { operation: "uploading", path: key });
        }
        lock(&filled).insert(key);
        Ok(())
    }
}

impl AsyncSink for Sink {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.send(bytes).await
    }
}

impl Transfer {
    /// What came of it.
    async fn end(&mut self, key: &str) -> Result<()> {
        match (&mut self.0).await {
            Ok(sent) => sent.map_err(failed("the upload", key)),
            Err(_) => Err(Error::CutOff { operation: "uploading", path: key.to_owned() }),
        }
    }

    /// Why nothing more is taken: the host's reason, where it has one, is the better one.
    async fn why_broken(&mut self, key: &str, error: vmdk::Error) -> Error {
        let is_broken = matches!(&error, vmdk::Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe);
        match is_broken {
            true => self.end(key).await.err().unwrap_or_else(|| Error::file("packing", key)(error)),
            false => Error::file("packing", key)(error),
        }
    }

    async fn why(mut self, key: &str, error: vmdk::Error) -> Error {
        self.why_broken(key, error).await
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock(filled: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    filled.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for LeaseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTarget").field("machine", &self.machine()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LeaseWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseWriter").field("key", &self.key).field("sent", &self.bytes_sent()).finish_non_exhaustive()
    }
}

/// Pieces of the stream on their way, of half a MiB at most.
const DEPTH: usize = 4;
