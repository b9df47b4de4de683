//! `xsd:dateTime`: an instant, and the offset with which it was written.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant with nanoseconds and the offset from UTC that the sender wrote.
///
/// Two values are equal when all three parts are: a round trip keeps the text's meaning. Compare
/// [`DateTime::unix_nanos`] to compare instants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DateTime {
    seconds: i64,
    nanos: u32,
    offset_minutes: Option<i16>,
}

/// A text is no `xsd:dateTime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTimeError;

impl fmt::Display for DateTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a dateTime of the form 2026-11-22T03:23:00.123456Z")
    }
}

impl std::error::Error for DateTimeError {}

impl DateTime {
    /// The instant that many seconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos: if nanos > 999_999_999 { 999_999_999 } else { nanos }, offset_minutes: Some(0) }
    }

    /// The present instant, in UTC.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_seconds(&self) -> i64 {
        self.seconds
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_nanos(&self) -> i128 {
        self.seconds as i128 * 1_000_000_000 + self.nanos as i128
    }

    /// Reads a text; without an offset it is taken for UTC, and written again without one.
    ///
    /// # Errors
    /// [`DateTimeError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, DateTimeError> {
        Self::parse_inner(text.trim()).ok_or(DateTimeError)
    }

    fn parse_inner(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let (negative, date) = date.strip_prefix('-').map_or((false, date), |rest| (true, rest));
        let mut parts = date.split('-');
        let mut year: i64 = number(parts.next()?, 4..=6)?;
        let month: i64 = number(parts.next()?, 2..=2)?;
        let day: i64 = number(parts.next()?, 2..=2)?;
        if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        if negative {
            year = -year;
        }
        let (clock, offset) = match time.find(['Z', '+', '-']) {
            None => (time, None),
            Some(at) => (&time[..at], Some(offset(&time[at..])?)),
        };
        let (hms, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut parts = hms.split(':');
        let hour: i64 = number(parts.next()?, 2..=2)?;
        let minute: i64 = number(parts.next()?, 2..=2)?;
        let second: i64 = number(parts.next()?, 2..=2)?;
        if parts.next().is_some() || hour > 24 || minute > 59 || second > 60 {
            return None;
        }
        let nanos = nanos(fraction)?;
        let days = days_from_civil(year, month, day);
        let local = days * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self { seconds: local - i64::from(offset.unwrap_or(0)) * 60, nanos, offset_minutes: offset })
    }
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    (digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn nanos(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More than nine digits are cut: nothing keeps time that finely.
    Some(
        fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')),
    )
}

fn offset(text: &str) -> Option<i16> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let minutes = number(hours, 2..=2)? * 60 + number(minutes, 2..=2)?;
    (minutes <= 14 * 60).then(|| i16::try_from(minutes).ok().map(|m| m * sign))?
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds + i64::from(self.offset_minutes.unwrap_or(0)) * 60;
        let (year, month, day) = civil_from_days(local.div_euclid(86_400));
        let of_day = local.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        if year < 0 {
            f.write_str("-")?;
        }
        write!(f, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", year.abs())?;
        if self.nanos != 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        match self.offset_minutes {
            None => Ok(()),
            Some(0) => f.write_str("Z"),
            Some(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
            }
        }
    }
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SystemTime> for DateTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                let before: Duration = before.duration();
                let nanos = before.subsec_nanos();
                let whole = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                if nanos == 0 { Self::from_unix(whole, 0) } else { Self::from_unix(whole - 1, 1_000_000_000 - nanos) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_kind_keep_their_meaning() {
        for text in [
            "2026-11-22T03:23:00Z",
            "2026-11-22T03:23:00.5Z",
            "2026-11-22T03:23:00.123456789+05:30",
            "1969-12-31T23:59:59-08:00",
            "2024-02-29T12:00:00",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(DateTime::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn offsets_move_the_instant() {
        let a = DateTime::parse("2026-11-22T05:00:00+05:00").unwrap();
        assert_eq!(a.unix_nanos(), DateTime::parse("2026-11-22T00:00:00Z").unwrap().unix_nanos());
        assert_eq!(DateTime::parse("1970-01-01T00:00:00Z").unwrap().unix_seconds(), 0);
    }

    #[test]
    fn other_texts_are_errors() {
        for text in [
            "",
            "T",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00+99:00",
            "2026-01-01T00:00:00.xZ",
            "é-01-01T00:00:00Z",
        ] {
            assert!(DateTime::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_a_value_or_an_error(text in "\\PC{0,40}") {
            let _ = DateTime::parse(&text);
        }

        #[test]
        fn any_instant_survives_its_text(seconds in -62_000_000_000i64..250_000_000_000, nanos in 0u32..1_000_000_000) {
            let time = DateTime::from_unix(seconds, nanos);
            proptest::prop_assert_eq!(DateTime::parse(&time.to_string()).unwrap(), time);
        }
    }
}
