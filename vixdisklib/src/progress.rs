//! How far long work is.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// What is told how far long work is, in percent. Called from any thread, never twice at once; it must be quick. The
/// same percentage may be told more than once.
#[doc(alias = "VixDiskLibProgressFunc")]
pub type Progress = Arc<dyn Fn(u8) + Send + Sync>;

/// Tells that `done` of `total` is done.
pub(crate) fn tell(progress: Option<&Progress>, done: u64, total: u64) {
    if let Some(progress) = progress {
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        progress(u8::try_from(percent.min(100)).unwrap_or(100));
    }
}

/// The same progress for work that may begin anew in another way: it does not go back.
pub(crate) fn growing(progress: Progress) -> Progress {
    let most = AtomicU8::new(0);
    Arc::new(move |percent| progress(most.fetch_max(percent, Ordering::Relaxed).max(percent)))
}
