//! Waiting for updates: set up, ask, heal, tear down. Watches and waits for tasks stand on it.
//!
//! A waiter knows where it is in the server's story (the version) and how to begin the story anew when the session,
//! the collector or the version is gone. What the updates mean is not its business.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use vsphere_vim_types::{ManagedObjectNotFound, ManagedObjectReference, MoRef, UpdateSet, WaitOptions, methods, mo};

use super::{
    pages::Source,
    remote::{Remote, cancel_wait},
};
use crate::{
    call::{CallOptions, SessionUse},
    client::Vim,
    error::{Error, Result},
};

/// With which call the server is asked for updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateCall {
    /// The server answers when something changed or some time has passed, in pages. Since 4.1, and the default there.
    WaitForUpdatesEx,
    /// The server answers when something changed, in one piece; a wait that has lasted long enough is cancelled.
    /// The default before 4.1.
    WaitForUpdates,
    /// The server answers at once and is asked again after this time. For proxies that cut long calls off.
    CheckForUpdates {
        /// Between two questions.
        every: Duration,
    },
}

/// What came of a wait.
#[derive(Debug)]
pub(crate) enum Heard {
    /// What follows is told from the beginning, with these filters, one for each source.
    Began(Vec<MoRef<mo::PropertyFilter>>),
    /// News.
    Update(UpdateSet),
    /// None, although there was time for them.
    Nothing,
    /// None, and the answer came without waiting for any.
    Hasty,
    /// Another task has ended the wait.
    Woken,
}

/// A place in the server's story about some objects.
#[derive(Debug)]
pub(crate) struct Waiter {
    vim: Vim,
    sources: Vec<Source>,
    call: UpdateCall,
    /// Objects in one answer; `None` leaves it to the server.
    page_size: Option<u32>,
    remote: Option<Remote>,
    /// The version to go on from; empty at the beginning.
    version: String,
    /// The filters were announced.
    announced: bool,
    /// It stood once: what is missing since then has gone.
    stood: bool,
    /// The login in which it was set up, or in which that was tried.
    generation: u64,
    remakes: u32,
    bell: Bell,
}

impl Waiter {
    pub(crate) fn new(vim: Vim, sources: Vec<Source>) -> Self {
        let call = match vim.version().is_at_least(OPTIONS_SINCE) {
            true => UpdateCall::WaitForUpdatesEx,
            false => UpdateCall::WaitForUpdates,
        };
        Self {
            vim,
            sources,
            call,
            page_size: None,
            remote: None,
            version: String::new(),
            announced: false,
            stood: false,
            generation: 0,
            remakes: 0,
            bell: Bell::default(),
        }
    }

    pub(crate) fn call(self, call: UpdateCall) -> Self {
        Self { call, ..self }
    }

    pub(crate) fn page_size(self, page_size: Option<u32>) -> Self {
        Self { page_size, ..self }
    }

