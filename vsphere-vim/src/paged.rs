//! Streams of what the server gives out page by page, and what has to be undone when they end early.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use crate::{error::Result, transport::BoxFuture};

/// Where pages come from.
pub(crate) trait Pages: Send + Sized + 'static {
    type Item: Send + 'static;

    /// The next page, which may be empty; `None` at the end.
    fn next_page(&mut self) -> impl Future<Output = Result<Option<Vec<Self::Item>>>> + Send;

    /// What the server keeps for the pages that nobody will ask for, to be given back.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// A stream of items. After an error it ends. Whether it is read to its end, fails or is dropped: the source is
/// finished, in the background where nobody waits.
pub(crate) struct Paged<P: Pages> {
    page: VecDeque<P::Item>,
    source: Progress<P>,
}

type Fetch<P> = BoxFuture<'static, (P, Result<Option<Vec<<P as Pages>::Item>>>)>;

enum Progress<P: Pages> {
    Idle(P),
    Fetching(Fetch<P>),
    Finishing(BoxFuture<'static, ()>, Option<crate::Error>),
    Over,
}

impl<P: Pages> Paged<P> {
    pub(crate) fn new(source: P) -> Self {
        Self { page: VecDeque::new(), source: Progress::Idle(source) }
    }

    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<P::Item>>> {
        loop {
            if let Some(item) = self.page.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            match std::mem::replace(&mut self.source, Progress::Over) {
                Progress::Over => return Poll::Ready(None),
                Progress::Idle(mut source) => {
                    self.source = Progress::Fetching(Box::pin(async move {
                        let page = source.next_page().await;
                        (source, page)
                    }));
                }
                Progress::Fetching(mut fetch) => {
                    let polled = fetch.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.source = Progress::Fetching(fetch);
                    }
                    let (source, page) = ready!(polled);
                    self.source = match page {
                        Ok(Some(items)) => {
                            self.page = items.into();
                            Progress::Idle(source)
                        }
                        Ok(None) => Progress::Finishing(Box::pin(source.finish()), None),
                        Err(error) => Progress::Finishing(Box::pin(source.finish()), Some(error)),
                    };
                }
                Progress::Finishing(mut work, error) => {
                    if work.as_mut().poll(cx).is_pending() {
                        self.source = Progress::Finishing(work, error);
                        return Poll::Pending;
                    }
                    return Poll::Ready(error.map(Err));
                }
            }
        }
    }
}

impl<P: Pages> Drop for Paged<P> {
    fn drop(&mut self) {
        let source = std::mem::replace(&mut self.source, Progress::Over);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        match source {
            Progress::Over => {}
            Progress::Idle(source) => drop(runtime.spawn(source.finish())),
            // What is being fetched may be the very thing that has to be given back.
            Progress::Fetching(fetch) => drop(runtime.spawn(async move { fetch.await.0.finish().await })),
            Progress::Finishing(work, _) => drop(runtime.spawn(work)),
        }
    }
}
