//! Cancelling.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

use crate::{
    error::{Error, Result},
    journal::Abandoned,
};

/// A token by which a caller stops work; clones share one state.
///
/// There are three ways, each of which goes further than the one before it, and none of them leads to a recovery point:
/// - [`cancel_gracefully`](Self::cancel_gracefully) lets disks that are being read come to their end, so that the next
///   backup finds them stored, begins no other, and undoes;
/// - [`cancel`](Self::cancel) stops reading at once and undoes: the snapshot is removed, the lock released;
/// - [`abandon`](Self::abandon) stops undoing too: all is left to the journal and the next run.
///
/// The work returns [`Error::Cancelled`], abandoned work [`Error::Abandoned`].
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    shared: Arc<Shared>,
    /// Whose cancelling cancels this one too.
    parent: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    level: AtomicU8,
    wake: Notify,
}

impl Shared {
    fn is_at(&self, level: u8) -> bool {
        self.level.load(Ordering::Acquire) >= level
    }

    async fn reached(&self, level: u8) {
        loop {
            // The waiter is registered before the level is read, so that no wake-up is missed.
            let mut woken = std::pin::pin!(self.wake.notified());
            woken.as_mut().enable();
            if self.is_at(level) {
                return;
            }
            woken.await;
        }
    }
}

const GRACEFUL: u8 = 1;
const CANCELLED: u8 = 2;
const ABANDONED: u8 = 3;

impl CancelToken {
    /// Makes a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a token that is cancelled with this one, and whose own cancelling leaves this one alone.
    pub(crate) fn child(&self) -> Self {
        debug_assert!(self.parent.is_none(), "a child has no children");
        Self { shared: Arc::default(), parent: Some(self.shared.clone()) }
    }

    /// Lets what is in the middle come to its end and begins nothing more. Work that cannot be stopped in that way is
    /// cancelled only by [`cancel`](Self::cancel).
    pub fn cancel_gracefully(&self) {
        self.raise(GRACEFUL);
    }

    /// Cancels; there is no way back.
    pub fn cancel(&self) {
        self.raise(CANCELLED);
    }

    /// Gives up the work as a crash would, and at once: what was done to a server stays, and is in the journal for the
    /// next run.
    pub fn abandon(&self) {
        self.raise(ABANDONED);
    }

