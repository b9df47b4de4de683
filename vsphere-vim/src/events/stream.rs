//! Events as a stream: a collector on the server, read forward, destroyed when nobody reads it any more.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use vsphere_vim_types::{Event, EventFilterSpec, MoRef, Poly as OpenSlot, methods, mo};

use super::{Events, filter::event_manager};
use crate::{
    call::{CallOptions, SessionUse},
    client::Vim,
    error::{Error, Result},
    paged::{Paged, Pages},
};

/// Events, oldest first: a [`Stream`], with [`EventStream::try_next`] for those without combinators.
///
/// When the session dies in the middle, a new collector goes on behind the last event that was delivered. Dropping the
/// stream destroys the collector (in the background, when a tokio runtime is at hand).
#[must_use]
pub struct EventStream {
    inner: Paged<Reader>,
}

impl EventStream {
    pub(super) fn new(question: Events) -> Self {
        let Events { vim, filter, page, follow } = question;
        Self { inner: Paged::new(Reader { vim, filter, page, follow, collector: None, last: None, asked: false }) }
    }

    /// The next event; `None` at the end of the history, never when the stream follows it.
    ///
    /// # Errors
    /// `InvalidState` when the server allows no more collectors, `InvalidArgument` for a filter that it does not
    /// understand. After an error the stream ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn try_next(&mut self) -> Result<Option<OpenSlot<Event>>> {
        std::future::poll_fn(|cx| self.inner.poll_item(cx)).await.transpose()
    }
}

impl Stream for EventStream {
    type Item = Result<OpenSlot<Event>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().inner.poll_item(cx)
    }
}

impl Unpin for EventStream {}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

struct Reader {
    vim: Vim,
    filter: EventFilterSpec,
    page: i32,
    follow: Option<Duration>,
    collector: Option<MoRef<mo::EventHistoryCollector>>,
    /// The key of the last event that was delivered. Keys ascend.
    last: Option<i32>,
    /// Whether the history has been read to its end once.
    asked: bool,
}

impl Pages for Reader {
    type Item = OpenSlot<Event>;

    async fn next_page(&mut self) -> Result<Option<Vec<Self::Item>>> {
        if self.asked
            && let Some(interval) = self.follow
        {
            tokio::time::sleep(interval).await;
        }
        let generation = self.vim.session().generation();
        let mut events = match self.read().await {
            Ok(events) => events,
            Err(error) if died_with_session(&error) => {
                // The collector went with the session; a new one begins at the beginning again.
                self.collector = None;
                if !self.vim.log_in_again_if_dead(generation, &error).await? {
                    return Err(error);
                }
                self.read().await?
            }
            Err(error) => return Err(error),
        };
        if events.is_empty() {
            self.asked = true;
            return Ok(self.follow.map(|_| events));
        }
        self.asked = false;
        // Servers differ in the order within a page; keys tell the order of events.
        events.sort_by_key(|event| event.key);
        if let Some(last) = self.last {
            events.retain(|event| event.key > last);
        }
        self.last = events.last().map(|event| event.key).or(self.last);
        Ok(Some(events))
    }

    async fn finish(self) {
        let Some(collector) = self.collector else { return };
        let options = CallOptions::default().session(SessionUse::Report);
        let collector: MoRef<mo::HistoryCollector> = collector.as_untyped().cast();
        match self.vim.invoke_with(&collector, methods::DestroyCollector::default(), options).await {
            Ok(()) => {}
            Err(error) if died_with_session(&error) => {}
            Err(error) => tracing::debug!(%collector, %error, "an event collector was left to the end of the session"),
        }
    }
}

impl Reader {
    async fn read(&mut self) -> Result<Vec<OpenSlot<Event>>> {
        let collector = match &self.collector {
            Some(open) => open.clone(),
            None => self.open().await?,
        };
        // Reading moves the collector's position, so the call is neither healed nor repeated.
        let options = CallOptions::default().session(SessionUse::Report);
        let args = methods::ReadNextEvents { max_count: self.page, ..Default::default() };
        self.vim.invoke_with(&collector, args, options).await
    }

    /// Makes a collector that stands before the oldest event.
    async fn open(&mut self) -> Result<MoRef<mo::EventHistoryCollector>> {
        let filter = EventFilterSpec { max_count: Some(self.page), ..self.filter.clone() };
        let args = methods::CreateCollectorForEvents { filter, ..Default::default() };
        let collector = self.vim.invoke(&event_manager(&self.vim)?, args).await?;
        // Known from here on, so that it is destroyed whatever happens next.
        self.collector = Some(collector.clone());
        let base: MoRef<mo::HistoryCollector> = collector.as_untyped().cast();
        let options = CallOptions::default().session(SessionUse::Report);
        self.vim.invoke_with(&base, methods::RewindCollector::default(), options).await?;
        Ok(collector)
    }
}

/// The collector went with the session that owned it.
fn died_with_session(error: &Error) -> bool {
    error.is_fault("NotAuthenticated") || error.is_fault("ManagedObjectNotFound")
}
