//! Which recovery points to keep: rules over their times, and nothing else.
//!
//! A rule such as "daily 7" looks at the newest point of each day and keeps those of the 7 newest days that have
//! any: days without a backup do not count. Rules only ever add: a point goes when no rule keeps it. So a larger
//! count, or one rule more, never costs a point; and the newest point is kept by every rule.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::Serialize;

/// Rules that say which recovery points are kept.
///
/// ```
/// use vsphere_backup::repository::Retention;
///
/// let day = |day: u64| day * 86_400_000_000;
/// let retention = Retention::keep().last(1).daily(2);
/// let verdicts = retention.verdicts(&[day(1), day(2), day(3)]);
/// assert_eq!(verdicts.iter().map(|kept| !kept.is_empty()).collect::<Vec<_>>(), [false, true, true]);
/// assert_eq!(verdicts[1][0].to_string(), "daily 2 of 2");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    /// At most one count for each rule; a count is never 0.
    rules: BTreeMap<Rule, u32>,
    /// Where the day begins, in minutes east of Greenwich.
    offset_minutes: i32,
}

/// The kinds of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Rule {
    /// The newest points, whenever they were.
    Last,
    /// The newest point of an hour.
    Hourly,
    /// The newest point of a day.
    Daily,
    /// The newest point of a week, which begins on Monday.
    Weekly,
    /// The newest point of a month.
    Monthly,
    /// The newest point of a year.
    Yearly,
}

/// Why a rule keeps a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KeptBy {
    /// The rule.
    pub rule: Rule,
    /// The point is this one of those that the rule keeps, from 1, the newest first.
    pub number: u32,
    /// How many the rule keeps.
    pub of: u32,
}

impl Retention {
    /// Begins without a rule, which keeps nothing.
    pub fn keep() -> Self {
        Self::default()
    }

    /// Keeps the newest `count` points.
    pub fn last(self, count: u32) -> Self {
        self.rule(Rule::Last, count)
    }

    /// Keeps the newest point of each of the newest `count` hours that have one.
    pub fn hourly(self, count: u32) -> Self {
        self.rule(Rule::Hourly, count)
    }

    /// Keeps the newest point of each of the newest `count` days that have one.
    pub fn daily(self, count: u32) -> Self {
        self.rule(Rule::Daily, count)
    }

    /// Keeps the newest point of each of the newest `count` weeks that have one. A week begins on Monday.
    pub fn weekly(self, count: u32) -> Self {
        self.rule(Rule::Weekly, count)
    }

    /// Keeps the newest point of each of the newest `count` months that have one.
    pub fn monthly(self, count: u32) -> Self {
        self.rule(Rule::Monthly, count)
    }

    /// Keeps the newest point of each of the newest `count` years that have one.
    pub fn yearly(self, count: u32) -> Self {
        self.rule(Rule::Yearly, count)
    }

    /// States where days begin: minutes east of Greenwich, 0 by default. Summer time is the caller's: the same offset
    /// is used for all points.
    pub fn utc_offset_minutes(mut self, minutes: i32) -> Self {
        self.offset_minutes = minutes.clamp(-18 * 60, 18 * 60);
        self
    }

    fn rule(mut self, rule: Rule, count: u32) -> Self {
        match count {
            0 => drop(self.rules.remove(&rule)),
            _ => drop(self.rules.insert(rule, count)),
        }
        self
    }

    /// Tells whether there is no rule: then no point is kept.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says for each point why it is kept; a point that no rule keeps gets an empty list.
    ///
    /// `times` are in microseconds since 1970, UTC, in any order ([`PointId::micros`](super::PointId::micros)). Of
    /// points of the same time the later in the list counts as the newer.
    pub fn verdicts(&self, times: &[u64]) -> Vec<Vec<KeptBy>> {
        let mut newest_first: Vec<usize> = (0..times.len()).collect();
        newest_first.sort_by_key(|&at| std::cmp::Reverse((times[at], at)));
        self.judge(times, newest_first.into_iter())
    }

    /// The same for points in the order in which they were made, the oldest first, whatever the clock said then.
    pub(super) fn verdicts_in_order(&self, times: &[u64]) -> Vec<Vec<KeptBy>> {
        self.judge(times, (0..times.len()).rev())
    }

