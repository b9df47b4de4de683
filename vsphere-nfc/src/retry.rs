//! How often, and after what pauses, something is tried again.

use std::time::Duration;

/// Trying again: how often in a row without any progress, and with what pauses.
///
/// The first new try comes at once, as most connections break while idle and come back; pauses
/// double from then on.
///
/// ```
/// use vsphere_nfc::Retry;
/// let patient = Retry { attempts: 8, ..Retry::default() };
/// assert_eq!(Retry::never().attempts, 0);
/// # let _ = patient;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// New tries in a row without progress. Default: 5.
    pub attempts: u32,
    /// The pause before the second new try. Default: 250 ms.
    pub pause: Duration,
    /// The longest pause. Default: 8 s.
    pub longest_pause: Duration,
}

impl Retry {
    /// Nothing is tried again.
    pub fn never() -> Self {
        Self { attempts: 0, ..Self::default() }
    }

    /// The pause before the new try `number` (from 0); `None` when there are no more.
    fn pause_before(&self, number: u32) -> Option<Duration> {
        if number >= self.attempts {
            return None;
        }
        let Some(doublings) = number.checked_sub(1) else { return Some(Duration::ZERO) };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        Some(self.pause.saturating_mul(factor).min(self.longest_pause))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(250), longest_pause: Duration::from_secs(8) }
    }
}

/// What is left of a [`Retry`] in one call.
#[derive(Debug)]
pub(crate) struct Patience {
    retry: Retry,
    tries: u32,
}

impl Patience {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, tries: 0 }
    }

    /// Waits until it is time to try again; `false` when it is not worth it any more.
    pub(crate) async fn wait(&mut self) -> bool {
        let Some(pause) = self.retry.pause_before(self.tries) else { return false };
        self.tries += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// Something went well: count anew.
    pub(crate) fn restore(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_try_comes_at_once_and_pauses_double_up_to_the_longest() {
        let retry = Retry { attempts: 7, ..Retry::default() };
        let pauses: Vec<_> = (0..8).map(|number| retry.pause_before(number).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(0), Some(250), Some(500), Some(1000), Some(2000), Some(4000), Some(8000), None]);
        assert_eq!(Retry { attempts: 100, ..retry }.pause_before(90), Some(Duration::from_secs(8)));
        assert_eq!(Retry::never().pause_before(0), None);
    }
}
