//! Where tasks are told, and who hears of them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{
    Figures, Outcome, TaskChange, TaskEvent, TaskId, TaskKind,
    feed::{Feed, TaskEvents},
    tree::Tree,
};

/// A tree of tasks that is being told. Clones tell the same tree.
#[derive(Clone)]
pub struct Tasks(Arc<Mutex<Inner>>);

type Handler = Arc<dyn Fn(&TaskEvent) + Send + Sync>;

struct Inner {
    tree: Tree,
    begun: Instant,
    feeds: Vec<Feed>,
    handlers: Vec<Handler>,
    closed: bool,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

impl Tasks {
    /// Makes a tree without tasks.
    pub fn new() -> Self {
        let (feeds, handlers) = (Vec::new(), Vec::new());
        let inner = Inner { tree: Tree::default(), begun: Instant::now(), feeds, handlers, closed: false };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Returns a stream of what happens from now on. Several streams each get all of it.
    pub fn events(&self) -> TaskEvents {
        let (events, feed) = TaskEvents::new();
        let mut inner = self.lock();
        if !inner.closed {
            inner.feeds.push(feed);
        }
        drop(inner);
        events
    }

    /// Calls a function at each event, in order. It must not block and must not tell tasks itself.
    pub fn on_event(&self, handler: impl Fn(&TaskEvent) + Send + Sync + 'static) {
        self.lock().handlers.push(Arc::new(handler));
    }

    /// Begins a task, as part of `parent`.
    pub fn begin(&self, parent: Option<TaskId>, kind: TaskKind) -> TaskId {
        self.lock().tell(|tree, _, told| tree.begin(parent, kind, told))
    }

    /// Tells that a task came to another part of its work.
    pub fn phase(&self, task: TaskId, phase: impl Into<String>) {
        let phase = phase.into();
        self.lock().tell(|tree, _, told| tree.state(task, TaskChange::Phase(phase), told));
    }

    /// Tells of something that is not as it should be.
    pub fn warn(&self, task: TaskId, message: impl Into<String>) {
        let message = message.into();
        self.lock().tell(|tree, _, told| tree.state(task, TaskChange::Warning(message), told));
    }

    /// Tells how far a task is by itself; the figures of what it is part of follow.
    pub fn progress(&self, task: TaskId, figures: Figures) {
        self.lock().tell(|tree, now, told| tree.progress(task, figures, now, told));
    }

    /// Ends a task, and before it all that are part of it. The second time it has no effect.
    pub fn end(&self, task: TaskId, outcome: Outcome) {
        self.lock().tell(|tree, now, told| tree.end(task, outcome, now, told));
    }

    /// Ends all streams; what waits in them can still be taken.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.feeds.clear();
        inner.handlers.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell<T>(&mut self, step: impl FnOnce(&mut Tree, std::time::Duration, &mut Vec<TaskEvent>) -> T) -> T {
        let mut told = Vec::new();
        let done = step(&mut self.tree, self.begun.elapsed(), &mut told);
        for event in &told {
            trace(event);
            self.feeds.retain(|feed| feed.push(event));
            self.handlers.iter().for_each(|handler| handler(event));
        }
        done
    }
}

fn trace(event: &TaskEvent) {
    let task = event.task.0;
    match &event.change {
        TaskChange::Begun(kind) => tracing::debug!(task, ?kind, "begun"),
        TaskChange::Phase(phase) => tracing::debug!(task, phase, "phase"),
        TaskChange::Progress(_) => {}
        TaskChange::Warning(message) => tracing::warn!(task, "{message}"),
        TaskChange::Ended(outcome) => tracing::debug!(task, ?outcome, "ended"),
    }
}
