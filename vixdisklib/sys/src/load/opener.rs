//! A thread that carries out one job after the other.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Work for the thread.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Starts the one thread on which a library is begun and ended, and on which it connects, opens and closes. It ends when
/// the last sender is gone.
///
/// VMware's manual asks for that: "open and close from a single thread". Job after job also keeps them from overlapping.
pub(super) fn start() -> io::Result<Sender<Job>> {
    let (jobs, inbox) = channel();
    thread::Builder::new().name("vddk-opener".into()).spawn(move || run(&inbox))?;
    Ok(jobs)
}

fn run(inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        // A job that panics loses its asker, which tells whoever waits. The thread has to live on: closing needs it.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
