//! What a consumer has not taken yet: every state, and of progress the newest.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

use super::{TaskChange, TaskEvent, TaskId};

/// Events of a tree of tasks: a stream that ends when the tree does.
///
/// No state is lost, however slow the consumer is; of progress it gets the newest of each task. So what waits is
/// bounded by the number of states: each comes with at most one line of progress.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct TaskEvents {
    shared: Arc<Mutex<Waiting>>,
}

impl TaskEvents {
    pub(super) fn new() -> (Self, Feed) {
        let shared = Arc::new(Mutex::new(Waiting::default()));
        let feed = Feed { shared: Arc::downgrade(&shared) };
        (Self { shared }, feed)
    }

    /// Takes what waits now, without waiting for more.
    pub fn try_next(&mut self) -> Option<TaskEvent> {
        lock(&self.shared).pop()
    }
}

impl Stream for TaskEvents {
    type Item = TaskEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TaskEvent>> {
        let mut waiting = lock(&self.shared);
        match waiting.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if waiting.closed => Poll::Ready(None),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The end into which events go. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Feed {
    shared: std::sync::Weak<Mutex<Waiting>>,
}

impl Feed {
    /// Passes an event on; `false` when nobody listens any more.
    pub(super) fn push(&self, event: &TaskEvent) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let waker = {
            let mut waiting = lock(&shared);
            waiting.push(event.clone());
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut waiting = lock(&shared);
            waiting.closed = true;
            let waker = waiting.waker.take();
            drop(waiting);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TaskEvent>,
    /// How many were taken: the number of the first that waits.
    taken: u64,
    /// By task, the number of its progress, where no state of it came behind.
    progress: HashMap<TaskId, u64>,
    waker: Option<Waker>,
    closed: bool,
}

impl Waiting {
    fn push(&mut self, event: TaskEvent) {
        if let TaskChange::Progress(_) = event.change {
            let number = self.taken + self.events.len() as u64;
            match self.progress.get(&event.task) {
                Some(&before) if before >= self.taken => {
                    let at = (before - self.taken) as usize;
                    self.events[at] = event;
                    return;
                }
                _ => drop(self.progress.insert(event.task, number)),
            }
        } else {
            self.progress.remove(&event.task);
        }
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<TaskEvent> {
        let event = self.events.pop_front()?;
        if self.progress.get(&event.task) == Some(&self.taken) {
            self.progress.remove(&event.task);
        }
        self.taken += 1;
        Some(event)
    }
}

fn lock(shared: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Figures, Outcome};

    fn progress(task: u64, read: u64) -> TaskEvent {
        let figures = Figures { read, ..Default::default() };
        TaskEvent { task: TaskId(task), parent: None, change: TaskChange::Progress(figures) }
    }

    fn state(task: u64, text: &str) -> TaskEvent {
        TaskEvent { task: TaskId(task), parent: None, change: TaskChange::Phase(text.into()) }
    }

    #[tokio::test]
    async fn a_stream_wakes_and_ends() {
        let (mut events, feed) = TaskEvents::new();
        let waiter = tokio::spawn(async move {
            let first = events.next().await;
            (first, events.next().await)
        });
        tokio::task::yield_now().await;
        assert!(feed.push(&state(1, "a")));
        drop(feed);
        assert_eq!(waiter.await.unwrap(), (Some(state(1, "a")), None));
        let (events, feed) = TaskEvents::new();
        drop(events);
        assert!(!feed.push(&state(1, "b")));
    }

    #[test]
    fn a_consumer_that_sleeps_costs_no_memory_for_progress() {
        let (mut events, feed) = TaskEvents::new();
        for read in 0..100_000 {
            feed.push(&progress(read % 3, read));
        }
        feed.push(&TaskEvent { task: TaskId(0), parent: None, change: TaskChange::Ended(Outcome::Done) });
        assert_eq!(lock(&events.shared).events.len(), 4);
        assert_eq!(events.try_next(), Some(progress(0, 99_999)));
    }

    proptest! {
        #[test]
        fn every_state_arrives_in_order_and_the_newest_progress_before_the_next_state(
            pushed in proptest::collection::vec((any::<bool>(), 0u64..3, any::<bool>()), 0..200)
        ) {
            let (mut events, feed) = TaskEvents::new();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (at, (is_state, task, take)) in pushed.into_iter().enumerate() {
                let event = if is_state { state(task, &at.to_string()) } else { progress(task, at as u64) };
                feed.push(&event);
                sent.push(event);
                if take {
                    got.extend(events.try_next());
                }
            }
            while let Some(event) = events.try_next() {
                got.push(event);
            }
            for task in 0..3 {
                let of = |events: &[TaskEvent]| -> Vec<TaskEvent> {
                    events.iter().filter(|event| event.task == TaskId(task)).cloned().collect()
                };
                let (sent, got) = (of(&sent), of(&got));
                let is_state = |event: &&TaskEvent| !matches!(event.change, TaskChange::Progress(_));
                prop_assert!(sent.iter().filter(is_state).eq(got.iter().filter(is_state)));
                prop_assert_eq!(sent.last(), got.last());
                // Progress that stands before a state was the newest when the state came.
                for pair in sent.windows(2) {
                    if is_state(&&pair[1]) {
                        prop_assert!(got.contains(&pair[0]));
                    }
                }
            }
        }
    }
}
