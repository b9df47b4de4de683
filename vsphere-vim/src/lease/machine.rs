//! When to ask, when to report, when to give up: the life of a lease without clock or server.

use std::time::Duration;

use super::LeaseOptions;

/// What was learned. Times are since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The lease's state on the server.
    Seen(Seen),
    /// Time has passed.
    Tick,
    /// The server took a report of progress.
    Reported,
    /// It did not; `passing` when trying again may help.
    Unreported { passing: bool },
}

/// The lease's state on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Initializing,
    Ready { timeout: Duration },
    Done,
    Error,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Wait until then; then look (before the lease is ready) or tick.
    Wait(Duration),
    /// The lease is ready: begin.
    Ready,
    /// Report the progress now.
    Report,
    /// It is over.
    Fail(Failure),
}

/// Why a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server says why.
    Refused,
    /// It took too long to be ready.
    NotReady,
    /// It ended on the server without us.
    Ended,
    /// The server could not be told that it is still needed.
    Lost,
}

/// The state machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    ready_timeout: Duration,
    report_interval: Duration,
    poll: Duration,
    longest_poll: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting,
    Held { timeout: Duration, interval: Duration, heard: Duration, next: Duration },
    Over(Failure),
}

impl Machine {
    pub(super) fn new(options: &LeaseOptions) -> Self {
        let poll = options.poll_interval.max(SHORTEST);
        Self {
            ready_timeout: options.ready_timeout,
            report_interval: options.report_interval.max(SHORTEST),
            poll,
            longest_poll: poll.saturating_mul(8),
            phase: Phase::Waiting,
        }
    }

    /// Takes an event at time `now`.
    pub(super) fn step(&mut self, now: Duration, event: Event) -> Action {
        let (phase, action) = match (self.phase, event) {
            (Phase::Over(failure), _) => (self.phase, Action::Fail(failure)),
            (Phase::Waiting, Event::Seen(Seen::Initializing)) if now >= self.ready_timeout => {
                self.over(Failure::NotReady)
            }
            (Phase::Waiting, Event::Seen(Seen::Initializing)) => {
                let until = (now + self.poll).min(self.ready_timeout);
                self.poll = self.poll.saturating_mul(2).min(self.longest_poll);
                (Phase::Waiting, Action::Wait(until))
            }
            (Phase::Waiting, Event::Seen(Seen::Ready { timeout })) => {
                let interval = (timeout / 4).min(self.report_interval).max(SHORTEST);
                // The first report goes out at once: preparing may have taken a good part of the time-out.
                (Phase::Held { timeout, interval, heard: now, next: now }, Action::Ready)
            }
            (_, Event::Seen(Seen::Error)) => self.over(Failure::Refused),
            (_, Event::Seen(Seen::Done)) => self.over(Failure::Ended),
            (Phase::Waiting, _) => (Phase::Waiting, Action::Wait(now + self.poll)),
            (Phase::Held { next, .. }, Event::Tick | Event::Seen(_)) => {
                (self.phase, if now >= next { Action::Report } else { Action::Wait(next) })
            }
            (Phase::Held { timeout, interval, .. }, Event::Reported) => {
                let next = now + interval;
                (Phase::Held { timeout, interval, heard: now, next }, Action::Wait(next))
            }
            (Phase::Held { timeout, heard, .. }, Event::Unreported { passing })
                if !passing || now >= heard + timeout =>
            {
                self.over(Failure::Lost)
            }
            (Phase::Held { timeout, interval, heard, .. }, Event::Unreported { .. }) => {
                let next = (now + (interval / 4).max(SHORTEST)).min(heard + timeout);
                (Phase::Held { timeout, interval, heard, next }, Action::Wait(next))
            }
        };
        self.phase = phase;
        action
    }

    fn over(&self, failure: Failure) -> (Phase, Action) {
        (Phase::Over(failure), Action::Fail(failure))
    }
}

/// No question or report comes sooner after another.
const SHORTEST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn ready(timeout: u64) -> Event {
        Event::Seen(Seen::Ready { timeout: ms(timeout) })
    }

    #[test]
    fn the_life_of_a_lease_by_the_table() {
        let waiting = Event::Seen(Seen::Initializing);
        let table: [(u64, Event, Action); 12] = [
            (0, waiting, Action::Wait(ms(250))),
            (250, waiting, Action::Wait(ms(750))),
            (750, waiting, Action::Wait(ms(1750))),
            (1750, ready(20_000), Action::Ready),
            (1750, Event::Tick, Action::Report),
            (1800, Event::Reported, Action::Wait(ms(6800))),
            (3000, Event::Tick, Action::Wait(ms(6800))),
            (6800, Event::Tick, Action::Report),
            (6900, Event::Unreported { passing: true }, Action::Wait(ms(8150))),
            (8150, Event::Tick, Action::Report),
            (21_800, Event::Unreported { passing: true }, Action::Fail(Failure::Lost)),
            (21_900, Event::Reported, Action::Fail(Failure::Lost)),
        ];
        let mut machine = Machine::new(&LeaseOptions::default());
        for (line, (now, event, action)) in table.into_iter().enumerate() {
            assert_eq!(machine.step(ms(now), event), action, "line {line}");
        }
    }

    #[test]
    fn every_end_has_its_reason() {
        let start = || Machine::new(&LeaseOptions { ready_timeout: ms(1000), ..LeaseOptions::default() });
        assert_eq!(start().step(ms(1000), Event::Seen(Seen::Initializing)), Action::Fail(Failure::NotReady));
        assert_eq!(start().step(ms(0), Event::Seen(Seen::Error)), Action::Fail(Failure::Refused));
        assert_eq!(start().step(ms(0), Event::Seen(Seen::Done)), Action::Fail(Failure::Ended));
        let mut held = start();
        held.step(ms(0), ready(1000));
        assert_eq!(held.step(ms(1), Event::Unreported { passing: false }), Action::Fail(Failure::Lost));
    }

    proptest! {
        /// Whatever the time-out and the weather: reports are sent often enough while the server takes them.
        #[test]
        fn reports_come_well_before_the_time_out(timeout in 400..600_000_u64, delays in prop::collection::vec(0..100_u64, 1..60)) {
            let mut machine = Machine::new(&LeaseOptions::default());
            prop_assert_eq!(machine.step(ms(0), ready(timeout)), Action::Ready);
            let (mut now, mut heard) = (ms(0), ms(0));
            for delay in delays {
                let mut action = machine.step(now, Event::Tick);
                if let Action::Wait(until) = action {
                    prop_assert!(until > now);
                    now = until;
                    action = machine.step(now, Event::Tick);
                }
                prop_assert_eq!(action, Action::Report);
                prop_assert!(now - heard <= ms(timeout) / 2, "{now:?} after {heard:?}");
                now += ms(delay);
                heard = now;
                machine.step(now, Event::Reported);
            }
        }

        #[test]
        fn nothing_wakes_a_lease_that_is_over(events in prop::collection::vec(0..6_usize, 1..40)) {
            let all = [
                Event::Tick, Event::Reported, Event::Unreported { passing: true }, Event::Unreported { passing: false },
                Event::Seen(Seen::Initializing), ready(5000),
            ];
            let mut machine = Machine::new(&LeaseOptions::default());
            let mut over = false;
            for (at, event) in events.into_iter().enumerate() {
                let action = machine.step(ms(at as u64 * 400), all[event]);
                let fails = matches!(action, Action::Fail(_));
                prop_assert!(fails || !over);
                over |= fails;
            }
        }
    }
}
