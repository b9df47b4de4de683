//! `https`: the files of a datastore, read by ranges through the server's `/folder`.
//!
//! The whole chain is read here: descriptors, flat extents, and the `COWD` and `seSparse` files of snapshots, by the
//! crate `vmdk`. What a range does not hold of tables and data does not travel.
//!
//! # What it can
//! Read disks of VMs that are off, and disks that no VM holds: any VMDK in a datastore of the VM, whoever put it there.
//! Tell what is allocated, from the tables of the chain. A whole disk can be written with
//! [`upload_disk`](crate::https::upload_disk).
//!
//! # What it cannot
//! Read the disk of a running VM on hosts that lock it (ESXi 8 does, the base below a snapshot too); read vSAN and vVol,
//! where no file has the bytes; read snapshots on servers that hide their files; write. Each is refused saying so, with
//! the way to take instead. A name is used as it is: no `-000001` is ever left out, which would read an older disk.
//!
//! # Privileges
//! `System.Read` on the VM and its datastores, `Datastore.Browse`; vCenter also wants `Datastore.FileManagement`.

mod error;
mod file;
mod options;
mod places;
mod read_ahead;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::sync::OnceCell;
use vmdk::{AsyncDisk, MapKind};
use vsphere_vim::datastore::DatastorePath;

pub(crate) use self::file::look_at;
pub use self::{error::HttpsError, options::HttpsOptions};
use self::{
    file::{Channel, FolderFile},
    places::{FolderResolver, Places},
    read_ahead::{ReadAhead, Source},
};
use super::{BoxFuture, DiskHandle, Transport, refuse};
use crate::{
    allocation::{Allocation, Chunks},
    error::{Error, Result},
    governor::Governor,
    info::DiskInfo,
    machine::Machine,
    mode::TransportMode,
    open::{Access, OpenOptions},
};

/// Opens disks in the datastores of one virtual machine.
pub(crate) struct HttpsTransport {
    machine: Machine,
    options: HttpsOptions,
    governor: Option<Governor>,
    places: OnceCell<Places>,
}

impl HttpsTransport {
    pub(crate) fn new(machine: Machine, options: HttpsOptions, governor: Option<Governor>) -> Self {
        Self { machine, options, governor, places: OnceCell::new() }
    }

    async fn open_disk(&self, path: &str, access: Access, options: &OpenOptions) -> Result<HttpsHandle> {
        let wrong = || {
            let expected = "it takes datastore paths, as in `[ds1] web/web.vmdk`";
            Error::WrongPath { mode: TransportMode::Https, path: path.to_owned(), expected }
        };
        if access.is_writing() {
            return refuse("open disks for writing", TransportMode::Https, ON_WRITING).await;
        }
        let wanted: DatastorePath = path.parse().map_err(|_| wrong())?;
        let places = self.places.get_or_try_init(|| Places::of(&self.machine, &self.options.route)).await?;
        let failed = |error| Error::https("opening", path)(error);
        places.check_has_files(&wanted).map_err(failed)?;
        let absolute = places.absolute(&wanted).map_err(failed)?;
        let place = self.machine.share_https(self.governor.as_ref(), &self.options.route).await?;
        let channel = Arc::new(Channel::new(self.options.clone(), place));
        let resolver = FolderResolver::new(places, channel);
        let chain = vmdk::OpenOptions::new()
            .paths(self.options.paths)
            .cache_bytes(self.options.cache_bytes)
            .single_link(options.single_link);
        let disk = AsyncDisk::open(&absolute, &resolver, &chain).await;
        let disk = disk.map_err(|error| chain_error("opening", path, error))?;
        let links = disk.links();
        let files = links.iter().filter_map(|link| resolver.named(&link.path)).collect();
        let is_part = options.single_link && has_parent(&disk);
        tracing::debug!(path, links = links.len(), capacity = disk.capacity(), "chain open over HTTPS");
        let ahead = ReadAhead::new(self.options.read_ahead, disk.capacity());
        let chain = Arc::new(Chain { disk, path: path.to_owned(), files });
        Ok(HttpsHandle { chain, ahead, is_part })
    }
}

impl Transport for HttpsTransport {
    fn mode(&self) -> TransportMode {
        TransportMode::Https
    }

