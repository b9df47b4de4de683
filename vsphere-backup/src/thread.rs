//! Work that blocks or computes for long, away from the threads of the runtime.

use crate::error::{Error, Result};

/// Runs `work` on a thread for such work; `what` names it in the error.
///
/// # Errors
/// [`Error::WriterStopped`] when it panics.
///
/// # Cancel safety
/// When dropped, the work goes on to its end.
pub(crate) async fn run<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::WriterStopped { reason: format!("{what} ended: {error}") })
}

/// Runs work on a journal.
///
/// # Errors
/// What the work returns; [`Error::WriterStopped`] when it panics.
pub(crate) async fn on_journal<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    run("work on the journal", work).await?
}
