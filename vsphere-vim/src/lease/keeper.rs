//! The task that keeps a lease alive, and what it shares with the transfers.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use vsphere_vim_types::{MoRef, methods::HttpNfcLeaseProgress, mo};

use super::machine::{Action, Event, Machine};
use crate::{
    call::CallOptions,
    client::Vim,
    error::{Call, Error, ServerFault, TransportError},
};

/// Progress one way, failure the other.
#[derive(Debug)]
pub(super) struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    failure: Mutex<Option<Error>>,
    failed: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            failure: Mutex::new(None),
            failed: watch::Sender::new(false),
        }
    }

    /// States how many bytes there will be; 0 when nobody knows.
    pub(super) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts bytes that went through.
    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// 0 to 99: 100 is said by completing. 0 as long as the total is not known.
    pub(super) fn percent(&self) -> i32 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(0);
        percent.min(99) as i32
    }

    /// The reason why the lease is lost, if it is. Everybody who asks gets one.
    pub(super) fn failure(&self) -> Option<Error> {
        self.lock().as_ref().map(again)
    }

    /// Completes when the lease is lost.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut failed = self.failed.subscribe();
        async move {
            if failed.wait_for(|failed| *failed).await.is_err() {
                // The lease is gone with its owner; nobody can fail it any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn fail(&self, error: Error) {
        *self.lock() = Some(error);
        self.failed.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports progress until the lease is lost; whoever ends it in another way stops the task.
pub(super) async fn keep(
    vim: Vim,
    lease: MoRef<mo::HttpNfcLease>,
    shared: std::sync::Arc<Shared>,
    mut machine: Machine,
    started: Instant,
) {
    let mut event = Event::Tick;
    let mut last = None;
    loop {
        match machine.step(started.elapsed(), event) {
            Action::Wait(until) => {
                sleep_until(started + until).await;
                event = Event::Tick;
            }
            Action::Report => {
                let args = HttpNfcLeaseProgress { percent: shared.percent(), ..Default::default() };
                // Whether and when to try again is the machine's affair: it knows how long the lease lives.
                let limit = vim.settings().request_timeout.min(LONGEST_REPORT);
                let options = CallOptions::default().idempotent(false).timeout(limit);
                event = match vim.invoke_with(&lease, args, options).await {
                    Ok(()) => Event::Reported,
                    Err(error) => {
                        let passing = error.is_retryable();
                        tracing::warn!(%lease, %error, passing, "progress could not be reported");
                        last = Some(error);
                        Event::Unreported { passing }
                    }
                };
            }
            Action::Ready => event = Event::Tick,
            Action::Fail(_) => {
                let unknown =
                    || Error::protocol(Call::on("HttpNfcLeaseProgress", lease.as_untyped()), "the lease ended");
                shared.fail(last.take().unwrap_or_else(unknown));
                return;
            }
        }
    }
}

/// The same error for another reader.
fn again(error: &Error) -> Error {
    match error {
        Error::Fault(fault) => Error::Fault(Box::new(ServerFault {
            call: fault.call.clone(),
            fault: fault.fault.clone(),
            message: fault.message.clone(),
        })),
        Error::Transport(error) => {
            let source = TransportError::new(error.source.kind(), error.source.to_string());
            Error::transport(&error.call.operation, source)
        }
        other => Error::protocol(Call::named("HttpNfcLeaseProgress"), other.to_string()),
    }
}

/// Longest wait for an answer to a report: leases live for minutes.
const LONGEST_REPORT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_numbers_whatever_is_known() {
        let shared = Shared::new();
        shared.add(1000);
        assert_eq!(shared.percent(), 0);
        shared.expect(3000);
        assert_eq!(shared.percent(), 33);
        shared.add(u64::MAX / 2);
        assert_eq!(shared.percent(), 99);
        shared.expect(u64::MAX);
        assert_eq!(shared.percent(), 50);
    }
}
