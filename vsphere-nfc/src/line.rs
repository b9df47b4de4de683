//! The connection of an open disk, and its successors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::aio::{self, Connection, RangeLock};
use crate::disk::Mode;
use crate::error::{Error, Phase, Result};
use crate::ladder::{self, Target};
use crate::options::Buffers;
use crate::retry::Patience;

/// Keeps a disk connected: hands out the latest connection, and makes a new one where the last was
/// lost, the disk is open for reading, and the options allow it.
pub(crate) struct Line {
    target: Target,
    ranges: Arc<RangeLock>,
    latest: Mutex<Arc<Connection>>,
    /// Smaller than wished for once the host ran out of memory.
    buffers: Mutex<Buffers>,
    /// Held while connecting again, so that one caller does it for all; why it failed last.
    reopening: tokio::sync::Mutex<Option<Error>>,
    /// Counts the ends of attempts to connect again.
    attempts: AtomicU64,
}

impl Line {
    pub(crate) async fn open(target: Target, ranges: Arc<RangeLock>) -> Result<Self> {
        let connection = ladder::connect(&target, target.options.buffers).await?;
        Ok(Self::over(connection, target, ranges))
    }

    /// A line that begins with `connection`.
    pub(crate) fn over(connection: Connection, target: Target, ranges: Arc<RangeLock>) -> Self {
        let connection = Arc::new(connection);
        aio::keep_alive(&connection, &ranges, &target.options);
        Self {
            buffers: Mutex::new(target.options.buffers),
            target,
            ranges,
            latest: Mutex::new(connection),
            reopening: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The latest connection, which may be dead.
    pub(crate) fn latest(&self) -> Arc<Connection> {
        Arc::clone(&lock(&self.latest))
    }

    /// What a call has to spend on new tries.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.target.options.retry)
    }

    /// A connection that works: the latest, or a new one where that is allowed.
    pub(crate) async fn connection(&self, phase: Phase) -> Result<Arc<Connection>> {
        let latest = self.latest();
        if latest.is_alive() {
            return Ok(latest);
        }
        if !self.may_reopen() {
            return Err(latest.failure(phase));
        }
        self.replace(false).await
    }

    /// Makes a new connection, whatever the old one is like.
    pub(crate) async fn reopen(&self) -> Result<()> {
        self.replace(true).await.map(drop)
    }

    /// Takes an error of a request on `connection`: returns when it is worth trying again.
    ///
    /// # Errors
    /// The same error, when it is not.
    pub(crate) async fn survive(&self, error: Error, connection: &Connection, patience: &mut Patience) -> Result<()> {
        let passing = matches!(error, Error::Disconnected { .. }) || ladder::is_out_of_memory(&error);
        if !passing || !self.may_reopen() || connection.is_alive() || !patience.wait().await {
            return Err(error);
        }
        if ladder::is_out_of_memory(&error) {
            *lock(&self.buffers) = ladder::fewer(connection.buffers, &self.target.options);
        }
        tracing::debug!(path = %self.target.path, %error, "trying again");
        Ok(())
    }

    /// Waits for its turn, and makes a new connection if nobody else did.
    async fn replace(&self, forced: bool) -> Result<Arc<Connection>> {
        let before = self.attempts.load(Ordering::SeqCst);
        let mut last_error = self.reopening.lock().await;
        let latest = self.latest();
        if forced && latest.is_alive() {
            // Only one may have the disk for writing. An error may mean that writes are not durable.
            latest.close(&self.target.options).await?;
        } else if latest.is_alive() {
            return Ok(latest);
        } else if forced {
            // Whoever asks knows more than the last one who tried.
        } else if let Some(error) = last_error.as_ref().filter(|_| self.attempts.load(Ordering::SeqCst) != before) {
            // Someone tried for a while as this call was waiting: it would fare no better.
            return Err(error.clone());
        }
        let connected = self.connect_again(&latest).await;
        self.attempts.fetch_add(1, Ordering::SeqCst);
        *last_error = connected.as_ref().err().cloned();
        connected
    }

    async fn connect_again(&self, lost: &Connection) -> Result<Arc<Connection>> {
        let path = &self.target.path;
        tracing::info!(%path, lost = %lost.failure(Phase::Idle), "connecting again");
        let buffers = *lock(&self.buffers);
        let mut patience = self.patience();
        let fresh = loop {
            match ladder::connect(&self.target, buffers).await {
                Ok(fresh) => break fresh,
                Err(error) => {
                    // For memory it has waited already.
                    let worth_it = error.is_retryable() && !ladder::is_out_of_memory(&error);
                    if !worth_it || !patience.wait().await {
                        return Err(error);
                    }
                    tracing::debug!(%path, %error, "connecting again failed");
                }
            }
        };
        let (old, new) = (&lost.blame().endpoint, &fresh.blame().endpoint);
        if old != new {
            tracing::info!(%path, %old, %new, "the disk is on another host now");
        }
        if fresh.disk.capacity != lost.disk.capacity || fresh.disk.sector_size != lost.disk.sector_size {
            let what = "the disk has another size after connecting again";
            return Err(fresh.blame().protocol(Phase::OpenFile, what));
        }
        let fresh = Arc::new(fresh);
        aio::keep_alive(&fresh, &self.ranges, &self.target.options);
        *lock(&self.latest) = Arc::clone(&fresh);
        Ok(fresh)
    }

    fn may_reopen(&self) -> bool {
        self.target.mode == Mode::ReadOnly && self.target.options.reconnect
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Others may hold the connection for a while: the task that keeps it alive waits for an answer.
        self.latest().abandon();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
