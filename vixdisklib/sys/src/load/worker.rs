//! The thread of one disk: it makes all calls on the handle, one after the other.

use std::{
    ffi::CString,
    io,
    mem::ManuallyDrop,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::{
    answer::Asker,
    api::Api,
    connection::{Connection, Handle, RawConnection},
    disk::Disk,
    error::{Error, Result},
    info::DiskInfo,
    library::{check, need},
    pending::{Flight, LAG, Verdict},
    text,
};
use crate::{
    code::VixError,
    constants::OpenFlags,
    functions,
    types::{Block, BlockList, DiskHandle, DiskObject, SECTOR, Sectors},
};

/// What the thread is told.
pub(super) enum Message {
    Work(Work),
    Close(Option<Asker<()>>),
}

/// Something to do with the disk.
pub(super) type Work = Box<dyn FnOnce(&Worker) + Send>;

/// An open disk, on its thread.
pub(super) struct Worker {
    handle: Handle<DiskObject>,
    path: String,
    connection: Arc<RawConnection>,
    /// To itself: for what has to be asked of the library after a completion, which may come on any thread.
    messages: Sender<Message>,
    flight: Arc<Flight>,
    /// How many operations may be under way at once.
    depth: usize,
    /// Who waits for the closing.
    closing: Option<Asker<()>>,
}

/// Opens a disk, on the library's thread, and answers when the disk's own thread has looked at it.
pub(super) fn open(connection: Arc<RawConnection>, path: String, flags: OpenFlags, asker: Asker<Disk>) {
    // The thread comes first: without it, there would be an open disk and nobody to close it.
    match spawn().and_then(|(start, messages)| Ok((start, Worker::open(connection, path, flags, messages)?))) {
        Ok((start, worker)) => {
            let _ = start.send((worker, asker));
        }
        Err(error) => asker.give(Err(error)),
    }
}

/// What a new thread waits for.
type Start = Sender<(Worker, Asker<Disk>)>;

fn spawn() -> Result<(Start, Sender<Message>)> {
    let failed = |source: io::Error| Error::Io { doing: "starting a disk's thread", source };
    let (start, started) = channel::<(Worker, Asker<Disk>)>();
    let (messages, inbox) = channel();
    let body = move || {
        // Dropped without a word: the disk could not be opened.
        if let Ok((worker, asker)) = started.recv() {
            run(worker, &inbox, asker);
        }
    };
    thread::Builder::new().name("vddk-disk".into()).spawn(body).map_err(failed)?;
    Ok((start, messages))
}

fn run(mut worker: Worker, inbox: &Receiver<Message>, asker: Asker<Disk>) {
    match worker.describe() {
        Ok(disk) => asker.give(Ok(disk)),
        Err(error) => {
            drop(worker); // Closes.
            return asker.give(Err(error));
        }
    }
    // A panic costs the one who asked; the disk has to be closed all the same.
    let work = |worker: &Worker, work: Work| drop(catch_unwind(AssertUnwindSafe(|| work(worker))));
    while let Ok(message) = inbox.recv() {
        match message {
            Message::Work(next) => work(&worker, next),
            Message::Close(asker) => {
                worker.closing = asker;
                break;
            }
        }
    }
    // What is under way may still fail, and then asks for the library's words.
    let _ = worker.drain();
    while let Ok(message) = inbox.try_recv() {
        if let Message::Work(next) = message {
            work(&worker, next);
        }
    }
}

impl Worker {
    fn open(connection: Arc<RawConnection>, path: String, flags: OpenFlags, messages: Sender<Message>) -> Result<Self> {
        let api = connection.library().api();
        let text = text::to_c("path", &path)?;
        let mut handle: DiskHandle = ptr::null_mut();
        // SAFETY: connected; the text lives during the call, and it stores a handle if it succeeds.
        let error = unsafe { (api.open)(connection.handle(), text.as_ptr(), flags.0, &mut handle) };
        check(api, "VixDiskLib_Open", &path, error)?;
        if handle.is_null() {
            return Err(Error::Nothing { function: "VixDiskLib_Open" });
        }
        let flight = Arc::default();
        Ok(Self { handle: Handle(handle), path, connection, messages, flight, depth: 1, closing: None })
    }

    /// The first thing on the new thread: what the disk is.
    fn describe(&mut self) -> Result<Disk> {
        let info = self.info()?;
        // SAFETY: an open disk; the text is the library's own.
        let mode = unsafe { (self.api().get_transport_mode)(self.handle()) };
        // SAFETY: as above.
        let mode = unsafe { text::from_c(mode) }.unwrap_or_default();
        if mode.starts_with("nbd") {
            // Over other transports, the library works off one operation at a time.
            self.depth = self.connection.library().depth();
        }
        let connection = Connection::from_raw(Arc::clone(&self.connection));
        let handle = Handle(self.handle.0);
        Ok(Disk::new(handle, self.messages.clone(), self.path.clone(), info, mode, connection))
    }

    pub(super) fn api(&self) -> &Api {
        self.connection.library().api()
    }

    /// Valid as long as this thread is inside a piece of work.
    pub(super) fn handle(&self) -> DiskHandle {
        self.handle.0
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Turns what a function returned into a result.
    pub(super) fn check(&self, function: &'static str, error: VixError) -> Result<()> {
        check(self.api(), function, &self.path, error)
    }

    /// Waits for all that is under way: no other call may overlap with it.
    pub(super) fn drain(&self) -> Result<()> {
        if self.flight.wait_none(std::time::Duration::ZERO) {
            return Ok(());
        }
        let result = match self.api().wait {
            // SAFETY: an open disk.
            Some(wait) => self.check("VixDiskLib_Wait", unsafe { wait(self.handle()) }),
            None => Ok(()),
        };
        if !self.flight.wait_none(LAG) {
            return result.and(Err(Error::NeverAnswered { function: "VixDiskLib_Wait" }));
        }
        result
    }

    fn info(&self) -> Result<DiskInfo> {
        let library = self.connection.library();
        let mut info = ptr::null_mut();
        // SAFETY: an open disk; it stores a pointer if it succeeds.
        let error = unsafe { (self.api().get_info)(self.handle(), &mut info) };
        self.check("VixDiskLib_GetInfo", error)?;
        if info.is_null() {
            return Err(Error::Nothing { function: "VixDiskLib_GetInfo" });
        }
        // SAFETY: given by a library of that generation (none is older than any), not freed yet.
        let copy = unsafe { DiskInfo::copy(info, library.generation().unwrap_or(0)) };
        // SAFETY: given by the same library, and freed once.
        unsafe { (self.api().free_info)(info) };
        Ok(copy)
    }

    /// The functions for asynchronous work, if all are there.
    fn asynchronous(&self) -> Option<(functions::ReadAsync, functions::WriteAsync)> {
        let api = self.api();
        api.wait.and(api.read_async).zip(api.write_async)
    }

    pub(super) fn read(&self, start: Sectors, len: usize, asker: Asker<Vec<u8>>) {
        let (count, mut buffer) = (len as u64 / SECTOR, vec![0_u8; len]);
        let at = buffer.as_mut_ptr();
        let Some((read, _)) = self.asynchronous() else {
            // SAFETY: an open disk, and a buffer of that many sectors.
            let error = unsafe { (self.api().read)(self.handle(), start, count, at) };
            return asker.give(self.check("VixDiskLib_Read", error).map(|()| buffer));
        };
        self.begin(
            "VixDiskLib_ReadAsync",
            buffer,
            asker,
            |buffer| buffer,
            |function, data| {
                // SAFETY: an open disk; the buffer has that many sectors and belongs to the entry until the library is done.
                unsafe { read(self.handle(), start, count, at, function, data) }
            },
        );
    }

    pub(super) fn write(&self, start: Sectors, data: Box<dyn AsRef<[u8]> + Send>, asker: Asker<()>) {
        let bytes = (*data).as_ref();
        let (at, count) = (bytes.as_ptr(), bytes.len() as u64 / SECTOR);
        let Some((_, write)) = self.asynchronous() else {
            // SAFETY: an open disk, and a buffer of that many sectors.
            let error = unsafe { (self.api().write)(self.handle(), start, count, at) };
            return asker.give(self.check("VixDiskLib_Write", error));
        };
        self.begin("VixDiskLib_WriteAsync", data, asker, drop, |function, data| {
            // SAFETY: an open disk; the buffer has that many sectors and belongs to the entry until the library is done.
            unsafe { write(self.handle(), start, count, at, function, data) }
        });
    }

    /// Begins an asynchronous operation, which owns `buffer` until the library is done with it.
    fn begin<B: Send + 'static, T: Send + 'static>(
        &self,
        name: &'static str,
        buffer: B,
        asker: Asker<T>,
        done: fn(B) -> T,
        call: impl FnOnce(Option<crate::types::CompletionFunc>, *mut std::ffi::c_void) -> VixError,
    ) {
        self.flight.wait_below(self.depth);
        let (messages, buffer) = (self.messages.clone(), ManuallyDrop::new(buffer));
        let entry = self.flight.enter(Box::new(move |verdict| match verdict {
            Verdict::Done(error) => {
                let buffer = ManuallyDrop::into_inner(buffer);
                if error.is_ok() {
                    return asker.give(Ok(done(buffer)));
                }
                // This may be a thread of the library's, in the middle of something: ask for words on our own.
                let explain = move |worker: &Self| {
                    asker.give(worker.check(name, error).and(Err(Error::Nothing { function: name })));
                };
                let _ = messages.send(Message::Work(Box::new(explain)));
            }
            Verdict::NotBegun => asker.give(Err(Error::Nothing { function: name })),
            // The buffer is left where it is.
            Verdict::NeverAnswered => asker.give(Err(Error::NeverAnswered { function: name })),
        }));
        let (function, data) = entry.to_c();
        let answer = call(function, data);
        entry.called(answer);
    }

    pub(super) fn allocated(&self, start: Sectors, count: Sectors, chunk: Sectors) -> Result<Vec<Range<Sectors>>> {
        self.drain()?;
        let query = need(self.api().query_allocated_blocks, "VixDiskLib_QueryAllocatedBlocks")?;
        let free = need(self.api().free_block_list, "VixDiskLib_FreeBlockList")?;
        let mut list = ptr::null_mut();
        // SAFETY: an open disk; it stores a pointer if it succeeds.
        let error = unsafe { query(self.handle(), start, count, chunk, &mut list) };
        self.check("VixDiskLib_QueryAllocatedBlocks", error)?;
        if list.is_null() {
            return Err(Error::Nothing { function: "VixDiskLib_QueryAllocatedBlocks" });
        }
        // SAFETY: the library's list, not freed yet.
        let runs = unsafe { blocks(list) };
        // SAFETY: given by the same library, and freed once.
        self.check("VixDiskLib_FreeBlockList", unsafe { free(list) })?;
        Ok(runs)
    }

    /// Asks for a text of unknown length: with no buffer first, then with one of the length that is needed.
    pub(super) fn sized(
        &self,
        name: &'static str,
        mut call: impl FnMut(*mut std::ffi::c_char, usize, &mut usize) -> VixError,
    ) -> Result<Vec<u8>> {
        use crate::code::VixCode;
        self.drain()?;
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            let mut required = 0;
            let at = if buffer.is_empty() { ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
            let error = call(at, buffer.len(), &mut required);
            match error.code() {
                VixCode::BUFFER_TOOSMALL | VixCode::OK if required > buffer.len() => buffer.resize(required, 0),
                _ => {
                    self.check(name, error)?;
                    buffer.truncate(required);
                    return Ok(buffer);
                }
            }
        }
    }

    /// A text for C, for a function of this disk.
    pub(super) fn text(&self, what: &'static str, text: &str) -> Result<CString> {
        text::to_c(what, text)
    }
}

/// Closes the disk on the library's thread, after all that was under way.
impl Drop for Worker {
    fn drop(&mut self) {
        let drained = self.drain();
        let (handle, connection) = (Handle(self.handle.0), Arc::clone(&self.connection));
        let (path, flight) = (std::mem::take(&mut self.path), Arc::clone(&self.flight));
        let closing = self.closing.take();
        let _closed = self.connection.library().on_opener(move || {
            let handle = handle;
            let api = connection.library().api();
            // SAFETY: opened by this library, used by nobody any more, and closed once.
            let error = unsafe { (api.close)(handle.0) };
            let closed = check(api, "VixDiskLib_Close", &path, error);
            flight.give_up();
            // Before the answer: whoever was told that the disk is closed may count on what it had kept.
            drop(connection);
            if let Some(asker) = closing {
                asker.give(drained.and(closed));
            }
            Ok(())
        });
    }
}

/// Copies the runs of a list.
///
/// # Safety
/// The list is one of the library's and not freed yet.
unsafe fn blocks(list: *const BlockList) -> Vec<Range<Sectors>> {
    // SAFETY: the head is there.
    let count = unsafe { (*list).num_blocks } as usize;
    // SAFETY: the head is there; this only takes an address.
    let first = unsafe { &raw const (*list).blocks }.cast::<Block>();
    // SAFETY: that many blocks follow the head.
    let blocks = unsafe { std::slice::from_raw_parts(first, count) };
    blocks.iter().map(|block| block.offset..block.offset.saturating_add(block.length)).collect()
}