    fn judge(&self, times: &[u64], newest_first: impl Iterator<Item = usize> + Clone) -> Vec<Vec<KeptBy>> {
        let mut verdicts = vec![Vec::new(); times.len()];
        for (&rule, &of) in &self.rules {
            let mut number = 0;
            let mut periods = HashSet::new();
            for at in newest_first.clone() {
                if number == of {
                    break;
                }
                // Every point is a period of its own for `Last`.
                if rule == Rule::Last || periods.insert(rule.period(times[at], self.offset_minutes)) {
                    number += 1;
                    verdicts[at].push(KeptBy { rule, number, of });
                }
            }
        }
        verdicts
    }
}

impl Rule {
    /// Returns a number that is the same for all times of one period and grows with time.
    fn period(self, micros: u64, offset_minutes: i32) -> i64 {
        let seconds = (micros / 1_000_000) as i64 + i64::from(offset_minutes) * 60;
        let days = seconds.div_euclid(86_400);
        match self {
            Self::Last => micros as i64,
            Self::Hourly => seconds.div_euclid(3600),
            Self::Daily => days,
            // 1970-01-01 was a Thursday.
            Self::Weekly => (days + 3).div_euclid(7),
            Self::Monthly => {
                let (year, month) = month_of(days);
                year * 12 + month
            }
            Self::Yearly => month_of(days).0,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

impl fmt::Display for KeptBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.rule, self.number, self.of)
    }
}

/// Returns year and month (1 to 12) of a count of days since 1970-01-01, which may be a little below 0.
fn month_of(days: i64) -> (i64, i64) {
    // The calendar repeats every 400 years: moved on by as much as makes the count positive.
    let (year, month, _) = super::calendar::civil_from_days((days + DAYS_OF_400_YEARS).unsigned_abs());
    (year as i64 - 400, month as i64)
}