    fn open<'a>(
        &'a self,
        path: &'a str,
        access: Access,
        options: &'a OpenOptions,
    ) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>> {
        Box::pin(async move {
            let handle = self.open_disk(path, access, options).await?;
            Ok(Box::new(handle) as Box<dyn DiskHandle>)
        })
    }
}

struct HttpsHandle {
    chain: Arc<Chain>,
    ahead: ReadAhead,
    /// It has a parent that was left out.
    is_part: bool,
}

/// The links of the disk, and what it is called.
struct Chain {
    disk: AsyncDisk<FolderFile>,
    path: String,
    /// Where the descriptors of the links lie, its own first.
    files: Vec<String>,
}

impl Chain {
    fn failed(&self, operation: &'static str) -> impl FnOnce(vmdk::Error) -> Error + '_ {
        move |error| chain_error(operation, &self.path, error)
    }
}

impl Source for Chain {
    fn read(self: Arc<Self>, offset: u64, len: usize) -> BoxFuture<'static, Result<Bytes>> {
        Box::pin(async move {
            let mut bytes = vec![0; len];
            self.disk.read_at(offset, &mut bytes).await.map_err(self.failed("reading"))?;
            Ok(bytes.into())
        })
    }
}

impl HttpsHandle {
    async fn allocation(&self, range: Range<u64>, chunk: u64) -> Result<Allocation> {
        let mut chunks = Chunks::new(chunk, range.clone());
        for entry in self.chain.disk.map(range).await.map_err(self.chain.failed("mapping"))? {
            // Without its parent, what says "zero" must not be taken for "ask the parent".
            if entry.kind == MapKind::Data || self.is_part && entry.kind == MapKind::Zero {
                chunks.push(&entry.range);
            }
        }
        Ok(Allocation::known(chunks.finish()).of_single_link(self.is_part))
    }

    fn description(&self) -> Result<DiskInfo> {
        let disk = &self.chain.disk;
        let info = DiskInfo::of_image(disk.capacity(), disk.descriptor(), disk.links().len(), |key| disk.ddb_get(key));
        info.map_err(self.chain.failed("describing"))
    }

    fn keys(&self) -> Vec<String> {
        self.chain.disk.ddb_list().into_iter().map(|(key, _)| key).collect()
    }
}

impl DiskHandle for HttpsHandle {
    fn mode(&self) -> TransportMode {
        TransportMode::Https
    }

    fn capacity(&self) -> u64 {
        self.chain.disk.capacity()
    }

    fn alignment(&self) -> u32 {
        1
    }

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>> {
        Box::pin(std::future::ready(self.description()))
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(self.ahead.read(&self.chain, offset, len))
    }

    fn write_at(&self, _offset: u64, _data: Bytes) -> BoxFuture<'_, Result<()>> {
        refuse("write", TransportMode::Https, ON_WRITING)
    }

    fn zero_range(&self, _range: Range<u64>) -> BoxFuture<'_, Result<()>> {
        refuse("write", TransportMode::Https, ON_WRITING)
    }

    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>> {
        Box::pin(self.allocation(range, chunk))
    }

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(std::future::ready(Ok(self.chain.disk.ddb_get(key))))
    }

    fn chain(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(self.chain.files.clone())))
    }

    fn metadata_keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(self.keys())))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        // Nothing is ever written.
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.ahead.stop();
        // Files behind `/folder` are not open on the server between two requests.
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What an error of the chain means: the server's and the network's are told apart from the image's.
fn chain_error(operation: &'static str, path: &str, error: vmdk::Error) -> Error {
    match HttpsError::take(error) {
        Ok(error) => Error::https(operation, path)(error),
        // `vsan://…` for an extent, on datastores whose kind says nothing else.
        Err(vmdk::Error::NotSupported { format, .. }) if format.contains("://") => {
            Error::https(operation, path)(HttpsError::ObjectStorage { file: path.to_owned(), datastore: format })
        }
        Err(error) => Error::file(operation, path)(error),
    }
}

fn has_parent(disk: &AsyncDisk<FolderFile>) -> bool {
    disk.descriptor().is_some_and(|own| own.parent_cid().is_ok_and(|cid| cid != vmdk::Cid::NONE))
}

const ON_WRITING: &str = "write over `nbdssl`; a whole disk can be put there with https::upload_disk";
