//! Requests in flight, by operation id, and what becomes of them when the connection fails.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::assembly::Assembly;
use super::range_lock::RangeGuard;
use crate::error::{Blame, Error, Phase, Result};
use crate::wire::aio::{Kind, MAX_PAYLOAD};

/// What the reader task, the writer task and all callers share.
pub(crate) struct Shared {
    pub(crate) blame: Blame,
    state: Mutex<State>,
    /// Bytes that may still be put in flight.
    budget: Arc<Semaphore>,
    /// Counts replies and fragments: whether the connection is in use.
    progress: AtomicU64,
    /// What is made of messages that nobody expects.
    pub(crate) policy: Policy,
}

/// What the reader does about messages that may or may not be harmless.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// The largest payload of a message of an unknown kind that is skipped.
    pub(crate) max_unknown: u32,
    /// An error for a request leaves the connection as it is.
    pub(crate) survive_errors: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_unknown: MAX_PAYLOAD, survive_errors: false }
    }
}

#[derive(Default)]
struct State {
    next_op: u32,
    pending: HashMap<u32, Pending>,
    /// The request that the reader task has taken out to work on: its id is in use all the same.
    at_work: Option<(u32, Due)>,
    failure: Option<Failure>,
    tasks: Vec<AbortHandle>,
}

impl State {
    fn in_use(&self, op_id: u32) -> bool {
        self.pending.contains_key(&op_id) || self.at_work.is_some_and(|(at_work, _)| at_work == op_id)
    }

    fn dues(&self) -> impl Iterator<Item = Due> {
        self.pending.values().map(|pending| pending.due).chain(self.at_work.map(|(_, due)| due))
    }
}

/// A request whose reply has not been seen whole.
pub(crate) struct Pending {
    pub(crate) due: Due,
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Result<Reply>>,
    /// Given up with the last byte of the reply, not when the caller loses interest.
    pub(crate) hold: Hold,
}

/// When the last byte of a reply has to be here.
///
/// Callers watch their own time. A caller that is gone does not, but others may wait for what its
/// request holds: they look at this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) phase: Phase,
    limit: Duration,
    at: Instant,
}

impl Due {
    /// A request in `phase` that is sent now and may take `limit`.
    pub(crate) fn within(phase: Phase, limit: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond the clock is as good as a year.
        let at = now.checked_add(limit).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { phase, limit, at }
    }
}

/// What the reply has to be like.
pub(crate) enum Work {
    /// Fragments of the bytes from `offset`.
    Read { offset: u64, assembly: Assembly },
    /// One reply, after the last fragment: `sent` is set when nothing but its tail is left to send.
    Write { offset: u64, total: u32, sent: Arc<AtomicBool> },
    /// One reply of `kind`; `chunks` counts those asked for in an allocation query.
    Call { kind: Kind, chunks: u64 },
}

impl Work {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } | Self::Write { .. } => Kind::Io,
            Self::Call { kind, .. } => *kind,
        }
    }
}

/// What a request holds while it is in flight.
#[derive(Default)]
pub(crate) struct Hold {
    pub(crate) _budget: Option<OwnedSemaphorePermit>,
    pub(crate) _range: Option<Arc<RangeGuard>>,
}

/// A whole reply.
pub(crate) enum Reply {
    /// The bytes of a read.
    Read(BytesMut),
    /// A write is done.
    Written,
    /// Payload and extra of any other reply.
    Call { payload: Vec<u8>, extra: Vec<u8> },
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It is gone.
    Lost(String),
    /// The server broke the protocol.
    Protocol(String),
}

impl Failure {
    pub(crate) fn to_error(&self, blame: &Blame, phase: Phase) -> Error {
        match self {
            Self::Lost(reason) => blame.lost(phase, reason.as_str()),
            Self::Protocol(what) => blame.protocol(phase, what.as_str()),
        }
    }
}

