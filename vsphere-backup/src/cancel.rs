//! Cancelling.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// A token by which a caller stops work; clones share one state.
///
/// A cancelled backup stops reading, removes its snapshot, releases its lock and returns
/// [`Error::Cancelled`]; no recovery point appears.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    shared: Arc<Shared>,
    /// Whose cancelling cancels this one too.
    parent: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    wake: Notify,
}

impl Shared {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    async fn cancelled(&self) {
        // The waiter is registered before the flag is read, so that no wake-up is missed.
        let mut woken = std::pin::pin!(self.wake.notified());
        woken.as_mut().enable();
        if !self.is_cancelled() {
            woken.await;
        }
    }
}

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

    /// Cancels; there is no way back.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
        self.shared.wake.notify_waiters();
    }

    /// Tells whether the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled() || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// Waits until the token is cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        match &self.parent {
            None => self.shared.cancelled().await,
            Some(parent) => tokio::select! {
                () = self.shared.cancelled() => {}
                () = parent.cancelled() => {}
            },
        }
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
}
