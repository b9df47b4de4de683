//! `san`, `hotadd` and the rest, by VMware's library.
//!
//! Each disk has a connection of its own: nothing outlives a session that ended, and disks for reading and for writing
//! do not share one.

use std::{ops::Range, path::Path, sync::OnceLock};

use bytes::Bytes;
use vixdisklib_sys::{
    MAX_CHUNKS, OpenFlags, SECTOR,
    load::{ConnectSpec, Connection, CreateSpec as RawSpec, Disk, Error as LibraryError},
};
use vsphere_nfc::CompressionWish;

use super::{BoxFuture, DiskHandle, FileTransport, Place, Transport, refuse, zeros::write_zeros};
use crate::{
    Progress,
    allocation::{Allocation, Chunks},
    clone::CloneJob,
    create::{CreateSpec, DiskKind},
    error::{Error, Result},
    governor::{Governor, Place as Turns, Turn},
    info::{DiskInfo, Geometry},
    machine::Machine,
    mode::TransportMode,
    open::{Access, OpenOptions},
    options::ConnectionOptions,
    upkeep::CheckOutcome,
    vddk::{Choice, Library, Server},
};

/// Opens disks by VMware's library.
pub(crate) struct VddkTransport {
    mode: TransportMode,
    library: Library,
    place: Place,
    server: Option<Server>,
    /// How our own reader takes files of this machine.
    files: vmdk::OpenOptions,
    governor: Option<Governor>,
}

impl VddkTransport {
    /// The transport for a place, or why there is none.
    pub(crate) fn new(
        mode: TransportMode,
        choice: &Choice,
        options: &ConnectionOptions,
        place: &Place,
    ) -> Result<Self, &'static str> {
        let server = options.vddk_server.clone();
        match (place, mode, &server) {
            (Place::Local, TransportMode::File, _) | (Place::Machine(_), TransportMode::File, _) => {}
            (Place::Local, ..) => return Err("it needs a connection to a server"),
            (Place::Machine(_), _, Some(_)) => {}
            (Place::Machine(_), _, None) => {
                return Err("VMware's library has to be told the server: ConnectionOptions::vddk_server");
            }
        }
        let (library, place, files) = (choice.library.clone(), place.clone(), options.file.clone());
        Ok(Self { mode, library, place, server, files, governor: options.governor.clone() })
    }

    async fn connect(&self, path: &str, access: Access) -> Result<Connection> {
        let spec = match (&self.place, &self.server, self.mode) {
            (_, _, TransportMode::File) => Some(ConnectSpec::local()),
            (Place::Machine(machine), Some(server), _) => server.spec(Some(machine)),
            _ => None,
        };
        let reason = "the session has no cookie that could be shared; give the library a login of its own";
        let spec = spec.ok_or(Error::Unavailable { mode: self.mode, reason })?;
        let spec = spec.read_only(!access.is_writing()).transports(self.mode.name());
        self.library.connect(spec).await.map_err(Error::vddk("connecting for", path))
    }

    /// A connection to this machine's files, for what is done by path; elsewhere that is the server's.
    async fn local(&self, operation: &'static str, path: &str) -> Result<Connection> {
        match self.mode {
            TransportMode::File => self.connect(path, Access::ReadWrite).await,
            mode => refuse(operation, mode, super::ON_FILES).await,
        }
    }

    /// Our own transport for this machine's files.
    fn ours(&self, operation: &'static str) -> Result<FileTransport> {
        match self.mode {
            TransportMode::File => Ok(FileTransport::new(self.files.clone(), None)),
            mode => Err(Error::NotOffered { operation, mode, hint: super::ON_FILES }),
        }
    }

    async fn open_disk(&self, path: &str, access: Access, options: &OpenOptions) -> Result<VddkHandle> {
        let turns = self.turns().await?;
        let connection = self.connect(path, access).await?;
        let disk = connection.open(path, flags(access, options)).await.map_err(Error::vddk("opening", path))?;
        let reached = disk.transport_mode().parse().unwrap_or(self.mode);
        let origin = match (&self.place, self.mode) {
            (Place::Machine(machine), mode) if mode != TransportMode::File => Origin::Machine(machine.clone()),
            _ => Origin::Files(self.files.clone()),
        };
        let (single_link, no_allocation) = (options.single_link, OnceLock::new());
        Ok(VddkHandle { disk, mode: reached, access, single_link, origin, no_allocation, turns })
    }

    /// Waits for a place on the host, where the library connects to its NFC service; else there are only turns to take.
    async fn turns(&self) -> Result<Option<Turns>> {
        let governor = self.governor.as_ref();
        match (&self.place, self.mode) {
            (Place::Machine(machine), TransportMode::Nbd | TransportMode::NbdSsl) => {
                machine.place(governor, NFC_BUFFERS).await
            }
            (Place::Machine(machine), TransportMode::San | TransportMode::HotAdd) => machine.share(governor).await,
            _ => Ok(governor.map(|governor| governor.share(super::file::THIS_MACHINE.into()))),
        }
    }
}

