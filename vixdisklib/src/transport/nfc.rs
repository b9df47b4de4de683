//! `nbd` and `nbdssl`: NFC over port 902, with tickets from the server that the VM belongs to.

mod tickets;

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::{Bytes, BytesMut};
use vsphere_nfc::{Channel, Mode, NfcDisk, NfcOptions, Phase};

pub use self::tickets::{DatastoreTickets, VmTickets};
use super::{BoxFuture, DiskHandle, Transport, zeros::write_zeros};
use crate::{
    allocation::Allocation,
    clone::CloneJob,
    create::CreateSpec,
    error::{Error, Result},
    governor::{Governor, Place, Turn},
    info::{DiskInfo, Geometry, key},
    machine::Machine,
    managed::{self, ManagedPath},
    mode::TransportMode,
    open::{Access, OpenOptions},
    progress::Progress,
};

/// Opens disks of one virtual machine.
pub(crate) struct NfcTransport {
    machine: Machine,
    options: NfcOptions,
    governor: Option<Governor>,
}

impl NfcTransport {
    pub(crate) fn new(machine: Machine, options: NfcOptions, governor: Option<Governor>) -> Self {
        Self { machine, options, governor }
    }

    fn check_path(&self, path: &str) -> Result<()> {
        if path.starts_with('[') {
            return Ok(());
        }
        let expected = "it takes datastore paths, as in `[ds1] web/web.vmdk`";
        Err(Error::WrongPath { mode: self.mode(), path: path.to_owned(), expected })
    }

    async fn managed(&self, path: &str) -> Result<ManagedPath> {
        self.check_path(path)?;
        ManagedPath::locate(&self.machine.vim, path).await
    }

    async fn open_disk(&self, path: &str, access: Access, options: &OpenOptions) -> Result<NfcHandle> {
        self.check_path(path)?;
        if options.unbuffered {
            tracing::info!(path, mode = %self.mode(), "nothing is buffered here: `unbuffered` changes nothing");
        }
        let found = self.machine.find(path).await?;
        let tickets = VmTickets::new(&self.machine, &found, access);
        let mode = if access.is_writing() { Mode::ReadWrite } else { Mode::ReadOnly };
        let mut nfc = self.options.clone();
        nfc.single_link = options.single_link;
        nfc.compression = options.compression.unwrap_or(nfc.compression);
        let place = self.machine.place(self.governor.as_ref(), nfc.buffers.budget()).await?;
        let disk = NfcDisk::open(Arc::new(tickets), path, mode, nfc).await;
        let disk = disk.map_err(Error::nfc("opening", path))?;
        let (no_allocation, spare) = (OnceLock::new(), Mutex::new(None));
        let is_part = options.single_link && !found.parents.is_empty();
        Ok(NfcHandle { disk, parents: found.parents, is_part, transport: self.mode(), no_allocation, spare, place })
    }
}

impl Transport for NfcTransport {
    fn mode(&self) -> TransportMode {
        match self.options.channel {
            Channel::Clear => TransportMode::Nbd,
            _ => TransportMode::NbdSsl,
        }
    }

    fn open<'a>(
        &'a self,
        path: &'a str,
        access: Access,
        options: &'a OpenOptions,
    ) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>> {
        Box::pin(async move { Ok(Box::new(self.open_disk(path, access, options).await?) as Box<dyn DiskHandle>) })
    }

    fn create<'a>(&'a self, path: &'a str, spec: &'a CreateSpec) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.managed(path).await?.create(spec).await })
    }

    fn unlink<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.managed(path).await?.unlink().await })
    }

    fn grow<'a>(
        &'a self,
        path: &'a str,
        capacity: u64,
        _update_geometry: bool,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.managed(path).await?.grow(capacity, progress).await })
    }

    fn clone_from<'a>(&'a self, path: &'a str, job: &'a CloneJob) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let way = managed::Way { mode: self.mode(), options: &self.options };
            managed::clone_to(self.managed(path).await?, job, &way).await
        })
    }
}

struct NfcHandle {
    disk: NfcDisk,
    /// The files below it, as the server lists them.
    parents: Vec<String>,
    /// Opened without them.
    is_part: bool,
    transport: TransportMode,
    /// Why allocation is not asked for (any more). A refusal costs a connection, so one is enough.
    no_allocation: OnceLock<String>,
    /// The buffer of the last read into a caller's memory: fresh memory costs more than the copy out of it.
    spare: Mutex<Option<BytesMut>>,
    /// Kept until the disk is closed.
    place: Option<Place>,
}

impl NfcHandle {
    fn failed(&self, operation: &'static str) -> impl FnOnce(vsphere_nfc::Error) -> Error + use<> {
        Error::nfc(operation, self.disk.path())
    }

    /// Waits until bytes may travel, where there is a governor.
    async fn turn(&self, bytes: u64) -> Option<Turn> {
        Some(self.place.as_ref()?.turn(bytes).await)
    }

