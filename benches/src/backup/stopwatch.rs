//! Where the time of a machine's backup goes: each numbered step, from its begin to its end.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vsphere_backup::Result;
use vsphere_backup::repository::storage::BoxFuture;
use vsphere_backup::step::{Step, StepCall, StepHook};

/// What the lines of a stopwatch begin with.
pub(super) const LINE: &str = "step:";

/// A hook that only looks at the clock. Steps at the same time (the reads of a disk) count each.
#[derive(Default)]
pub(super) struct Stopwatch(Mutex<Times>);

#[derive(Default)]
struct Times {
    running: HashMap<(u64, u32), Instant>,
    /// In the order of the first begin.
    steps: Vec<(Step, u32, Duration)>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Stopwatch {
    fn with<T>(&self, work: impl FnOnce(&mut Times) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StepHook for Stopwatch {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        self.with(|times| {
            let now = Instant::now();
            times.first.get_or_insert(now);
            times.running.insert((call.call, call.attempt), now);
            if times.steps.iter().all(|(step, ..)| *step != call.step) {
                times.steps.push((call.step, 0, Duration::ZERO));
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn after<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        self.with(|times| {
            let now = Instant::now();
            times.last = Some(now);
            let begun = times.running.remove(&(call.call, call.attempt));
            let known = times.steps.iter_mut().find(|(step, ..)| *step == call.step);
            if let (Some(begun), Some((_, count, sum))) = (begun, known) {
                *count += 1;
                *sum += now - begun;
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A line for each step.
impl fmt::Display for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|times| {
            for (step, count, sum) in &times.steps {
                writeln!(f, "{LINE} {:>8.1} ms in {count} of {step:?}", sum.as_secs_f64() * 1e3)?;
            }
            let all = times.first.zip(times.last).map_or(Duration::ZERO, |(first, last)| last - first);
            write!(f, "{LINE} {:>8.1} ms from the first to the last", all.as_secs_f64() * 1e3)
        })
    }
}
