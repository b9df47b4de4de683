//! An open disk of the library.

use std::{fmt, ops::Range, sync::mpsc::Sender};

use super::{
    answer::{Answer, answer},
    connection::{Connection, Handle},
    error::{Error, Result},
    info::DiskInfo,
    library::need,
    progress::{self, Progress},
    text,
    worker::{Message, Worker},
};
use crate::{
    code::VixCode,
    constants::DiskType,
    types::{DiskHandle, DiskObject, SECTOR, Sectors},
};

/// An open disk. It keeps its connection; dropping it closes it behind one's back, [`close`](Self::close) tells how that
/// went.
///
/// Operations are carried out in the order of the calls, by a thread of the disk's own; over NFC several reads and writes
/// are under way at once, and their order is then not defined.
#[doc(alias = "VixDiskLibHandle")]
pub struct Disk {
    handle: Handle<DiskObject>,
    messages: Sender<Message>,
    path: String,
    info: DiskInfo,
    mode: String,
    connection: Connection,
    closed: bool,
}

impl Disk {
    pub(super) fn new(
        handle: Handle<DiskObject>,
        messages: Sender<Message>,
        path: String,
        info: DiskInfo,
        mode: String,
        connection: Connection,
    ) -> Self {
        Self { handle, messages, path, info, mode, connection, closed: false }
    }

    /// What it was opened by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it says about itself.
    #[doc(alias = "VixDiskLib_GetInfo")]
    #[doc(alias = "VixDiskLib_FreeInfo")]
    pub fn info(&self) -> &DiskInfo {
        &self.info
    }