    fn spare(&self) -> MutexGuard<'_, Option<BytesMut>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn allocation(&self, range: Range<u64>, chunk: u64) -> Result<Allocation> {
        if self.disk.mode() == Mode::ReadWrite {
            // A refusal would end the connection, and one for writing is not made anew; answers on it may be stale.
            return Ok(Allocation::assumed(range, "allocation is not asked for on a disk that is open for writing"));
        }
        let mut retried = false;
        loop {
            if let Some(reason) = self.no_allocation.get() {
                return Ok(Allocation::assumed(range, reason));
            }
            match self.disk.query_allocated(range.clone(), chunk).await {
                Ok(areas) => return Ok(Allocation::known(areas).of_single_link(self.is_part)),
                // A passing failure of the network must not turn the rest of a backup into a full read.
                Err(error) if is_silence(&error) && !retried => retried = true,
                Err(error) if is_refusal(&error) || is_silence(&error) => {
                    tracing::warn!(path = self.disk.path(), %error, "allocation is unknown; everything counts as allocated");
                    let _ = self.no_allocation.set(error.to_string());
                }
                Err(error) => return Err(self.failed("asking for the allocation of")(error)),
            }
        }
    }

    async fn description(&self) -> Result<DiskInfo> {
        let geometry = self.disk.geometry();
        let mut bios = [None, None, None];
        for (value, key) in bios.iter_mut().zip(key::BIOS) {
            *value = self.look_up(key).await?;
        }
        Ok(DiskInfo {
            capacity: self.disk.capacity(),
            logical_sector_size: self.disk.sector_size(),
            physical_sector_size: self.disk.sector_size(),
            geometry: Geometry {
                cylinders: geometry.cylinders.into(),
                heads: geometry.heads,
                sectors: geometry.sectors,
            },
            bios_geometry: Geometry::from_texts(bios),
            adapter_type: self.look_up(key::ADAPTER_TYPE).await?,
            uuid: self.look_up(key::UUID).await?,
            links: Some(if self.is_part { 1 } else { 1 + self.parents.len() }),
            parent_hint: self.parents.first().cloned(),
        })
    }

    async fn look_up(&self, key: &str) -> Result<Option<String>> {
        match self.disk.metadata(key).await {
            // Hosts before ESXi 6.7 are not known to tell; what cannot be read is as good as missing.
            Err(vsphere_nfc::Error::NotOffered { .. }) => Ok(None),
            value => value.map_err(self.failed("reading metadata of")),
        }
    }
}

impl DiskHandle for NfcHandle {
    fn mode(&self) -> TransportMode {
        self.transport
    }

    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn alignment(&self) -> u32 {
        self.disk.sector_size()
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(self.description())
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let _turn = self.turn(len as u64).await;
            self.disk.read_at(offset, len).await.map_err(self.failed("reading"))
        })
    }

    fn read_with(&self, offset: u64, len: usize, memory: BytesMut) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let _turn = self.turn(len as u64).await;
            let read = self.disk.read_into(offset, len, memory).await.map_err(self.failed("reading"))?;
            Ok(read.freeze())
        })
    }

    fn read_into<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _turn = self.turn(buffer.len() as u64).await;
            let spare = self.spare().take().unwrap_or_default();
            let read = self.disk.read_into(offset, buffer.len(), spare).await.map_err(self.failed("reading"))?;
            buffer.copy_from_slice(&read);
            if read.capacity() <= MOST_SPARE {
                *self.spare() = Some(read);
            }
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _turn = self.turn(data.len() as u64).await;
            self.disk.write_at(offset, data).await.map_err(self.failed("writing"))
        })
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(write_zeros(self, range))
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(self.allocation(range, chunk))
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(self.look_up(key))
    }

    fn chain(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        let own = std::iter::once(self.disk.path().to_owned());
        Box::pin(std::future::ready(Ok(own.chain(self.parents.iter().cloned()).collect())))
    }

    fn metadata_keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        // The protocol looks up keys and lists none.
        Box::pin(async {
            let mut keys = Vec::new();
            for key in key::KNOWN {
                if self.look_up(key).await?.is_some() {
                    keys.push(key.to_owned());
                }
            }
            Ok(keys)
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        // Every write that returned was confirmed; the protocol has no request that makes it more durable.
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let failed = self.failed("closing");
            let Self { disk, place, .. } = *self;
            disk.close().await.map_err(failed)?;
            if let Some(place) = place {
                place.give_back();
            }
            Ok(())
        })
    }
}

/// The host said that it cannot tell.
fn is_refusal(error: &vsphere_nfc::Error) -> bool {
    matches!(
        error,
        vsphere_nfc::Error::Server { phase: Phase::QueryAllocated, .. }
            | vsphere_nfc::Error::Protocol { phase: Phase::QueryAllocated, .. }
            | vsphere_nfc::Error::NotOffered { phase: Phase::QueryAllocated, .. }
    )
}

/// The host said nothing, for whatever reason.
fn is_silence(error: &vsphere_nfc::Error) -> bool {
    matches!(
        error,
        vsphere_nfc::Error::Disconnected { phase: Phase::QueryAllocated, .. }
            | vsphere_nfc::Error::Timeout { phase: Phase::QueryAllocated, .. }
    )
}

/// The largest buffer that is kept for the next read: larger reads are long enough to pay for their own.
const MOST_SPARE: usize = 4 << 20;