impl Transport for VddkTransport {
    fn mode(&self) -> TransportMode {
        self.mode
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
        Box::pin(async move {
            let connection = self.local("create a disk", path).await?;
            connection.create(path, raw_spec(spec), None).await.map_err(Error::vddk("creating", path))
        })
    }

    fn unlink<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let connection = self.local("remove a disk", path).await?;
            connection.unlink(path).await.map_err(Error::vddk("removing", path))
        })
    }

    fn grow<'a>(
        &'a self,
        path: &'a str,
        capacity: u64,
        update_geometry: bool,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let connection = self.local("grow a disk", path).await?;
            let sectors = capacity.div_ceil(SECTOR);
            let grown = connection.grow(path, sectors, update_geometry, progress).await;
            grown.map_err(Error::vddk("growing", path))
        })
    }

    /// By our own transport: the library's copy would open the source once more, and its check tells nothing but an
    /// error code.
    fn clone_from<'a>(&'a self, path: &'a str, job: &'a CloneJob) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.ours("make a disk of another one's data")?.clone_from(path, job).await })
    }

    fn check_repair<'a>(&'a self, path: &'a str, repair: bool) -> BoxFuture<'a, Result<CheckOutcome>> {
        Box::pin(async move { self.ours("check a disk")?.check_repair(path, repair).await })
    }
}

struct VddkHandle {
    disk: Disk,
    /// How the library reached it.
    mode: TransportMode,
    access: Access,
    single_link: bool,
    origin: Origin,
    /// Why allocation is not asked for (any more).
    no_allocation: OnceLock<String>,
    /// Kept until the disk is closed.
    turns: Option<Turns>,
}

/// Who knows the files of a disk: the library names the parent alone.
enum Origin {
    Machine(Machine),
    Files(vmdk::OpenOptions),
}

impl VddkHandle {
    fn failed(&self, operation: &'static str) -> impl FnOnce(LibraryError) -> Error + use<> {
        Error::vddk(operation, self.disk.path())
    }

    /// Waits until bytes may travel, where there is a governor.
    async fn turn(&self, bytes: u64) -> Option<Turn> {
        Some(self.turns.as_ref()?.turn(bytes).await)
    }

    fn description(&self) -> DiskInfo {
        let info = self.disk.info();
        let (logical, physical) = info.sector_sizes.unwrap_or((SECTOR_BYTES, SECTOR_BYTES));
        let geometry = |of: vixdisklib_sys::Geometry| Geometry {
            cylinders: of.cylinders.into(),
            heads: of.heads,
            sectors: of.sectors,
        };
        DiskInfo {
            capacity: self.capacity(),
            logical_sector_size: logical,
            physical_sector_size: physical,
            geometry: geometry(info.physical_geometry),
            // Zeros stand for "not known".
            bios_geometry: Some(geometry(info.bios_geometry)).filter(|bios| bios.cylinders > 0),
            adapter_type: adapter_name(info.adapter_type).map(str::to_owned),
            uuid: info.uuid.clone().filter(|uuid| !uuid.is_empty()),
            links: usize::try_from(info.links).ok().filter(|links| *links > 0),
            parent_hint: info.parent_hint.clone().filter(|hint| !hint.is_empty()),
        }
    }

