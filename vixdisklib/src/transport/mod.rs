//! What a way to a disk has to be able to do, and the ways there are. Private: the set of transports is ours.
//!
//! A new transport implements [`Transport`] and [`DiskHandle`] as far as it can, and gets an arm in [`make`]. What it
//! cannot do it leaves to the default bodies, which refuse by name.

mod file;
pub(crate) mod https;
pub(crate) mod image;
mod nfc;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(all(feature = "vddk", unix))]
mod vddk;
mod zeros;

use std::{ops::Range, pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use vsphere_nfc::Channel;

pub(crate) use self::file::{blocking, check_path};
pub use self::nfc::{DatastoreTickets, VmTickets};
#[cfg(feature = "nbd-server")]
pub(crate) use self::zeros::zeros;
use self::{file::FileTransport, https::HttpsTransport, nfc::NfcTransport};
use crate::{
    Progress,
    allocation::Allocation,
    clone::CloneJob,
    create::{CreateSpec, DiskKind},
    error::{Error, Result},
    info::DiskInfo,
    machine::Machine,
    mode::TransportMode,
    open::{Access, OpenOptions},
    options::ConnectionOptions,
    upkeep::CheckOutcome,
};

/// A boxed future that may be sent between threads.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handle that a child, a copy or an attached disk keeps open as well.
pub(crate) type SharedHandle = Arc<Box<dyn DiskHandle>>;

/// What the disks of a connection belong to.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// This machine.
    Local,
    /// A virtual machine.
    Machine(Machine),
}

/// Makes a transport ready for a place, or says why there is none.
pub(crate) fn make(
    mode: TransportMode,
    place: &Place,
    options: &ConnectionOptions,
) -> Result<Box<dyn Transport>, &'static str> {
    let machine = || match place {
        Place::Local => Err("it needs a connection to a server"),
        Place::Machine(machine) => Ok(machine.clone()),
    };
    let governor = options.governor.clone();
    let nfc = |channel| {
        let mut nfc = options.nfc.clone();
        nfc.channel = channel;
        Ok(Box::new(NfcTransport::new(machine()?, nfc, governor.clone())) as Box<dyn Transport>)
    };
    #[cfg(all(feature = "vddk", unix))]
    if let Some(choice) = options.vddk.as_ref().filter(|choice| choice.serves(mode)) {
        let transport = vddk::VddkTransport::new(mode, choice, options, place)?;
        return Ok(Box::new(transport));
    }
    if let Some(reason) = mode.not_offered() {
        return Err(reason);
    }
    match mode {
        TransportMode::File => Ok(Box::new(FileTransport::new(options.file.clone(), governor))),
        TransportMode::NbdSsl => nfc(Channel::Tls),
        TransportMode::Nbd => nfc(Channel::Clear),
        TransportMode::Https => Ok(Box::new(HttpsTransport::new(machine()?, options.https.clone(), governor))),
        TransportMode::San | TransportMode::HotAdd | TransportMode::Custom => Err("it is not offered"),
    }
}

/// Opens disks, and looks after those that nobody has open.
pub(crate) trait Transport: Send + Sync {
    /// Its name.
    fn mode(&self) -> TransportMode;

    /// Opens one disk. `access` is what counts; that of `options` went into it.
    fn open<'a>(
        &'a self,
        path: &'a str,
        access: Access,
        options: &'a OpenOptions,
    ) -> BoxFuture<'a, Result<Box<dyn DiskHandle>>>;

    /// Makes a new disk.
    fn create<'a>(&'a self, _path: &'a str, _spec: &'a CreateSpec) -> BoxFuture<'a, Result<()>> {
        refuse(
            "create a disk",
            self.mode(),
            "create it over `file` and clone it, or let the server create it with a VM",
        )
    }

    /// Removes a disk with all its files.
    fn unlink<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<()>> {
        refuse("remove a disk", self.mode(), ON_FILES)
    }

    /// Makes a disk larger. The new size is not checked.
    fn grow<'a>(
        &'a self,
        _path: &'a str,
        _capacity: u64,
        _update_geometry: bool,
        _progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        refuse("grow a disk", self.mode(), ON_FILES)
    }

    /// Makes a disk with the data of another one. What was made goes away after a failure, and on cancellation.
    fn clone_from<'a>(&'a self, _path: &'a str, _job: &'a CloneJob) -> BoxFuture<'a, Result<()>> {
        refuse("make a disk of another one's data", self.mode(), "clone to a file of this machine over `file`")
    }

    /// Checks a disk, and puts right what can be.
    fn check_repair<'a>(&'a self, _path: &'a str, _repair: bool) -> BoxFuture<'a, Result<CheckOutcome>> {
        refuse("check a disk", self.mode(), ON_FILES)
    }
}

/// An open disk. Callers have checked access, bounds and alignment; ranges are not empty.
pub(crate) trait DiskHandle: Send + Sync {
    /// Its name.
    fn mode(&self) -> TransportMode;

    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// What offsets and lengths have to be multiples of. Not 0.
    fn alignment(&self) -> u32;

