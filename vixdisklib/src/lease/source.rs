//! Disks read through a lease.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use vmdk::{Descriptor, stream::StreamDecoder};
use vsphere_vim::{
    MoRef, Vim,
    lease::{DeviceStream, ExportLease, ExportReport, LeaseDevice, LeaseOptions},
    mo,
};

use super::Piece;
use crate::error::{Error, Result};

/// The disks of a machine or a snapshot, each as pieces in the order of the disk.
///
/// The server hears of the progress for as long as this lives. Dropping it gives the lease up.
#[doc(alias = "HttpNfcLease")]
pub struct LeaseSource {
    lease: ExportLease,
    /// Of every disk that was begun, whether it came to its end.
    begun: Arc<Mutex<BTreeMap<String, bool>>>,
}

/// One disk of a [`LeaseSource`].
///
/// Bounded memory: what is not taken is not read from the network.
pub struct LeaseDisk {
    key: String,
    stream: DeviceStream,
    decoder: StreamDecoder,
    /// Up to here the disk was told.
    at: u64,
    /// Decoded and not taken; at most a gap and the grain behind it.
    waiting: VecDeque<Piece>,
    phase: Phase,
    begun: Arc<Mutex<BTreeMap<String, bool>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// The stream is complete, the rest of the disk is zeros.
    Tail,
    Over,
    /// Something went wrong: what comes now is not told, or an end of the stream would look like the disk's.
    Broken,
}

impl LeaseSource {
    /// Leases the disks of a machine that is off.
    ///
    /// # Errors
    /// [`Error::Server`] when the server refuses: `InvalidPowerState`, a lease that exists, a missing right.
    ///
    /// # Privileges
    /// `VApp.Export`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease up.
    #[doc(alias = "ExportVm")]
    pub async fn of_vm(vim: &Vim, vm: &MoRef<mo::VirtualMachine>, options: LeaseOptions) -> Result<Self> {
        let lease = vim.export_vm(vm, options).await;
        Ok(Self::new(lease.map_err(failed("the export", &vm.to_string()))?))
    }

    /// Leases the disks of a snapshot; the machine may run.
    ///
    /// # Errors
    /// As [`of_vm`](Self::of_vm), but for the power state.
    ///
    /// # Privileges
    /// `VApp.Export`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease up.
    #[doc(alias = "ExportSnapshot")]
    pub async fn of_snapshot(
        vim: &Vim,
        snapshot: &MoRef<mo::VirtualMachineSnapshot>,
        options: LeaseOptions,
    ) -> Result<Self> {
        let lease = vim.export_snapshot(snapshot, options).await;
        Ok(Self::new(lease.map_err(failed("the export", &snapshot.to_string()))?))
    }

    fn new(lease: ExportLease) -> Self {
        Self { lease, begun: Arc::default() }
    }

    /// The disks that can be read.
    pub fn disks(&self) -> impl Iterator<Item = &LeaseDevice> {
        self.lease.devices().iter().filter(|device| device.is_disk)
    }

    /// Begins to read a disk from its beginning; several may be read at once.
    ///
    /// # Errors
    /// [`Error::Server`] when the host does not serve it, and when the lease is lost; [`Error::File`] when it sends no
    /// disk.
    ///
    /// # Cancel safety
    /// Cancel safe: a disk may be begun again.
    pub async fn read(&self, device: &LeaseDevice) -> Result<LeaseDisk> {
        self.begun().insert(device.key.clone(), false);
        let stream = self.lease.download(device).await.map_err(failed("the download", &device.key))?;
        let mut disk = LeaseDisk {
            decoder: StreamDecoder::new(device.key.clone()),
            key: device.key.clone(),
            stream,
            at: 0,
            waiting: VecDeque::new(),
            phase: Phase::Reading,
            begun: Arc::clone(&self.begun),
        };
        // Header and descriptor come first: whoever reads wants to know the size.
        while !disk.decoder.has_begun() {
            disk.fill().await?;
            disk.decoder.grain_is_ready().map_err(Error::file("decoding", &disk.key))?;
        }
        Ok(disk)
    }

