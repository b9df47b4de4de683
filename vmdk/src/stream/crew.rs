//! Work on several threads, with results in the order of the jobs and a bound on what is under way.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle, Scope},
};

/// Threads that turn jobs (`J`) into results (`T`).
///
/// The thread that has the crew hands out the jobs and takes the results, in the order of the jobs: when the window of
/// [`WINDOW`] jobs a thread is full, it must take one first. A panic of a worker goes on in the thread that takes its
/// result. Dropping the crew forgets what nobody works on yet, and waits for the rest.
pub(super) struct Crew<'a, J, T>(Kind<'a, J, T>);

enum Kind<'a, J, T> {
    /// Nobody but the caller.
    Alone {
        work: Box<dyn FnMut(J) -> T + Send + 'a>,
        done: Option<T>,
    },
    Many {
        line: Arc<Line<J, T>>,
        window: usize,
        threads: Vec<JoinHandle<()>>,
    },
}

impl<'a, J: Send + 'a, T: Send + 'a> Crew<'a, J, T> {
    /// A crew without threads: jobs are done as they are handed out.
    pub(super) fn alone(work: impl FnMut(J) -> T + Send + 'a) -> Self {
        Self(Kind::Alone { work: Box::new(work), done: None })
    }

    /// Starts `threads` threads, each with a worker of its own; 1 is [`alone`](Self::alone). Where the system refuses
    /// threads, it is done with fewer.
    pub(super) fn hire<W>(threads: usize, worker: impl Fn() -> W) -> Self
    where
        W: FnMut(J) -> T + Send + 'static,
        J: 'static,
        T: 'static,
    {
        let line = Arc::new(Line::new());
        let start = |work| {
            let line = Arc::clone(&line);
            thread::Builder::new().name(NAME.to_owned()).spawn(move || line.work(work))
        };
        let threads: Vec<_> = (0..many(threads)).map_while(|_| start(worker()).ok()).collect();
        match threads.len() {
            0 => Self::alone(worker()),
            started => Self(Kind::Many { line, window: started * WINDOW, threads }),
        }
    }

    /// As [`hire`](Self::hire), with workers that borrow what outlives `scope`. The crew must be dropped inside of it.
    pub(super) fn hire_in<'scope, W>(scope: &'scope Scope<'scope, '_>, threads: usize, worker: impl Fn() -> W) -> Self
    where
        W: FnMut(J) -> T + Send + 'scope,
        W: 'a,
        J: 'scope,
        T: 'scope,
    {
        let line = Arc::new(Line::new());
        let start = |work| {
            let line = Arc::clone(&line);
            thread::Builder::new().name(NAME.to_owned()).spawn_scoped(scope, move || line.work(work))
        };
        let started = (0..many(threads)).map_while(|_| start(worker()).ok()).count();
        match started {
            0 => Self::alone(worker()),
            _ => Self(Kind::Many { line, window: started * WINDOW, threads: Vec::new() }),
        }
    }

    /// Hands out a job, and gives `take` the results that are there.
    pub(super) fn submit<E>(&mut self, job: J, mut take: impl FnMut(T) -> Result<(), E>) -> Result<(), E> {
        while self.is_full() {
            if let Some(result) = self.next() {
                take(result)?;
            }
        }
        match &mut self.0 {
            Kind::Alone { work, done } => *done = Some(work(job)),
            Kind::Many { line, .. } => line.push(job),
        }
        while let Some(result) = self.ready() {
            take(result)?;
        }
        Ok(())
    }

    /// Waits for all jobs and gives `take` their results.
    pub(super) fn finish<E>(&mut self, mut take: impl FnMut(T) -> Result<(), E>) -> Result<(), E> {
        while let Some(result) = self.next() {
            take(result)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        match &self.0 {
            Kind::Alone { done, .. } => done.is_some(),
            Kind::Many { line, window, .. } => line.lock().results.len() >= *window,
        }
    }

    /// The oldest job's result; `None` when no job is under way.
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Kind::Alone { done, .. } => done.take(),
            Kind::Many { line, .. } => line.next(true),
        }
    }

    /// As [`next`](Self::next), but does not wait.
    fn ready(&mut self) -> Option<T> {
        match &mut self.0 {
            Kind::Alone { done, .. } => done.take(),
            Kind::Many { line, .. } => line.next(false),
        }
    }
}

impl<J, T> Drop for Crew<'_, J, T> {
    fn drop(&mut self) {
        if let Kind::Many { line, threads, .. } = &mut self.0 {
            line.close();
            for thread in threads.drain(..) {
                // A worker's panic was caught; nobody asked for its result.
                let _ = thread.join();
            }
        }
    }
}

impl<J, T> fmt::Debug for Crew<'_, J, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match &self.0 {
            Kind::Alone { .. } => 1,
            Kind::Many { window, .. } => *window,
        };
        f.debug_struct("Crew").field("window", &window).finish_non_exhaustive()
    }
}