    /// How it is reached: `file`, `nbd`, `nbdssl`, `san`, `hotadd`.
    #[doc(alias = "VixDiskLib_GetTransportMode")]
    pub fn transport_mode(&self) -> &str {
        &self.mode
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The library's own handle, for calls of other libraries of VMware's. It is valid as long as this is kept. Calls on
    /// a handle must not overlap: whoever uses it asks nothing else of the disk meanwhile, and before that waits until
    /// it is [idle](Self::idle).
    pub fn as_ptr(&self) -> DiskHandle {
        self.handle.0
    }

    /// Reads sectors.
    #[doc(alias = "VixDiskLib_ReadAsync")]
    #[doc(alias = "VixDiskLib_Read")]
    pub fn read(&self, start: Sectors, count: Sectors) -> Answer<Vec<u8>> {
        let Some(len) = count.checked_mul(SECTOR).and_then(|len| usize::try_from(len).ok()).filter(|len| *len > 0)
        else {
            return Answer::ready(Err(Error::Length { len: 0 }));
        };
        let (asker, answer) = answer();
        self.send(move |worker| worker.read(start, len, asker));
        answer
    }

    /// Writes whole sectors. The data is kept until the library is done with it.
    #[doc(alias = "VixDiskLib_WriteAsync")]
    #[doc(alias = "VixDiskLib_Write")]
    pub fn write(&self, start: Sectors, data: impl AsRef<[u8]> + Send + 'static) -> Answer<()> {
        let len = data.as_ref().len();
        if len == 0 || !(len as u64).is_multiple_of(SECTOR) {
            return Answer::ready(Err(Error::Length { len }));
        }
        let (asker, answer) = answer();
        let data: Box<dyn AsRef<[u8]> + Send> = Box::new(data);
        self.send(move |worker| worker.write(start, data, asker));
        answer
    }

    /// Makes the writes before it durable.
    #[doc(alias = "VixDiskLib_Flush")]
    pub fn flush(&self) -> Answer<()> {
        self.on_worker(|worker| {
            worker.drain()?;
            let flush = need(worker.api().flush, "VixDiskLib_Flush")?;
            // SAFETY: an open disk.
            worker.check("VixDiskLib_Flush", unsafe { flush(worker.handle()) })
        })
    }

    /// Waits for all that is under way, also for what nobody waits for any more.
    #[doc(alias = "VixDiskLib_Wait")]
    pub fn idle(&self) -> Answer<()> {
        self.on_worker(Worker::drain)
    }

    /// The allocated runs of sectors, in whole chunks: start and count are multiples of the chunk, which has at least
    /// [`MIN_CHUNK_SECTORS`](crate::MIN_CHUNK_SECTORS), and there are at most [`MAX_CHUNKS`](crate::MAX_CHUNKS). A tail
    /// shorter than a chunk cannot be asked about.
    #[doc(alias = "VixDiskLib_QueryAllocatedBlocks")]
    #[doc(alias = "VixDiskLib_FreeBlockList")]
    pub fn allocated(&self, start: Sectors, count: Sectors, chunk: Sectors) -> Answer<Vec<Range<Sectors>>> {
        self.on_worker(move |worker| worker.allocated(start, count, chunk))
    }

    /// A value of the disk data base; `None` when it has no such key.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn metadata(&self, key: &str) -> Answer<Option<String>> {
        let key = key.to_owned();
        self.on_worker(move |worker| {
            let (read, key) = (need(worker.api().read_metadata, READ_METADATA)?, worker.text("key", &key)?);
            let value = worker.sized(READ_METADATA, |buffer, len, required| {
                // SAFETY: an open disk, a text, and a buffer of that length.
                unsafe { read(worker.handle(), key.as_ptr(), buffer, len, required) }
            });
            match value {
                // The value ends in NUL; it may be empty, and is there all the same.
                Ok(value) => Ok(value.split(|byte| *byte == 0).next().map(text::lossy)),
                Err(error) if error.vix_code() == Some(VixCode::DISK_KEY_NOTFOUND) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Sets a value of the disk data base.
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub fn set_metadata(&self, key: &str, value: &str) -> Answer<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.on_worker(move |worker| {
            worker.drain()?;
            let write = need(worker.api().write_metadata, "VixDiskLib_WriteMetadata")?;
            let (key, value) = (worker.text("key", &key)?, worker.text("value", &value)?);
            // SAFETY: an open disk, and texts that live during the call.
            let error = unsafe { write(worker.handle(), key.as_ptr(), value.as_ptr()) };
            worker.check("VixDiskLib_WriteMetadata", error)
        })
    }

    /// The keys of the disk data base.
    #[doc(alias = "VixDiskLib_GetMetadataKeys")]
    pub fn metadata_keys(&self) -> Answer<Vec<String>> {
        self.on_worker(|worker| {
            let function = need(worker.api().get_metadata_keys, METADATA_KEYS)?;
            let keys = worker.sized(METADATA_KEYS, |buffer, len, required| {
                // SAFETY: an open disk, and a buffer of that length.
                unsafe { function(worker.handle(), buffer, len, required) }
            })?;
            Ok(strings(&keys).collect())
        })
    }

    /// Creates a disk of this machine that holds the difference to this one.
    #[doc(alias = "VixDiskLib_CreateChild")]
    pub fn create_child(&self, path: &str, disk_type: DiskType, progress: Option<Progress>) -> Answer<()> {
        let path = path.to_owned();
        self.on_worker(move |worker| {
            worker.drain()?;
            let (report, data) = progress::to_c(progress.as_ref());
            let create = need(worker.api().create_child, "VixDiskLib_CreateChild")?;
            let path = worker.text("path", &path)?;
            // SAFETY: an open disk; text and listener live during the call.
            let error = unsafe { create(worker.handle(), path.as_ptr(), disk_type, report, data) };
            worker.check("VixDiskLib_CreateChild", error)
        })
    }

    /// Gives the space of zeros back. Disks of this machine only.
    #[doc(alias = "VixDiskLib_Shrink")]
    pub fn shrink(&self, progress: Option<Progress>) -> Answer<()> {
        self.on_worker(move |worker| {
            worker.drain()?;
            let (report, data) = progress::to_c(progress.as_ref());
            let shrink = need(worker.api().shrink, "VixDiskLib_Shrink")?;
            // SAFETY: an open disk; the listener lives during the call.
            worker.check("VixDiskLib_Shrink", unsafe { shrink(worker.handle(), report, data) })
        })
    }

    /// Puts the blocks of a sparse disk in order. Disks of this machine only.
    #[doc(alias = "VixDiskLib_Defragment")]
    pub fn defragment(&self, progress: Option<Progress>) -> Answer<()> {
        self.on_worker(move |worker| {
            worker.drain()?;
            let (report, data) = progress::to_c(progress.as_ref());
            let defragment = need(worker.api().defragment, "VixDiskLib_Defragment")?;
            // SAFETY: an open disk; the listener lives during the call.
            worker.check("VixDiskLib_Defragment", unsafe { defragment(worker.handle(), report, data) })
        })
    }

    /// The bytes that a copy of that kind needs.
    #[doc(alias = "VixDiskLib_SpaceNeededForClone")]
    pub fn space_needed_for_clone(&self, disk_type: DiskType) -> Answer<u64> {
        self.on_worker(move |worker| {
            worker.drain()?;
            let space = need(worker.api().space_needed_for_clone, "VixDiskLib_SpaceNeededForClone")?;
            let mut bytes = 0;
            // SAFETY: an open disk, and a number to store into.
            let error = unsafe { space(worker.handle(), disk_type, &mut bytes) };
            worker.check("VixDiskLib_SpaceNeededForClone", error).map(|()| bytes)
        })
    }

    /// Waits for what is under way, closes the disk and says what went wrong. It is closed all the same.
    #[doc(alias = "VixDiskLib_Close")]
    pub fn close(mut self) -> Answer<()> {
        let (asker, answer) = answer();
        self.closed = true;
        let _ = self.messages.send(Message::Close(Some(asker)));
        answer
    }

    /// Has work done on the disk's thread.
    pub(super) fn on_worker<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Worker) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (asker, answer) = answer();
        self.send(move |worker| asker.give(work(worker)));
        answer
    }

    /// For work that is handed over from elsewhere.
    pub(super) fn thread(&self) -> Sender<Message> {
        self.messages.clone()
    }

    fn send(&self, work: impl FnOnce(&Worker) + Send + 'static) {
        // The thread lives as long as the disk; were it gone, the asker would be dropped with the work and say so.
        let _ = self.messages.send(Message::Work(Box::new(work)));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.closed {
            let _ = self.messages.send(Message::Close(None));
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// The texts of a list in which each ends in NUL, up to the first that is empty.
fn strings(list: &[u8]) -> impl Iterator<Item = String> + '_ {
    let texts = list.split(|byte| *byte == 0).take_while(|text| !text.is_empty());
    texts.map(text::lossy)
}

const READ_METADATA: &str = "VixDiskLib_ReadMetadata";
const METADATA_KEYS: &str = "VixDiskLib_GetMetadataKeys";
