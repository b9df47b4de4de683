//! The clocks of DOS: years since 1980, two seconds, no zone.

use crate::fs::Timestamp;

/// A date and a time of DOS with hundredths of seconds, as if it were in UTC. `None` for what is no date, such as 0.
pub(in crate::fs) fn from_dos(date: u16, time: u16, hundredths: u8) -> Option<Timestamp> {
    let day = days(1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31))?;
    let (hour, minute, second) = (i64::from(time >> 11), i64::from(time >> 5 & 63), i64::from(time & 31) * 2);
    if hour > 23 || minute > 59 || second > 59 || hundredths > 199 {
        return None;
    }
    let seconds = day * 86_400 + hour * 3600 + minute * 60 + second + i64::from(hundredths / 100);
    Some(Timestamp::new(seconds, u32::from(hundredths % 100) * 10_000_000))
}

/// Days since 1970-01-01. <https://howardhinnant.github.io/date_algorithms.html>, `days_from_civil`.
pub(in crate::fs) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_dos_become_moments() {
        let date = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
        assert_eq!(from_dos(date(1980, 1, 1), 0, 0), Some(Timestamp::new(315_532_800, 0)));
        let leap = from_dos(date(2024, 2, 29), 23 << 11 | 59 << 5 | 29, 199);
        assert_eq!(leap, Some(Timestamp::new(1_709_251_199, 990_000_000)));
        assert_eq!(from_dos(date(2107, 12, 31), 0, 0), Some(Timestamp::new(4_354_732_800, 0)));
        assert_eq!(from_dos(0, 0, 0), None);
        assert_eq!(from_dos(date(2000, 1, 1), 24 << 11, 0), None);
    }
}