/// Jobs and results, shared between a crew and its threads.
struct Line<J, T> {
    state: Mutex<State<J, T>>,
    has_job: Condvar,
    has_result: Condvar,
}

struct State<J, T> {
    /// Jobs that nobody has taken, with their numbers.
    jobs: VecDeque<(u64, J)>,
    /// The results of all jobs from `first` on that nobody has taken, `None` while they are worked on.
    results: VecDeque<Option<Outcome<T>>>,
    first: u64,
    closed: bool,
}

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl<J, T> Line<J, T> {
    fn new() -> Self {
        let state = State { jobs: VecDeque::new(), results: VecDeque::new(), first: 0, closed: false };
        Self { state: Mutex::new(state), has_job: Condvar::new(), has_result: Condvar::new() }
    }

    /// No code of others runs under the lock: it cannot be left in disorder.
    fn lock(&self) -> MutexGuard<'_, State<J, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: J) {
        let mut state = self.lock();
        let number = state.first + state.results.len() as u64;
        state.jobs.push_back((number, job));
        state.results.push_back(None);
        drop(state);
        self.has_job.notify_one();
    }

    fn next(&self, wait: bool) -> Option<T> {
        let mut state = self.lock();
        loop {
            // No job at all: there is nothing to wait for.
            let oldest = state.results.front_mut()?;
            if let Some(outcome) = oldest.take() {
                state.results.pop_front();
                state.first += 1;
                drop(state);
                return Some(outcome.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            if !wait {
                return None;
            }
            state = self.has_result.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker's life: jobs in their order, until there will be no more.
    fn work(&self, mut work: impl FnMut(J) -> T) {
        while let Some((number, job)) = self.take_job() {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(job)));
            let panicked = outcome.is_err();
            let mut state = self.lock();
            let place = (number - state.first) as usize;
            state.results[place] = Some(outcome);
            let is_oldest = place == 0;
            drop(state);
            if is_oldest {
                self.has_result.notify_one();
            }
            if panicked {
                // What the worker had in hands may be in disorder.
                return;
            }
        }
    }

    fn take_job(&self) -> Option<(u64, J)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.has_job.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.has_job.notify_all();
    }
}

/// As many threads as the machine runs at once, within reason: more than 16 feed no sink better.
pub(super) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().min(16))
}

/// Threads to start; one thread beside the caller gains nothing over the caller alone.
fn many(threads: usize) -> usize {
    if threads <= 1 { 0 } else { threads.min(MAX_THREADS) }
}

/// Jobs under way for each thread: one that is worked on, one that waits, and one that is done before its turn.
pub(super) const WINDOW: usize = 3;

/// Bounds memory.
const MAX_THREADS: usize = 64;

const NAME: &str = "vmdk-stream";

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use super::*;

    fn all(mut crew: Crew<'_, u64, u64>, jobs: u64) -> Vec<u64> {
        let mut results = Vec::new();
        for job in 0..jobs {
            let taken: Result<(), Infallible> = crew.submit(job, |result| {
                results.push(result);
                Ok(())
            });
            taken.unwrap();
        }
        let taken: Result<(), Infallible> = crew.finish(|result| {
            results.push(result);
            Ok(())
        });
        taken.unwrap();
        results
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let expected: Vec<u64> = (0..100).map(|job| job * 2).collect();
        let slow = || {
            |job: u64| {
                thread::sleep(Duration::from_micros(job * 7919 % 500));
                job * 2
            }
        };
        for threads in [1, 2, 8] {
            assert_eq!(all(Crew::hire(threads, slow), 100), expected);
            thread::scope(|scope| assert_eq!(all(Crew::hire_in(scope, threads, slow), 100), expected));
        }
    }

    #[test]
    fn an_error_of_the_taker_ends_all() {
        for threads in [1, 4] {
            let mut crew = Crew::hire(threads, || |job: u64| job);
            let outcome =
                (0..1000).try_for_each(|job| crew.submit(job, |result| if result == 5 { Err(result) } else { Ok(()) }));
            assert_eq!(outcome.and_then(|()| crew.finish(|_| Ok(()))), Err(5));
        }
    }

    #[test]
    fn a_panic_goes_on_where_its_result_is_taken() {
        for threads in [1, 2, 5] {
            let panics = || |job: u64| if job % 7 == 6 { panic!("worker") } else { job };
            let outcome = catch_unwind(|| all(Crew::hire(threads, panics), 50));
            assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"worker"));
        }
    }

    #[test]
    fn never_more_than_the_window_is_under_way() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let under_way = AtomicUsize::new(0);
        thread::scope(|scope| {
            let mut crew = Crew::hire_in(scope, 4, || |job: u64| job);
            for job in 0..200 {
                under_way.fetch_add(1, Ordering::Relaxed);
                let taken: Result<(), Infallible> = crew.submit(job, |_| {
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                });
                taken.unwrap();
                assert!(under_way.load(Ordering::Relaxed) <= 4 * WINDOW);
            }
        });
    }
}