const DAYS_OF_400_YEARS: i64 = 146_097;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::id::PointId;

    /// Microseconds of a time like `20260131T2359`.
    fn at(text: &str) -> u64 {
        let name = format!("vm/{text}00.000000Z-0123456789abcdef");
        PointId::parse(&name).unwrap().micros()
    }

    fn kept(retention: &Retention, times: &[&str]) -> Vec<String> {
        let micros: Vec<_> = times.iter().map(|time| at(time)).collect();
        let verdicts = retention.verdicts(&micros);
        let line = |why: &Vec<KeptBy>| why.iter().map(|why| why.to_string()).collect::<Vec<_>>().join(", ");
        times
            .iter()
            .zip(&verdicts)
            .filter(|(_, why)| !why.is_empty())
            .map(|(t, why)| format!("{t}: {}", line(why)))
            .collect()
    }

    #[test]
    fn each_rule_keeps_the_newest_point_of_its_newest_periods() {
        let hours = ["20260101T1000", "20260101T1059", "20260101T1100", "20260101T1300"];
        assert_eq!(
            kept(&Retention::keep().last(2), &hours),
            ["20260101T1100: last 2 of 2", "20260101T1300: last 1 of 2"]
        );
        let two = kept(&Retention::keep().hourly(3), &hours);
        assert_eq!(
            two,
            ["20260101T1059: hourly 3 of 3", "20260101T1100: hourly 2 of 3", "20260101T1300: hourly 1 of 3"]
        );
        // A day without a backup does not count.
        let days = ["20260227T2359", "20260228T0000", "20260228T2300", "20260305T0100"];
        let want = ["20260227T2359: daily 3 of 3", "20260228T2300: daily 2 of 3", "20260305T0100: daily 1 of 3"];
        assert_eq!(kept(&Retention::keep().daily(3), &days), want);
        // 2026-11-22 is a Sunday, 2026-11-23 a Monday.
        let weeks = ["20261116T0000", "20261122T2359", "20261123T0000"];
        assert_eq!(
            kept(&Retention::keep().weekly(2), &weeks),
            ["20261122T2359: weekly 2 of 2", "20261123T0000: weekly 1 of 2"]
        );
        let months = ["20251231T2359", "20260101T0000", "20260131T2359", "20260228T1200"];
        assert_eq!(
            kept(&Retention::keep().monthly(2), &months),
            ["20260131T2359: monthly 2 of 2", "20260228T1200: monthly 1 of 2"]
        );
        assert_eq!(
            kept(&Retention::keep().yearly(5), &months),
            ["20251231T2359: yearly 2 of 5", "20260228T1200: yearly 1 of 5"]
        );
    }

    #[test]
    fn the_offset_moves_where_a_day_begins() {
        let times = ["20260101T2230", "20260101T2330", "20260102T0030"];
        let utc = Retention::keep().daily(5);
        assert_eq!(kept(&utc, &times), ["20260101T2330: daily 2 of 5", "20260102T0030: daily 1 of 5"]);
        let east = utc.clone().utc_offset_minutes(60);
        assert_eq!(kept(&east, &times), ["20260101T2230: daily 2 of 5", "20260102T0030: daily 1 of 5"]);
        let west = utc.utc_offset_minutes(-60);
        assert_eq!(kept(&west, &times), ["20260102T0030: daily 1 of 5"]);
        // The first hours of 1970 lie in 1969 there.
        let verdicts = Retention::keep().yearly(2).monthly(2).utc_offset_minutes(-600).verdicts(&[0, 86_400_000_000]);
        assert_eq!(verdicts[0].len(), 2);
    }

    #[test]
    fn a_count_of_nothing_is_no_rule() {
        let none = Retention::keep().daily(3).daily(0);
        assert!(none.is_empty() && none.verdicts(&[5]) == [vec![]]);
        assert_eq!(none.verdicts(&[]).len(), 0);
    }

    fn rules() -> impl Strategy<Value = [u32; 6]> {
        proptest::array::uniform6(0u32..6)
    }

    fn retention(counts: [u32; 6], offset: i32) -> Retention {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        let rules = Retention::keep().last(last).hourly(hourly).daily(daily);
        rules.weekly(weekly).monthly(monthly).yearly(yearly).utc_offset_minutes(offset)
    }

    /// Times over three years, crowded at some hours.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (0u64..1100, 0u64..3, 0u64..90)
            .prop_map(|(day, hour, minute)| (1_700_000_000 + day * 86_400 + hour * 3600 + minute * 60) * 1_000_000);
        proptest::collection::vec(time, 0..60)
    }

    fn is_kept(retention: &Retention, times: &[u64]) -> Vec<bool> {
        retention.verdicts(times).iter().map(|why| !why.is_empty()).collect()
    }

    proptest! {
        /// A plain second opinion of each rule: the period's newest, among the newest periods.
        #[test]
        fn what_a_rule_keeps_is_kept_and_nothing_else(times in times(), counts in rules(), offset in -800i32..800) {
            let all = [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];
            let mut want = vec![false; times.len()];
            for (rule, count) in all.into_iter().zip(counts) {
                let mut newest: BTreeMap<(i64, usize), usize> = BTreeMap::new();
                for (at, &time) in times.iter().enumerate() {
                    let period = match rule {
                        // Of the same time the later is the newer.
                        Rule::Last => (time as i64, at),
                        _ => (rule.period(time, offset), 0),
                    };
                    let best = newest.entry(period).or_insert(at);
                    if times[*best] <= time { *best = at; }
                }
                newest.values().rev().take(count as usize).for_each(|&at| want[at] = true);
            }
            prop_assert_eq!(is_kept(&retention(counts, offset), &times), want);
        }

        #[test]
        fn more_is_never_less(times in times(), counts in rules(), more in rules(), offset in -800i32..800) {
            let mut larger = counts;
            larger.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            let before = is_kept(&retention(counts, offset), &times);
            let after = is_kept(&retention(larger, offset), &times);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| !before || *after));
        }

        #[test]
        fn the_newest_point_stays_and_pruning_twice_is_pruning_once(times in times(), counts in rules()) {
            let rules = retention(counts, 0);
            let kept = is_kept(&rules, &times);
            if let Some(newest) = times.iter().enumerate().max_by_key(|&(at, time)| (*time, at)) {
                prop_assert_eq!(kept[newest.0], !rules.is_empty());
            }
            let left: Vec<_> = times.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(time, _)| *time).collect();
            prop_assert!(is_kept(&rules, &left).into_iter().all(|kept| kept));
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(times in times().prop_shuffle(), counts in rules()) {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let kept_times = |times: &[u64]| {
                let kept = is_kept(&retention(counts, 0), times);
                let mut left: Vec<_> = times.iter().zip(kept).filter(|(_, kept)| *kept).map(|(time, _)| *time).collect();
                left.sort_unstable();
                left
            };
            prop_assert_eq!(kept_times(&times), kept_times(&sorted));
        }
    }
}