    pub(crate) fn vim(&self) -> &Vim {
        &self.vim
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Waits for the next news, for no longer than `patience`; with none, only asks for what there is already.
    ///
    /// Cancel safe: the version advances only with a complete answer. After an error it may be called again.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Heard> {
        loop {
            if self.bell.take() {
                return Ok(Heard::Woken);
            }
            if self.remote.is_none() {
                self.generation = self.vim.session().generation();
                match Remote::set_up(&self.vim, &self.sources).await {
                    Ok(remote) => {
                        self.generation = remote.generation;
                        self.remote = Some(remote);
                        self.begin_again();
                    }
                    Err(error) => self.recover(error).await?,
                }
                continue;
            }
            if let Some(remote) = self.remote.as_ref().filter(|_| !self.announced) {
                self.announced = true;
                return Ok(Heard::Began(remote.filters.clone()));
            }
            let asked = Instant::now();
            match self.ask(patience).await {
                Ok(None) if self.bell.is_rung() => {}
                Err(error) if error.is_fault("RequestCanceled") && self.bell.is_rung() => {}
                Ok(update) => match self.weigh(update, patience, asked.elapsed()).await {
                    Ok(Some(heard)) => return Ok(heard),
                    Ok(None) => {}
                    Err(error) => self.recover(error).await?,
                },
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Destroys what the server holds and waits for that.
    pub(crate) async fn finish(mut self) {
        if let Some(remote) = self.remote.take() {
            remote.destroy().await;
        }
    }

    async fn ask(&mut self, patience: Duration) -> Result<Option<UpdateSet>> {
        let Some(remote) = &mut self.remote else { return Ok(None) };
        let collector = remote.collector.clone();
        if std::mem::replace(&mut remote.waiting, true) {
            // Of an earlier wait only the answer was given up; the server may still be at it.
            cancel_wait(&self.vim, &collector).await;
        }
        let answer = {
            let mut answer = pin!(self.question(&collector, patience));
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                () = self.bell.rung() => {
                    cancel_wait(&self.vim, &collector).await;
                    match timeout(FAREWELL, &mut answer).await {
                        Ok(answer) => answer,
                        // The cancellation has overtaken the question. It is sent again before the next one.
                        Err(_) => return Ok(None),
                    }
                }
            }
        };
        if let Some(remote) = &mut self.remote {
            remote.waiting = false;
        }
        answer
    }

    /// One question, or several where the server does not wait by itself.
    async fn question(
        &self,
        collector: &MoRef<mo::PropertyCollector>,
        patience: Duration,
    ) -> Result<Option<UpdateSet>> {
        let first = self.version.is_empty();
        let version = Some(self.version.clone());
        match self.call {
            UpdateCall::WaitForUpdatesEx => {
                let options = WaitOptions {
                    max_wait_seconds: Some(whole_seconds(patience)),
                    max_object_updates: self.page_size.map(|size| i32::try_from(size).unwrap_or(i32::MAX)),
                    ..Default::default()
                };
                let args = methods::WaitForUpdatesEx { version, options: Some(options), ..Default::default() };
                self.vim.invoke_with(collector, args, long_poll(patience, first)).await
            }
            UpdateCall::WaitForUpdates if !patience.is_zero() => {
                let args = methods::WaitForUpdates { version, ..Default::default() };
                let mut answer = pin!(self.vim.invoke_with(collector, args, long_poll(patience, first)));
                if let Ok(answer) = timeout(patience, &mut answer).await {
                    return answer.map(Some);
                }
                cancel_wait(&self.vim, collector).await;
                match answer.await {
                    Err(error) if error.is_fault("RequestCanceled") => Ok(None),
                    answer => answer.map(Some),
                }
            }
            UpdateCall::WaitForUpdates | UpdateCall::CheckForUpdates { .. } => {
                let until = Instant::now() + patience;
                let every = match self.call {
                    UpdateCall::CheckForUpdates { every } => every.max(SHORTEST_INTERVAL),
                    _ => SHORTEST_INTERVAL,
                };
                loop {
                    let args = methods::CheckForUpdates { version: version.clone(), ..Default::default() };
                    let update = self.vim.invoke_with(collector, args, long_poll(Duration::ZERO, first)).await;
                    let next = Instant::now() + every;
                    if !matches!(update, Ok(None)) || next > until {
                        return update;
                    }
                    tokio::time::sleep_until(next).await;
                }
            }
        }
    }

    /// Takes note of an answer; `None` when there is to be another question first.
    async fn weigh(&mut self, update: Option<UpdateSet>, patience: Duration, took: Duration) -> Result<Option<Heard>> {
        let first = self.version.is_empty();
        let bare = update.as_ref().is_none_or(|update| update.filter_set.is_empty() && update.truncated != Some(true));
        let said = first && update.is_some();
        let hasty = bare && !said && patience >= HASTY && took < HASTY;
        // Nothing at all is also what an expired session gets to see.
        if (bare && first || hasty)
            && !self.vim.session_is_alive().await?
            && self.remakes < MAX_REMAKES
            && self.vim.log_in_again(self.generation).await?
        {
            self.remakes += 1;
            self.lose();
            return Ok(None);
        }
        if !hasty {
            self.remakes = 0;
        }
        if let Some(update) = update {
            self.version.clone_from(&update.version);
            if !bare || said {
                return Ok(Some(Heard::Update(update)));
            }
        }
        Ok(Some(if hasty { Heard::Hasty } else { Heard::Nothing }))
    }

    /// Decides whether the wait can go on after an error, and prepares it.
    async fn recover(&mut self, error: Error) -> Result<()> {
        if self.remakes >= MAX_REMAKES {
            self.remakes = 0;
            return Err(error);
        }
        self.remakes += 1;
        // Somebody else has ended the wait.
        if error.is_fault("RequestCanceled") {
            return Ok(());
        }
        if error.is_fault("InvalidCollectorVersion") {
            self.begin_again();
            return Ok(());
        }
        let lost = error.is_fault("NotAuthenticated") || self.vim.session().generation() != self.generation;
        if lost && self.vim.log_in_again_if_dead(self.generation, &error).await? {
            self.lose();
            return Ok(());
        }
        if let Some(gone) = error.fault::<ManagedObjectNotFound>().map(|fault| &fault.obj) {
            // Somebody else has destroyed the collector, or the server has forgotten it and not the session.
            if self.remote.as_ref().is_some_and(|remote| remote.collector.as_untyped() == gone) {
                self.lose();
                return Ok(());
            }
            // One of the objects went while nobody looked.
            if self.stood && self.remote.is_none() && self.strike_out(gone) {
                return Ok(());
            }
        }
        Err(error)
    }

    /// Takes an object out of the list of those that are looked at by name; false when it is not the only thing that
    /// its filter is about.
    fn strike_out(&mut self, gone: &ManagedObjectReference) -> bool {
        self.sources.iter_mut().any(|source| match source {
            Source::Filter(filter) => filter.strike_out(gone),
            Source::View(..) => false,
        })
    }

    fn begin_again(&mut self) {
        self.version.clear();
        self.announced = false;
        self.stood = true;
    }

    /// The collector went with its session.
    fn lose(&mut self) {
        if let Some(remote) = self.remote.take() {
            remote.forget();
        }
        self.begin_again();
    }
}

/// Ends the wait of another task: that sees [`Heard::Woken`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<(AtomicBool, Notify)>);

impl Bell {
    /// Rings: the present wait ends, or else the next one.
    pub(crate) fn ring(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_one();
    }

    async fn rung(&self) {
        while !self.is_rung() {
            self.0.1.notified().await;
        }
    }

    fn is_rung(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        self.0.0.swap(false, Ordering::AcqRel)
    }
}

fn long_poll(patience: Duration, first: bool) -> CallOptions {
    let margin = if first { FIRST_ANSWER_MARGIN } else { ANSWER_MARGIN };
    CallOptions::long_poll(patience + margin).session(SessionUse::Report)
}

fn whole_seconds(patience: Duration) -> i32 {
    i32::try_from(patience.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Below the time-outs of proxies and of ours: the server answers with nothing after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(50);

/// How much later than promised the answer may come.
const ANSWER_MARGIN: Duration = Duration::from_secs(60);

/// The same for the first answer, which is more work. Over a large inventory it has taken two minutes.
const FIRST_ANSWER_MARGIN: Duration = Duration::from_secs(240);

/// Times in a row that the wait is set up anew without any answer in between.
const MAX_REMAKES: u32 = 5;

/// An answer without news that comes sooner than this did not wait for news.
pub(crate) const HASTY: Duration = Duration::from_secs(1);

/// How long a cancelled wait may take to answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// A server is not asked more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// `WaitForUpdatesEx` and its options came with vSphere 4.1.
const OPTIONS_SINCE: &str = "4.1";