    /// The disk and the files that it builds upon.
    async fn links(&self) -> Result<Vec<String>> {
        let path = self.disk.path();
        match &self.origin {
            Origin::Machine(machine) => {
                let parents = machine.find(path).await?.parents;
                Ok(std::iter::once(path.to_owned()).chain(parents).collect())
            }
            Origin::Files(files) => match links_of_file(path, files).await {
                Ok(links) => Ok(links),
                Err(error) => {
                    tracing::debug!(path, %error, "only the library can read this disk: what it builds upon is half known");
                    let hint = self.disk.info().parent_hint.as_deref().filter(|hint| !hint.is_empty());
                    let parent = hint.map(|hint| Path::new(path).with_file_name("").join(hint));
                    let parent = parent.map(|parent| parent.to_string_lossy().into_owned());
                    Ok(std::iter::once(path.to_owned()).chain(parent).collect())
                }
            },
        }
    }

    async fn allocation(&self, range: Range<u64>, chunk: u64) -> Result<Allocation> {
        if self.access.is_writing() {
            // The library answers from what was there when the disk was opened.
            return Ok(Allocation::assumed(range, "answers for a disk that is open for writing may be stale"));
        }
        if let Some(reason) = self.no_allocation.get() {
            return Ok(Allocation::assumed(range, reason));
        }
        match self.runs(&range, chunk).await {
            Ok(areas) => Ok(Allocation::known(areas)),
            Err(error) if is_refusal(&error) => {
                tracing::warn!(path = self.disk.path(), %error, "allocation is unknown; everything counts as allocated");
                let reason = self.no_allocation.get_or_init(|| error.to_string());
                Ok(Allocation::assumed(range, reason))
            }
            Err(error) => Err(self.failed("asking for the allocation of")(error)),
        }
    }

    /// Asks for whole chunks, as many at once as may be; what is left at the end of the disk counts as allocated.
    async fn runs(&self, range: &Range<u64>, chunk: u64) -> Result<Vec<Range<u64>>, LibraryError> {
        let whole_end = self.capacity() - self.capacity() % chunk;
        let last = range.end.checked_next_multiple_of(chunk).unwrap_or(u64::MAX).min(whole_end);
        let mut found = Vec::new();
        let mut at = range.start - range.start % chunk;
        while at < last {
            let len = (last - at).min(chunk.saturating_mul(MAX_CHUNKS));
            found.extend(self.disk.allocated(at / SECTOR, len / SECTOR, chunk / SECTOR).await?);
            at += len;
        }
        // The order is not documented, and a run out of order would be lost.
        found.sort_unstable_by_key(|run| run.start);
        let mut areas = Chunks::new(chunk, range.clone());
        for run in found {
            areas.push(&(run.start.saturating_mul(SECTOR)..run.end.saturating_mul(SECTOR)));
        }
        areas.push(&(whole_end.max(range.start)..range.end.max(whole_end)));
        Ok(areas.finish())
    }
}

impl DiskHandle for VddkHandle {
    fn mode(&self) -> TransportMode {
        self.mode
    }

    fn capacity(&self) -> u64 {
        self.disk.info().capacity.saturating_mul(SECTOR)
    }

    fn alignment(&self) -> u32 {
        self.disk.info().sector_sizes.map_or(SECTOR_BYTES, |(logical, _)| logical.max(SECTOR_BYTES))
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(std::future::ready(Ok(self.description())))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let _turn = self.turn(len as u64).await;
            let read = self.disk.read(offset / SECTOR, len as u64 / SECTOR).await;
            read.map(Bytes::from).map_err(self.failed("reading"))
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _turn = self.turn(data.len() as u64).await;
            self.disk.write(offset / SECTOR, data).await.map_err(self.failed("writing"))
        })
    }

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(write_zeros(self, range))
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(async move { Ok(self.allocation(range, chunk).await?.of_single_link(self.single_link)) })
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move { self.disk.metadata(key).await.map_err(self.failed("reading metadata of")) })
    }

    fn chain(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(self.links())
    }

    fn metadata_keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move { self.disk.metadata_keys().await.map_err(self.failed("listing the metadata of")) })
    }

    fn set_metadata<'a>(&'a self, key: &'a str, value: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.disk.set_metadata(key, value).await.map_err(self.failed("writing metadata of")) })
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.disk.flush().await.map_err(self.failed("flushing")) })
    }

    fn wait(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.disk.idle().await.map_err(self.failed("waiting for")) })
    }

    fn create_child<'a>(
        &'a self,
        path: &'a str,
        kind: DiskKind,
        progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let made = self.disk.create_child(path, disk_type(kind), progress).await;
            made.map_err(self.failed("creating a child of"))
        })
    }

    fn shrink(&self, progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.disk.shrink(progress).await.map_err(self.failed("shrinking")) })
    }

    fn defragment(&self, progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.disk.defragment(progress).await.map_err(self.failed("defragmenting")) })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let failed = self.failed("closing");
        let Self { disk, turns, .. } = *self;
        let closed = disk.close();
        Box::pin(async move {
            closed.await.map_err(failed)?;
            if let Some(turns) = turns {
                turns.give_back();
            }
            Ok(())
        })
    }
}

