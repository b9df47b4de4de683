//! What is done to two disks at once.

use std::sync::mpsc::{Sender, channel};

use super::{
    answer::Answer,
    connection::Handle,
    disk::Disk,
    error::{Error, Result},
    library::{check, need},
    worker::{Message, Worker},
};
use crate::{functions::Attach, types::DiskObject};

/// Puts `child` on `parent`, so that it reads what it lacks from there. Disks of this machine only.
///
/// Both are open; afterwards the child's chain is the parent's with the child on top.
#[doc(alias = "VixDiskLib_Attach")]
pub fn attach(parent: &Disk, child: &Disk) -> Answer<()> {
    both("VixDiskLib_Attach", parent.connection().library().api().attach, parent, child)
}

/// Tells whether [`attach`] would work.
#[doc(alias = "VixDiskLib_IsAttachPossible")]
pub fn is_attach_possible(parent: &Disk, child: &Disk) -> Answer<()> {
    let function = parent.connection().library().api().is_attach_possible;
    both("VixDiskLib_IsAttachPossible", function, parent, child)
}

/// The library's thread makes the call, and asks both disks' threads to wait for it. It is one thread, so that two calls
/// cannot wait for each other's disks.
fn both(name: &'static str, function: Option<Attach>, parent: &Disk, child: &Disk) -> Answer<()> {
    if std::ptr::eq(parent, child) {
        return Answer::ready(Err(Error::SameDisk));
    }
    let (parent_thread, child_thread) = (parent.thread(), child.thread());
    let library = parent.connection().library();
    let api = *library.api();
    library.on_opener(move || {
        let function = need(function, name)?;
        let (parent, child) = (park(&parent_thread)?, park(&child_thread)?);
        // SAFETY: both disks are open and idle: their threads wait until this job lets go of them.
        let error = unsafe { function(parent.handle.0, child.handle.0) };
        check(&api, name, &child.path, error)
    })
}

/// A disk whose thread waits, so that another may use the handle. It goes on when this is dropped.
struct Parked {
    handle: Handle<DiskObject>,
    path: String,
    _release: Sender<()>,
}

fn park(thread: &Sender<Message>) -> Result<Parked> {
    let (here, parked) = channel();
    let wait = move |worker: &Worker| {
        let (release, released) = channel();
        let (handle, path) = (Handle(worker.handle()), worker.path().to_owned());
        let idle = worker.drain().map(|()| Parked { handle, path, _release: release });
        if here.send(idle).is_ok() {
            let _ = released.recv();
        }
    };
    thread.send(Message::Work(Box::new(wait))).map_err(|_| Error::ThreadGone)?;
    parked.recv().map_err(|_| Error::ThreadGone)?
}
