//! When a step is tried again. Pure.

use std::time::Duration;

/// How often a step is tried whose failure passes by itself: another task on the machine, a locked file, a host that is
/// away for a moment.
///
/// Failures of the network are met below, by the client of the server; what it gives up on is tried again here only
/// where that is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retries {
    tries: u32,
    pause: Duration,
    longest: Duration,
}

impl Default for Retries {
    /// Four tries, with pauses of 1, 2 and 4 seconds.
    fn default() -> Self {
        Self { tries: 4, pause: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

impl Retries {
    /// Everything is tried once.
    pub fn never() -> Self {
        Self { tries: 1, ..Self::default() }
    }

    /// Sets the number of tries: 1 to 100.
    pub fn tries(self, tries: u32) -> Self {
        Self { tries: tries.clamp(1, 100), ..self }
    }

    /// Sets the first pause, which doubles with each try, and the longest.
    pub fn pauses(self, first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest, ..self }
    }

    /// Returns the pause after a failed try, the first being number 1; `None` when there is no further try.
    pub(crate) fn pause_after(self, attempt: u32) -> Option<Duration> {
        let doubled = self.pause.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        (attempt < self.tries).then(|| doubled.min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let retries = Retries::default().pauses(Duration::from_secs(10), Duration::from_secs(25));
        let pauses: Vec<_> = (1..=4).map(|attempt| retries.pause_after(attempt).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(25), None]);
        assert_eq!(Retries::never().pause_after(1), None);
        assert_eq!(Retries::default().tries(u32::MAX).pause_after(99).unwrap(), Duration::from_secs(30));
    }
}
