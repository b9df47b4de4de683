//! Where a check goes on.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Where a check goes on; the default is the begin. To be kept as text or by serde.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCursor {
    /// The next part of the packs and what is named like them.
    pub(super) objects: u16,
    /// The next part of the points.
    pub(super) points: u16,
}

/// Numbers of parts.
pub(super) type Parts = Range<u16>;

/// Parts in all: the values of a name's first byte.
pub(super) const ALL: u16 = 256;

impl CheckCursor {
    /// Tells whether this is the begin: a check that ended here has looked at all.
    pub fn is_start(&self) -> bool {
        *self == Self::default()
    }

    /// The begin, when this is the end.
    pub(super) fn or_start(self) -> Self {
        if self.objects >= ALL && self.points >= ALL { Self::default() } else { self }
    }
}

/// Returns the parts from one on that are a share of all.
pub(super) fn parts(from: u16, share: f64) -> Parts {
    let count = (f64::from(ALL) * share).ceil().max(1.0) as u16;
    from.min(ALL)..from.saturating_add(count).min(ALL)
}

impl fmt::Display for CheckCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.objects, self.points)
    }
}

impl FromStr for CheckCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |text: &str| text.parse().ok().filter(|&part: &u16| part <= ALL);
        text.split_once('-')
            .and_then(|(objects, points)| Some(Self { objects: part(objects)?, points: part(points)? }))
            .ok_or_else(|| Error::invalid(format!("{text:?} is not where a check ended")))
    }
}

impl Serialize for CheckCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CheckCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tenths_are_all_and_no_part_comes_twice() {
        for (share, runs) in [(0.1, 10), (1.0, 1), (0.5, 2), (0.0, 256), (0.334, 3)] {
            let (mut at, mut seen) = (0, Vec::new());
            for _ in 0..runs {
                let parts = parts(at, share);
                at = parts.end;
                seen.extend(parts);
            }
            assert_eq!(seen, (0..256).collect::<Vec<_>>(), "{share}");
        }
    }

    #[test]
    fn a_cursor_survives_text() {
        let cursor = CheckCursor { objects: 26, points: 256 };
        assert_eq!(cursor.to_string().parse::<CheckCursor>().unwrap(), cursor);
        for bad in ["", "1", "1-", "257-0", "-1-2", "1-2-3"] {
            assert!(bad.parse::<CheckCursor>().is_err(), "{bad}");
        }
        assert!(CheckCursor { objects: 256, points: 256 }.or_start().is_start());
        assert!(!cursor.or_start().is_start());
    }
}