    /// Ends the lease: what was read is compared with the server's manifest, where it has one.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when a disk was begun and not read to its end, [`Error::Server`] when a disk is not what
    /// the server says that it sent, and when the lease is lost. After an error the lease is given up, and nothing that
    /// was read is to be trusted.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease up, if it was not completed.
    pub async fn complete(self) -> Result<ExportReport> {
        let unfinished = self.begun().iter().find(|(_, finished)| !**finished).map(|(key, _)| key.clone());
        if let Some(disk) = unfinished {
            self.lease.abort().await;
            return Err(Error::Unfinished { operation: "reading", disk });
        }
        let entity = self.lease.entity().to_string();
        self.lease.complete().await.map_err(failed("the end of the export", &entity))
    }

    /// Gives the lease up, and waits until the server knows.
    ///
    /// # Cancel safety
    /// A dropped future may leave the lease to time out.
    pub async fn abort(self) {
        self.lease.abort().await;
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, bool>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseDisk {
    /// Size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.decoder.capacity().unwrap_or(0)
    }

    /// The descriptor that the server put into the stream, if there is one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.decoder.descriptor()
    }

    /// The next piece; `None` when all of the disk was told and the stream ended as it should.
    ///
    /// # Errors
    /// [`Error::Server`] when the connection broke or the lease is lost, [`Error::File`] when the stream is damaged or
    /// ends too early. The disk must then be read again from its beginning; until then this gives
    /// [`Error::Unfinished`].
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        let piece = self.step().await;
        if piece.is_err() {
            self.phase = Phase::Broken;
        }
        piece
    }

    async fn step(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.waiting.pop_front() {
                self.at = piece.range().end;
                return Ok(Some(piece));
            }
            match self.phase {
                Phase::Over => return Ok(None),
                Phase::Broken => return Err(Error::Unfinished { operation: "reading", disk: self.key.clone() }),
                Phase::Tail => self.end(),
                Phase::Reading => {
                    if !self.take_grain()? {
                        self.fill().await?;
                    }
                }
            }
        }
    }

    /// Queues a grain, and the zeros before it; false when none is there yet.
    fn take_grain(&mut self) -> Result<bool> {
        let Some(grain) = self.decoder.next_grain().map_err(Error::file("decoding", &self.key))? else {
            return Ok(false);
        };
        if grain.offset > self.at {
            self.waiting.push_back(Piece::Zeros(self.at..grain.offset));
        }
        if !grain.data.is_empty() {
            self.waiting.push_back(Piece::Data { offset: grain.offset, bytes: Bytes::copy_from_slice(grain.data) });
        }
        Ok(true)
    }

    /// Reads on. The stream is read to its very end, behind the disk's end marker too: only then is it accounted for.
    async fn fill(&mut self) -> Result<()> {
        match self.stream.try_next().await.map_err(failed("the download", &self.key))? {
            Some(bytes) if self.decoder.has_ended() => {
                tracing::debug!(disk = self.key, bytes = bytes.len(), "behind the end of the disk");
            }
            Some(bytes) => self.decoder.feed(&bytes),
            None => {
                self.decoder.finish().map_err(Error::file("decoding", &self.key))?;
                self.phase = Phase::Tail;
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        if self.at < self.capacity() {
            self.waiting.push_back(Piece::Zeros(self.at..self.capacity()));
        }
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key.clone(), true);
    }
}

/// An error of the server about a lease or one of its disks.
pub(super) fn failed(operation: &'static str, of: &str) -> impl FnOnce(vsphere_vim::Error) -> Error + use<> {
    let of = of.to_owned();
    move |source| Error::Server { operation, of, source: Box::new(source) }
}

impl fmt::Debug for LeaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseSource").field("entity", self.lease.entity()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LeaseDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseDisk").field("key", &self.key).field("at", &self.at).finish_non_exhaustive()
    }
}
