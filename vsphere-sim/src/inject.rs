//! Faults on demand: what a test wants to go wrong at the next call of a method.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Fault, RangeAnswers};

/// What happens instead of, before or after the next call of a method.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Injection {
    /// The call fails with this fault and does nothing.
    Fault(Fault),
    /// The call answers with a task, and the task fails with this fault and does nothing.
    TaskFault(Fault),
    /// The call takes this much longer.
    Delay(Duration),
    /// The connection is closed before the call does anything.
    DropBefore,
    /// The call is carried out, then the connection is closed without an answer.
    DropAfter,
    /// The body of the answer breaks off after this many bytes (`GET /folder`, `GET /nfc`).
    CutBody(u64),
    /// The answer to a request for a range is another one (`GET /folder`).
    Ranges(RangeAnswers),
    /// The body of the answer stops after this many bytes, and the connection stays open.
    StallBody(u64),
    /// The answer is this HTTP status with an HTML body, as a proxy or a booting server gives it.
    Http(u16),
}

/// The injections waiting, by method name. Shared with the running simulator.
#[derive(Debug, Default)]
pub struct Faults {
    waiting: Mutex<HashMap<String, VecDeque<Injection>>>,
}

impl Faults {
    /// The next call of `method` (wire name, such as `CreateSnapshot_Task`) fails with `fault`.
    pub fn fail_next(&self, method: &str, fault: Fault) {
        self.inject(method, Injection::Fault(fault));
    }

    /// The task of the next call of `method` fails with `fault`.
    pub fn fail_next_task(&self, method: &str, fault: Fault) {
        self.inject(method, Injection::TaskFault(fault));
    }

    /// The next call of `method` takes `delay` longer.
    pub fn delay_next(&self, method: &str, delay: Duration) {
        self.inject(method, Injection::Delay(delay));
    }

    /// The next call of `method` loses its connection before anything is done.
    pub fn drop_next(&self, method: &str) {
        self.inject(method, Injection::DropBefore);
    }

    /// Queues an injection. Several for one method take effect one call each, in order.
    pub fn inject(&self, method: &str, injection: Injection) {
        self.lock().entry(method.into()).or_default().push_back(injection);
    }

    /// Forgets what has not happened yet.
    pub fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn take(&self, method: &str) -> Option<Injection> {
        let mut waiting = self.lock();
        let queue = waiting.get_mut(method)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            waiting.remove(method);
        }
        next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, VecDeque<Injection>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_happen_once_each_and_in_order() {
        let faults = Faults::default();
        faults.drop_next("Login");
        faults.fail_next("Login", Fault::new("InvalidLogin", ""));
        assert_eq!(faults.take("Logout"), None);
        assert_eq!(faults.take("Login"), Some(Injection::DropBefore));
        assert!(matches!(faults.take("Login"), Some(Injection::Fault(_))));
        assert_eq!(faults.take("Login"), None);
    }
}
