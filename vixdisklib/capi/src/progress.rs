//! Progress functions of programs.

use std::{ffi::c_void, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use tokio::sync::mpsc::unbounded_channel;
use vixdisklib::Progress;
use vixdisklib_sys::ProgressFunc;

use crate::library::Library;

/// Runs long work, and calls the program's function, if it has one, on the calling thread.
///
/// `work` is given what to report to: it may be called on any thread.
pub(crate) fn run<T, F: Future<Output = T>>(
    library: &Library,
    function: Option<ProgressFunc>,
    data: *mut c_void,
    work: impl FnOnce(Option<Progress>) -> F,
) -> T {
    let Some(function) = function else { return library.block_on(work(None)) };
    let (sender, mut percents) = unbounded_channel();
    let progress: Progress = Arc::new(move |percent| {
        // Nobody listens any more when the call has returned.
        let _ = sender.send(percent);
    });
    let tell = |percent: u8| {
        // SAFETY: the program gave function and data together, for calls during this one. The answer has no meaning.
        unsafe { function(data, percent.min(100).into()) };
    };
    let work = work(Some(progress));
    library.block_on(async {
        let mut work = pin!(work);
        poll_fn(|context| {
            let done = work.as_mut().poll(context);
            // After the work, so that what it reported last is told too.
            while let Poll::Ready(Some(percent)) = percents.poll_recv(context) {
                tell(percent);
            }
            done
        })
        .await
    })
}