impl Shared {
    pub(crate) fn new(blame: Blame, budget: u64) -> Self {
        let permits = usize::try_from(budget).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            blame,
            state: Mutex::default(),
            budget: Arc::new(Semaphore::new(permits)),
            progress: AtomicU64::new(0),
            policy: Policy::default(),
        }
    }

    /// Takes `bytes` of the budget, first come, first served.
    pub(crate) async fn budget(&self, bytes: u32, phase: Phase, limit: Duration) -> Result<OwnedSemaphorePermit> {
        match self.in_time(limit, Arc::clone(&self.budget).acquire_many_owned(bytes)).await? {
            Ok(permit) => Ok(permit),
            Err(_closed) => Err(self.failure(phase)),
        }
    }

    /// Waits for something that requests in flight hold.
    ///
    /// It may take long, with much in front of it; but as soon as one of them is overdue the
    /// connection fails, whether or not its own caller is still there to notice.
    pub(crate) async fn in_time<T>(&self, limit: Duration, waiting: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            got = &mut waiting => return Ok(got),
            () = std::future::ready(()) => {}
        }
        loop {
            // What is sent after this look may be due earlier; `limit` bounds how late that is seen.
            let patience = limit.max(Duration::from_millis(1));
            let look_again = self.first_due().map_or(patience, |at| patience.min(at - Instant::now()));
            if let Ok(got) = tokio::time::timeout(look_again, &mut waiting).await {
                return Ok(got);
            }
            if let Some(late) = self.overdue() {
                return Err(self.timed_out(late.phase, late.limit));
            }
        }
    }

    /// When the first of the requests in flight is due.
    fn first_due(&self) -> Option<Instant> {
        self.state().dues().map(|due| due.at).min()
    }

    /// A request whose reply should have been here.
    fn overdue(&self) -> Option<Due> {
        let now = Instant::now();
        self.state().dues().find(|due| due.at <= now)
    }

    /// Enters a request and returns its operation id, which was not in use.
    pub(crate) fn enter(&self, pending: Pending) -> Result<u32> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.to_error(&self.blame, pending.due.phase));
        }
        while state.in_use(state.next_op) {
            state.next_op = state.next_op.wrapping_add(1);
        }
        let op_id = state.next_op;
        state.next_op = op_id.wrapping_add(1);
        state.pending.insert(op_id, pending);
        Ok(op_id)
    }

    /// Takes a request out, to work on a reply to it.
    pub(crate) fn take(&self, op_id: u32) -> Option<Pending> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let pending = state.pending.remove(&op_id)?;
        state.at_work = Some((op_id, pending.due));
        Some(pending)
    }

    /// The request that was taken out is done with.
    pub(crate) fn done(&self) {
        self.state().at_work = None;
    }

    /// Puts a request back that waits for more.
    pub(crate) fn put_back(&self, op_id: u32, pending: Pending) {
        let mut state = self.state();
        state.at_work = None;
        match &state.failure {
            None => {
                state.pending.insert(op_id, pending);
            }
            Some(failure) => {
                let _ = pending.reply.send(Err(failure.to_error(&self.blame, pending.due.phase)));
            }
        }
    }

    /// Ends the connection: every request in flight and every later one gets an error.
    ///
    /// Only the first failure counts.
    pub(crate) fn fail(&self, failure: Failure) {
        let (pending, tasks) = {
            let mut state = self.state();
            if state.failure.is_none() {
                tracing::debug!(endpoint = %self.blame.endpoint, ?failure, "NFC connection ended");
                state.failure = Some(failure);
            }
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.tasks))
        };
        self.budget.close();
        for (_, pending) in pending {
            let error = self.failure(pending.due.phase);
            // Whoever is gone does not want to know.
            let _ = pending.reply.send(Err(error));
        }
        for task in tasks {
            task.abort();
        }
    }

    /// Ends the connection because of a time-out in `phase`.
    pub(crate) fn timed_out(&self, phase: Phase, limit: Duration) -> Error {
        self.fail(Failure::Lost(format!("it was dropped after a time-out in {phase}")));
        self.blame.timeout(phase, limit)
    }

    /// The error for a request in `phase` on a connection that has failed.
    pub(crate) fn failure(&self, phase: Phase) -> Error {
        match &self.state().failure {
            Some(failure) => failure.to_error(&self.blame, phase),
            None => self.blame.lost(phase, "it was closed"),
        }
    }

    /// Whether requests can still be made.
    pub(crate) fn is_alive(&self) -> bool {
        self.state().failure.is_none()
    }

    /// Whether no request is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().pending.is_empty()
    }

    /// How many replies and fragments have come.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// A task to end with the connection.
    pub(crate) fn adopt(&self, task: AbortHandle) {
        let mut state = self.state();
        if state.failure.is_some() {
            task.abort();
        } else {
            state.tasks.push(task);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if it did, the table would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