    fn info(&self) -> BoxFuture<'_, Result<DiskInfo>>;

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes>>;

    /// Reads into the caller's memory: for transports that can save an allocation by it.
    fn read_into<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            buffer.copy_from_slice(&self.read_at(offset, buffer.len()).await?);
            Ok(())
        })
    }

    /// Reads with memory that the caller has from an earlier read, where the transport can use it.
    fn read_with(&self, offset: u64, len: usize, _memory: BytesMut) -> BoxFuture<'_, Result<Bytes>> {
        self.read_at(offset, len)
    }

    fn write_at(&self, offset: u64, data: Bytes) -> BoxFuture<'_, Result<()>>;

    fn zero_range(&self, range: Range<u64>) -> BoxFuture<'_, Result<()>>;

    /// Answers in units of `chunk` bytes, a power of two of at least 64 KiB.
    fn allocated(&self, range: Range<u64>, chunk: u64) -> BoxFuture<'_, Result<Allocation>>;

    fn metadata<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>>>;

    /// All keys of the disk data base, without `ddb.`.
    fn metadata_keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        refuse("list the metadata of a disk", self.mode(), "ask for the keys that you need by name")
    }

    fn set_metadata<'a>(&'a self, _key: &'a str, _value: &'a str) -> BoxFuture<'a, Result<()>> {
        refuse("write the metadata of a disk", self.mode(), "clone the disk with the metadata that it is to have")
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    /// Returns when what callers have given up has ended too. Nothing else is under way.
    fn wait(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Makes a child of this disk at `path`.
    fn create_child<'a>(
        &'a self,
        _path: &'a str,
        _kind: DiskKind,
        _progress: Option<Progress>,
    ) -> BoxFuture<'a, Result<()>> {
        refuse("create a child of a disk", self.mode(), "the server makes children: create a snapshot")
    }

    /// Gives back the space of blocks that hold zeros.
    fn shrink(&self, _progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        refuse("shrink a disk", self.mode(), ON_FILES)
    }

    /// Brings the blocks of a sparse disk into order.
    fn defragment(&self, _progress: Option<Progress>) -> BoxFuture<'_, Result<()>> {
        refuse("defragment a disk", self.mode(), ON_FILES)
    }

    /// The disk as threads that may block read it, where that needs no task.
    fn local_image(&self) -> Option<Arc<dyn vmdk::Image>> {
        None
    }

    /// The files of the disk and of its parents, as far as they are known: a clone must not take the place of one of
    /// them.
    fn chain(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// What the disk says of its place in a chain; `None` where the transport cannot tell.
    fn link(&self) -> BoxFuture<'_, Result<Option<Link>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether this disk, opened alone, can have `parent` under it; the error says why not.
    fn is_attach_possible<'a>(&'a self, _parent: &'a SharedHandle, _name: &'a str) -> BoxFuture<'a, Result<()>> {
        refuse("have a parent attached", self.mode(), ATTACH)
    }

    /// Reads `parent` where this disk, opened alone, has nothing.
    fn attach<'a>(&'a self, _parent: SharedHandle, _name: &'a str) -> BoxFuture<'a, Result<()>> {
        refuse("have a parent attached", self.mode(), ATTACH)
    }

    /// The disk as blocking calls, where I/O blocks a thread anyway: callers that may block save a change of threads.
    #[cfg(feature = "blocking")]
    fn direct(&self) -> Option<&dyn DirectIo> {
        None
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// A disk's place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Tells one content from another.
    pub(crate) content_id: vmdk::Cid,
    /// It has a parent that was left out.
    pub(crate) is_part: bool,
}

/// Closes a disk, unless something else has it open as well: then that does it.
pub(crate) async fn close(handle: SharedHandle) -> Result<()> {
    match Arc::try_unwrap(handle) {
        Ok(handle) => handle.close().await,
        Err(_) => Ok(()),
    }
}

/// The answer of a transport that does not offer an operation.
pub(crate) fn refuse<T: Send + 'static>(
    operation: &'static str,
    mode: TransportMode,
    hint: &'static str,
) -> BoxFuture<'static, Result<T>> {
    Box::pin(std::future::ready(Err(Error::NotOffered { operation, mode, hint })))
}

const ATTACH: &str = "the child must be a file of this machine, opened over `file` as a single link";

const ON_FILES: &str = "clone the disk to a file of this machine, and do it there over `file`";

/// Blocking I/O on the calling thread, or `None` when that would have to wait for something else. Callers have checked
/// what callers of [`DiskHandle`] check.
#[cfg(feature = "blocking")]
pub(crate) trait DirectIo: Sync {
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<()>>;

    fn write_from(&self, offset: u64, data: &[u8]) -> Option<Result<()>>;

    fn flush(&self) -> Option<Result<()>>;
}
