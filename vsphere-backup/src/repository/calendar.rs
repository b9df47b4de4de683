//! Times and dates of names, in UTC.

/// Formats microseconds since 1970 as `YYYYMMDDThhmmss.ffffffZ`, which sorts as text.
pub(super) fn compact_utc(micros: u64) -> String {
    // Years above 9999 would need five digits.
    let (seconds, micros) = ((micros / 1_000_000).min(253_402_300_799), micros % 1_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{micros:06}Z")
}

/// Converts days since 1970-01-01 to a date (<https://howardhinnant.github.io/date_algorithms.html>).
pub(super) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

/// Converts a date to days since 1970-01-01; 0 for earlier ones.
pub(super) fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let (month, day) = (month.clamp(1, 12), day.clamp(1, 31));
    let year = year.max(1) - u64::from(month <= 2);
    let (era, yoe) = (year / 400, year % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    (era * 146_097 + doe).saturating_sub(719_468)
}

/// The length of `YYYYMMDDThhmmss.ffffffZ`.
pub(super) const TIME_LEN: usize = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(compact_utc(0), "19700101T000000.000000Z");
        assert_eq!(compact_utc(951_827_696_000_042), "20000229T123456.000042Z");
        assert_eq!(compact_utc(1_795_318_511_999_999), "20261122T033511.999999Z");
        assert_eq!(compact_utc(u64::MAX).len(), TIME_LEN);
    }
}
