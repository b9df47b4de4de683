//! What a disk's handle stands for.

use std::{
    cell::RefCell,
    ops::Deref,
    ptr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use vixdisklib::blocking::{self, in_place};
use vixdisklib_sys::{DiskHandle, VixCode};

use crate::{
    call::{Failure, Outcome},
    connection::{Linked, invalid},
    fork::PerProcess,
    handle::Table,
    library::{self, Library},
};

/// All open disks of the program.
pub(crate) static DISKS: PerProcess<Table<Opened>> = PerProcess::new(Table::new);

/// An open disk, and what is under way on it.
pub(crate) struct Opened {
    path: String,
    /// Shared by calls that return when they are done; only closing takes it alone.
    open: RwLock<Option<Open>>,
    background: Mutex<Background>,
    /// Told when the last asynchronous operation has ended.
    ended: Condvar,
}

struct Open {
    disk: Arc<blocking::Disk>,
    linked: Arc<Linked>,
}

/// Asynchronous operations.
#[derive(Default)]
struct Background {
    under_way: usize,
    closing: bool,
}

/// The disk of a handle; the error tells a handle that is wrong from a library that is not ready.
pub(crate) fn disk(handle: DiskHandle) -> Outcome<Arc<Opened>> {
    DISKS.find(handle as usize).ok_or_else(|| library::current().err().unwrap_or_else(|| invalid("disk")))
}

impl Opened {
    pub(crate) fn new(disk: blocking::Disk, linked: Arc<Linked>) -> Self {
        Self {
            path: disk.asynchronous().path().to_owned(),
            open: RwLock::new(Some(Open { disk: Arc::new(disk), linked })),
            background: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Uses the disk in this call: it is not closed before the answer is dropped.
    pub(crate) fn enter(&self) -> Outcome<Entered<'_>> {
        // Never waits: only closing takes the lock alone, and a call that waited for it could be one that it waits for.
        let open = self.open.try_read().ok().filter(|open| open.is_some()).ok_or_else(|| invalid("disk"))?;
        Ok(Entered { open, _here: Here::new(self, Use::Call) })
    }

    /// Uses the disk beyond this call.
    pub(crate) fn pass(self: Arc<Self>) -> Outcome<Pass> {
        let disk = Arc::clone(self.enter()?.shared());
        let mut background = self.background();
        if background.closing {
            return Err(invalid("disk"));
        }
        background.under_way += 1;
        drop(background);
        Ok(Pass { disk: Some(disk), opened: self })
    }

    /// Waits until no asynchronous operation is under way.
    pub(crate) fn wait(&self) -> Outcome<()> {
        // A completion function that waits for itself would wait for ever.
        check_may_wait(|used| ptr::eq(used.0, self) && used.1 == Use::Completion)?;
        self.wait_for(self.background());
        Ok(())
    }

    /// Whether closing would wait for a call that is under way on this very thread.
    pub(crate) fn check_may_close(&self) -> Outcome<()> {
        check_may_wait(|used| ptr::eq(used.0, self))
    }

    /// Closes the disk after everything that is under way.
    pub(crate) fn close(&self, library: &Library) -> Outcome<()> {
        let mut background = self.background();
        background.closing = true;
        self.wait_for(background);
        let open = in_place(|| self.open.write().unwrap_or_else(PoisonError::into_inner).take());
        let Open { disk, linked } = open.ok_or_else(|| invalid("disk"))?;
        // Passes are the only other owners, and they have ended.
        let closed = Arc::into_inner(disk).map_or(Ok(()), blocking::Disk::close);
        linked.release(library);
        closed.map_err(Failure::from)
    }

    fn wait_for(&self, background: MutexGuard<'_, Background>) {
        if background.under_way > 0 {
            // This may be a thread of the runtime, which other completions need.
            drop(background);
            in_place(|| {
                let mut background = self.background();
                while background.under_way > 0 {
                    background = self.ended.wait(background).unwrap_or_else(PoisonError::into_inner);
                }
            });
        }
    }

    fn background(&self) -> MutexGuard<'_, Background> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use a disk during a call.
pub(crate) struct Entered<'a> {
    open: RwLockReadGuard<'a, Option<Open>>,
    _here: Here,
}

impl Entered<'_> {
    fn shared(&self) -> &Arc<blocking::Disk> {
        &self.open.as_ref().expect("it was there when the disk was entered").disk
    }
}

impl Deref for Entered<'_> {
    type Target = blocking::Disk;

    fn deref(&self) -> &blocking::Disk {
        self.shared()
    }
}

/// The right to use a disk until an asynchronous operation has ended.
pub(crate) struct Pass {
    /// Taken out by `Drop` only.
    disk: Option<Arc<blocking::Disk>>,
    opened: Arc<Opened>,
}

impl Pass {
    /// Notes that this thread runs the completion function, until the answer is dropped.
    pub(crate) fn completing(&self) -> impl Sized + use<> {
        Here::new(&self.opened, Use::Completion)
    }
}

impl Deref for Pass {
    type Target = blocking::Disk;

    fn deref(&self) -> &blocking::Disk {
        self.disk.as_ref().expect("a pass has its disk until it is dropped")
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // First, so that whoever closes finds itself the only owner.
        self.disk = None;
        let mut background = self.opened.background();
        background.under_way -= 1;
        if background.under_way == 0 {
            self.opened.ended.notify_all();
        }
    }
}

/// What a thread is in the middle of: a call on a disk, or a completion function of one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Call,
    Completion,
}

thread_local! {
    /// The disks that are used further up on this thread's stack, by calls that called the program back.
    static USED: RefCell<Vec<(*const Opened, Use)>> = const { RefCell::new(Vec::new()) };
}

/// An entry in [`USED`].
struct Here;

impl Here {
    fn new(opened: &Opened, kind: Use) -> Self {
        // Functions that run after `main` have no such memory any more, and no callbacks above them.
        let _ = USED.try_with(|used| used.borrow_mut().push((opened, kind)));
        Self
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = USED.try_with(|used| used.borrow_mut().pop());
    }
}

/// Whether this thread is inside a call on any disk.
pub(crate) fn is_used_here() -> bool {
    USED.try_with(|used| !used.borrow().is_empty()).unwrap_or(false)
}

fn check_may_wait(by_itself: impl Fn(&(*const Opened, Use)) -> bool) -> Outcome<()> {
    if USED.try_with(|used| used.borrow().iter().any(by_itself)).unwrap_or(false) {
        let text = "the call would wait for the call that it is made in";
        return Err(Failure::new(VixCode::OP_ALREADY_IN_PROGRESS, text));
    }
    Ok(())
}