    /// Tells whether the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.is_at(CANCELLED)
    }

    /// Tells whether the token was cancelled in any way, gracefully too.
    pub fn is_stopping(&self) -> bool {
        self.is_at(GRACEFUL)
    }

    /// Runs work that has to undo what it did, with a token of its own: when the caller drops the future, the work is
    /// cancelled and goes on in the background, on the runtime, until it has ended. The caller's token, which may be
    /// shared with other jobs, stays as it is.
    ///
    /// # Errors
    /// What `work` returns; [`Error::WriterStopped`] when it panicked.
    pub(crate) async fn outlive<T, W>(&self, work: impl FnOnce(Self) -> W) -> Result<T>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let token = self.child();
        let mut caller = CancelOnDrop { token: token.clone(), armed: true };
        let done = tokio::spawn(work(token)).await;
        caller.armed = false;
        done.unwrap_or_else(|error| Err(Error::WriterStopped { reason: format!("the job ended: {error}") }))
    }

    /// The same for work that notes its journal: given up, it is dropped where it waits, and the journal is free.
    ///
    /// # Errors
    /// [`Error::Abandoned`]; as [`outlive`](Self::outlive).
    pub(crate) async fn outlive_journaled<T, W>(&self, work: impl FnOnce(Self, Arc<Abandoned>) -> W) -> Result<T>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        self.outlive(|token: Self| {
            let journal = Arc::new(Abandoned::default());
            let work = work(token.clone(), journal.clone());
            async move { token.unless_abandoned(&journal, work).await }
        })
        .await
    }

    /// Runs work until it ends or is given up: it is dropped where it waits then, and its journal released.
    ///
    /// # Errors
    /// [`Error::Abandoned`], or what `work` returns.
    pub(crate) async fn unless_abandoned<T>(
        &self,
        journal: &Abandoned,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let done = tokio::select! {
            biased;
            () = self.abandoned() => None,
            done = work => Some(done),
        };
        match done {
            Some(done) => done,
            None => {
                journal.release().await;
                Err(Error::Abandoned)
            }
        }
    }

    /// Waits until the token is cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        self.reached(CANCELLED).await;
    }

    /// Cancels `other` in whatever way this one is, whenever it is: for tokens that have children of their own.
    pub(crate) async fn pass_on(&self, other: &Self) -> std::convert::Infallible {
        // The strongest first: who is abandoned must not begin to undo.
        tokio::select! {
            biased;
            () = self.abandoned() => {}
            () = self.cancelled() => {}
            () = self.stopping() => other.cancel_gracefully(),
        }
        tokio::select! {
            biased;
            () = self.abandoned() => {}
            () = self.cancelled() => other.cancel(),
        }
        self.abandoned().await;
        other.abandon();
        std::future::pending().await
    }

    /// Waits until the token is cancelled in any way, gracefully too.
    pub(crate) async fn stopping(&self) {
        self.reached(GRACEFUL).await;
    }

    /// Waits until the work is given up.
    pub(crate) async fn abandoned(&self) {
        self.reached(ABANDONED).await;
    }

    fn raise(&self, level: u8) {
        self.shared.level.fetch_max(level, Ordering::AcqRel);
        self.shared.wake.notify_waiters();
    }

    fn is_at(&self, level: u8) -> bool {
        self.shared.is_at(level) || self.parent.as_ref().is_some_and(|parent| parent.is_at(level))
    }

    async fn reached(&self, level: u8) {
        match &self.parent {
            None => self.shared.reached(level).await,
            Some(parent) => tokio::select! {
                () = self.shared.reached(level) => {}
                () = parent.reached(level) => {}
            },
        }
    }

    /// Returns what work ends with that was stopped before it had begun.
    pub(crate) fn ended(&self) -> Error {
        if self.is_at(ABANDONED) { Error::Abandoned } else { Error::Cancelled }
    }

    /// Returns an error when the token was cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Runs `work` until it ends or the token is cancelled, in which case `work` is dropped.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or what `work` returns.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }
}

/// Cancels work whose caller went away.
struct CancelOnDrop {
    token: CancelToken,
    armed: bool,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_a_waiter_and_stops_work() {
        let token = CancelToken::new();
        let other = token.clone();
        let waiter = tokio::spawn(async move { other.run(std::future::pending::<Result<()>>()).await });
        tokio::task::yield_now().await;
        token.cancel();
        assert!(matches!(waiter.await.unwrap(), Err(Error::Cancelled)));
        token.cancelled().await;
        assert!(token.check().is_err());
    }
    #[tokio::test]
    async fn a_child_is_cancelled_with_its_parent_and_not_the_other_way_round() {
        let parent = CancelToken::new();
        let (one, other) = (parent.child(), parent.child());
        one.cancel();
        one.cancelled().await;
        assert!(!parent.is_cancelled() && !other.is_cancelled());
        let waiter = {
            let other = other.clone();
            tokio::spawn(async move { other.cancelled().await })
        };
        tokio::task::yield_now().await;
        parent.cancel();
        waiter.await.unwrap();
        assert!(other.check().is_err());
    }

    #[tokio::test]
    async fn each_way_to_stop_includes_those_before_it() {
        let token = CancelToken::new();
        let seen = {
            let token = token.clone();
            tokio::spawn(async move { token.cancelled().await })
        };
        token.cancel_gracefully();
        token.stopping().await;
        tokio::task::yield_now().await;
        assert!(token.is_stopping() && !token.is_cancelled() && !seen.is_finished());
        token.abandon();
        token.abandoned().await;
        seen.await.unwrap();
        token.cancel_gracefully();
        assert!(token.is_cancelled(), "there is no way back");
    }
}