/// The files of a disk, as our own reader finds them.
async fn links_of_file(path: &str, files: &vmdk::OpenOptions) -> Result<Vec<String>> {
    let disk = FileTransport::new(files.clone(), None).open(path, Access::ReadOnly, &OpenOptions::new()).await?;
    let links = disk.chain().await;
    let closed = disk.close().await;
    links.and_then(|links| closed.map(|()| links))
}

/// True when the library said that it cannot tell; a lost connection is something else.
fn is_refusal(error: &LibraryError) -> bool {
    matches!(error, LibraryError::NotThere { .. }) || error.vix_code().is_some() && !error.is_retryable()
}

fn flags(access: Access, options: &OpenOptions) -> OpenFlags {
    let compression = match options.compression {
        Some(CompressionWish::Zlib) => OpenFlags::COMPRESSION_ZLIB,
        Some(CompressionWish::FastLz) => OpenFlags::COMPRESSION_FASTLZ,
        Some(CompressionWish::SkipZ) => OpenFlags::COMPRESSION_SKIPZ,
        // None, or one that the library has no flag for.
        _ => OpenFlags::NONE,
    };
    let set = |flag, on| if on { flag } else { OpenFlags::NONE };
    compression
        | set(OpenFlags::READ_ONLY, !access.is_writing())
        | set(OpenFlags::SINGLE_LINK, options.single_link)
        | set(OpenFlags::UNBUFFERED, options.unbuffered)
}

fn raw_spec(spec: &CreateSpec) -> RawSpec {
    use vixdisklib_sys::{AdapterType, HwVersion};
    let mut raw = RawSpec::new(spec.capacity.div_ceil(SECTOR), disk_type(spec.kind));
    raw.adapter_type = match &spec.adapter {
        Some(vmdk::AdapterType::Ide) => AdapterType::IDE,
        Some(vmdk::AdapterType::BusLogic) => AdapterType::SCSI_BUSLOGIC,
        _ => AdapterType::SCSI_LSILOGIC,
    };
    if let Some(version) = spec.hardware_version.and_then(|version| u16::try_from(version).ok()) {
        raw.hw_version = HwVersion(version);
    }
    raw
}

fn disk_type(kind: DiskKind) -> vixdisklib_sys::DiskType {
    use vixdisklib_sys::DiskType;
    match kind {
        DiskKind::MonolithicSparse => DiskType::MONOLITHIC_SPARSE,
        DiskKind::MonolithicFlat => DiskType::MONOLITHIC_FLAT,
        DiskKind::SplitSparse => DiskType::SPLIT_SPARSE,
        DiskKind::SplitFlat => DiskType::SPLIT_FLAT,
        DiskKind::VmfsFlat => DiskType::VMFS_FLAT,
        DiskKind::StreamOptimized => DiskType::STREAM_OPTIMIZED,
        DiskKind::VmfsThin => DiskType::VMFS_THIN,
        DiskKind::VmfsSparse => DiskType::VMFS_SPARSE,
    }
}

fn adapter_name(adapter: vixdisklib_sys::AdapterType) -> Option<&'static str> {
    use vixdisklib_sys::AdapterType;
    match adapter {
        AdapterType::IDE => Some("ide"),
        AdapterType::SCSI_BUSLOGIC => Some("buslogic"),
        AdapterType::SCSI_LSILOGIC => Some("lsilogic"),
        _ => None,
    }
}

const SECTOR_BYTES: u32 = 512;

/// What the library is taken to ask of a host for a disk: four buffers of 1 MiB, as VMware recommends them; its own
/// default is less.
const NFC_BUFFERS: u64 = 4 << 20;
