//! Bandwidth by the time of day: a table, and a pure function of the clock.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

/// What holds within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bandwidth {
    /// As much as there is.
    #[default]
    Unlimited,
    /// Bytes a second, of all disks together.
    Limited(u64),
    /// No machine begins. What runs goes on at full speed: a snapshot that is held longer costs more than the bytes.
    Closed,
}

/// Windows of the week and what holds in each; outside of all of them bandwidth is unlimited.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use vsphere_backup::schedule::{Bandwidth, BandwidthTable};
///
/// // On working days from 7:00 to 19:00 with 50 MB/s, one hour east of Greenwich.
/// let table = BandwidthTable::new()
///     .offset_minutes(60)
///     .window(0..5, 7 * 60..19 * 60, Bandwidth::Limited(50_000_000))?;
/// let thursday_noon = SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600);
/// assert_eq!(table.at(thursday_noon), Bandwidth::Limited(50_000_000));
/// # Ok::<(), vsphere_backup::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct BandwidthTable {
    windows: Vec<Window>,
    offset_minutes: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    days: std::ops::Range<u32>,
    minutes: std::ops::Range<u32>,
    bandwidth: Bandwidth,
}

impl BandwidthTable {
    /// Makes a table without windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// States how many minutes east of Greenwich the clock of the table is: 0 by default. Summer time is the caller's
    /// to follow, by a new table.
    pub fn offset_minutes(mut self, minutes: i32) -> Self {
        self.offset_minutes = minutes.clamp(-1440, 1440);
        self
    }

    /// Adds a window: days of the week from 0, Monday, to 6, and minutes of the day from 0 to 1440. Where windows
    /// overlap, the first that was added counts. One over midnight is two.
    ///
    /// # Errors
    /// [`Error::Invalid`] for days or minutes that do not exist, and for a limit of 0 bytes.
    pub fn window(
        mut self,
        days: std::ops::Range<u32>,
        minutes: std::ops::Range<u32>,
        bandwidth: Bandwidth,
    ) -> Result<Self> {
        if days.is_empty() || days.end > 7 || minutes.is_empty() || minutes.end > DAY {
            return Err(Error::invalid(format!("days {days:?}, minutes {minutes:?} are not a window of the week")));
        }
        if bandwidth == Bandwidth::Limited(0) {
            return Err(Error::invalid("0 bytes a second are no bandwidth: close the window instead"));
        }
        self.windows.push(Window { days, minutes, bandwidth });
        Ok(self)
    }

    /// Returns what holds at a time.
    pub fn at(&self, time: SystemTime) -> Bandwidth {
        let (day, minute) = self.place(time);
        let holds = |window: &&Window| window.days.contains(&day) && window.minutes.contains(&minute);
        self.windows.iter().find(holds).map_or(Bandwidth::Unlimited, |window| window.bandwidth)
    }

    /// Returns how long that holds at least: until the next minute at which a window begins or ends, or the day does.
    pub fn until_change(&self, time: SystemTime) -> Duration {
        let (_, minute) = self.place(time);
        let edges = self.windows.iter().flat_map(|window| [window.minutes.start, window.minutes.end]);
        let next = edges.filter(|&edge| edge > minute).min().unwrap_or(DAY).min(DAY);
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let within = Duration::from_secs(since.as_secs() % 60) + Duration::from_nanos(since.subsec_nanos().into());
        Duration::from_secs(u64::from(next - minute) * 60).saturating_sub(within)
    }

    /// Returns the day of the week and the minute of the day.
    fn place(&self, time: SystemTime) -> (u32, u32) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let minutes = i64::try_from(since.as_secs() / 60).unwrap_or(0) + i64::from(self.offset_minutes);
        // 1970 began on a Thursday.
        let day = (minutes.div_euclid(i64::from(DAY)) + 3).rem_euclid(7);
        (day as u32, minutes.rem_euclid(i64::from(DAY)) as u32)
    }
}

/// Minutes of a day.
const DAY: u32 = 24 * 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(day: u64, minute: u64) -> SystemTime {
        // 5 January 1970 was a Monday.
        SystemTime::UNIX_EPOCH + Duration::from_secs((4 + day) * 86_400 + minute * 60)
    }

    fn table() -> BandwidthTable {
        BandwidthTable::new()
            .window(0..5, 8 * 60..18 * 60, Bandwidth::Limited(10))
            .unwrap()
            .window(0..7, 12 * 60..13 * 60, Bandwidth::Closed)
            .unwrap()
    }

    #[test]
    fn what_holds_depends_on_day_and_minute() {
        let cases = [
            ((0, 7 * 60 + 59), Bandwidth::Unlimited),
            ((0, 8 * 60), Bandwidth::Limited(10)),
            ((4, 12 * 60), Bandwidth::Limited(10)),
            ((4, 18 * 60), Bandwidth::Unlimited),
            ((5, 12 * 60), Bandwidth::Closed),
            ((6, 13 * 60), Bandwidth::Unlimited),
            ((7, 8 * 60), Bandwidth::Limited(10)),
        ];
        for ((day, minute), expected) in cases {
            assert_eq!(table().at(at(day, minute)), expected, "day {day}, minute {minute}");
        }
        let west = table().offset_minutes(-60);
        assert_eq!((west.at(at(0, 8 * 60)), west.at(at(0, 9 * 60))), (Bandwidth::Unlimited, Bandwidth::Limited(10)));
        assert_eq!(table().until_change(at(0, 7 * 60) + Duration::from_secs(30)), Duration::from_secs(59 * 60 + 30));
        assert_eq!(table().until_change(at(0, 23 * 60)), Duration::from_secs(3600));
    }

    #[test]
    fn windows_that_do_not_exist_are_refused() {
        let add = |days, minutes, bandwidth| BandwidthTable::new().window(days, minutes, bandwidth).is_err();
        assert!(add(0..8, 0..1, Bandwidth::Closed) && add(0..0, 0..1, Bandwidth::Closed));
        assert!(add(0..1, 0..1441, Bandwidth::Closed) && add(0..1, 5..5, Bandwidth::Closed));
        assert!(add(0..1, 0..1, Bandwidth::Limited(0)));
    }

    proptest! {
        #[test]
        fn nothing_changes_before_it_is_said_to(second in 0u64..20 * 86_400, offset in -1440i32..1440, part in 0.0f64..1.0) {
            let table = table().offset_minutes(offset);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let wait = table.until_change(time);
            prop_assert!(wait > Duration::ZERO && wait <= Duration::from_secs(86_400));
            prop_assert_eq!(table.at(time + wait.mul_f64(part * 0.999)), table.at(time));
        }
    }
}
