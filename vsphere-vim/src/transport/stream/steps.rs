//! Streams made of an async step, or of a poll function.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::transport::BoxFuture;

/// A stream that runs `step` for every item: from a state to the next state and the item, `None` at the end.
///
/// Nothing runs while nobody polls, and dropping the stream drops the running step.
pub(crate) fn steps<S, T>(
    state: S,
    step: impl FnMut(S) -> BoxFuture<'static, (S, Option<T>)> + Send + 'static,
) -> impl Stream<Item = T> + Send + Unpin
where
    S: Send + 'static,
    T: 'static,
{
    Steps { progress: Progress::Idle(state), step }
}

/// A stream of what `poll` yields.
pub(super) fn mapped<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>) -> impl Stream<Item = T> {
    Mapped { poll }
}

struct Steps<S, T, F> {
    progress: Progress<S, T>,
    step: F,
}

enum Progress<S, T> {
    Idle(S),
    Running(BoxFuture<'static, (S, Option<T>)>),
    Over,
}

impl<S, T, F: FnMut(S) -> BoxFuture<'static, (S, Option<T>)>> Stream for Steps<S, T, F>
where
    Self: Unpin,
{
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.progress, Progress::Over) {
                Progress::Over => return Poll::Ready(None),
                Progress::Idle(state) => this.progress = Progress::Running((this.step)(state)),
                Progress::Running(mut step) => {
                    let polled = step.as_mut().poll(cx);
                    if polled.is_pending() {
                        this.progress = Progress::Running(step);
                    }
                    let (state, item) = ready!(polled);
                    if item.is_some() {
                        this.progress = Progress::Idle(state);
                    }
                    return Poll::Ready(item);
                }
            }
        }
    }
}

impl<S, T, F> Unpin for Steps<S, T, F> {}

struct Mapped<F> {
    poll: F,
}

impl<F> Unpin for Mapped<F> {}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>>> Stream for Mapped<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.poll)(cx)
    }
}
