//! The result of an operation that another thread carries out.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use super::error::{Error, Result};

/// What an operation will give: a future, and something to wait for on a thread that may block.
///
/// The operation goes on when its answer is dropped.
#[must_use = "the operation's result is lost"]
pub struct Answer<T> {
    shared: Arc<Shared<T>>,
}

/// The other end. Dropped without an answer, it answers that the thread is gone.
pub(super) struct Asker<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

enum State<T> {
    Open(Option<Waker>),
    Arrived(Result<T>),
    Taken,
}

/// An answer that is not there yet.
pub(super) fn answer<T>() -> (Asker<T>, Answer<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Open(None)), arrived: Condvar::new() });
    (Asker { shared: Arc::clone(&shared) }, Answer { shared })
}

impl<T> Answer<T> {
    /// Waits for it, blocking the thread.
    ///
    /// # Errors
    /// The operation's.
    pub fn wait(self) -> Result<T> {
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = state.take() {
                return result;
            }
            state = self.shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn ready(result: Result<T>) -> Self {
        let (asker, answer) = answer();
        asker.give(result);
        answer
    }
}

impl<T> Asker<T> {
    pub(super) fn give(self, result: Result<T>) {
        self.shared.give(result);
    }
}

impl<T> Drop for Asker<T> {
    fn drop(&mut self) {
        self.shared.give(Err(Error::ThreadGone));
    }
}

impl<T> Shared<T> {
    /// Only the first counts.
    fn give(&self, result: Result<T>) {
        let mut state = self.lock();
        let State::Open(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Arrived(result);
        drop(state);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Result<T>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Arrived(result) => Some(result),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        if let Some(result) = state.take() {
            return Poll::Ready(result);
        }
        if let State::Open(waker) = &mut *state {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_arrive_from_another_thread() {
        let (asker, answer) = answer();
        let thread = std::thread::spawn(move || asker.give(Ok(7)));
        assert_eq!(answer.wait().unwrap(), 7);
        thread.join().unwrap();
    }

    #[test]
    fn an_asker_that_vanishes_is_an_error_and_not_a_wait_without_end() {
        let (asker, answer) = answer::<()>();
        drop(asker);
        assert!(matches!(answer.wait(), Err(Error::ThreadGone)));
    }

    #[test]
    fn the_waker_is_called() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(Arc::clone(&count));
        let (asker, mut answer) = answer();
        assert!(Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)).is_pending());
        asker.give(Ok("here"));
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        let Poll::Ready(Ok("here")) = Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)) else { panic!() };
    }
}
