//! Runs: which clusters of the volume hold an attribute.

use crate::error::{Error, Result};

/// Where the clusters of an attribute lie, from its first on without gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    end: u64,
}

/// Clusters side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first, of the attribute.
    pub(super) first: u64,
    /// How many.
    pub(super) len: u64,
    /// The first, of the volume; `None` where nothing is stored.
    pub(super) at: Option<u64>,
}

impl Runs {
    /// Clusters that are mapped, holes counted.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds the runs that one record tells of: clusters `first..end` of the attribute, on a volume of so many clusters.
    pub(super) fn append(&mut self, pairs: &[u8], first: u64, end: u64, clusters: u64, what: &str) -> Result<()> {
        let damaged = |problem: String| Error::damaged(format!("the runs of {what}"), problem);
        if first != self.end {
            return Err(damaged(format!("cluster {} is followed by cluster {first}", self.end)));
        }
        let mut pairs = pairs.iter().copied();
        let mut at = 0_i64;
        while self.end < end {
            let Some(head @ 1..) = pairs.next() else {
                return Err(damaged(format!("they end at cluster {} of {end}", self.end)));
            };
            let len = number(&mut pairs, head & 0xf).filter(|len| *len > 0).map(|len| len as u64);
            let len = len.filter(|len| *len <= end - self.end);
            let len = len.ok_or_else(|| damaged(format!("a length at cluster {}", self.end)))?;
            let place = match head >> 4 {
                0 => None,
                bytes => {
                    let step = number(&mut pairs, bytes);
                    let next = step.and_then(|step| at.checked_add(step));
                    at = next.ok_or_else(|| damaged(format!("a place at cluster {}", self.end)))?;
                    match u64::try_from(at) {
                        Ok(at) if at.checked_add(len).is_some_and(|end| end <= clusters) => Some(at),
                        // NTFS 1.2 wrote holes so.
                        Err(_) if at == -1 => None,
                        _ => return Err(damaged(format!("{len} clusters at {at} of {clusters}"))),
                    }
                }
            };
            self.push(Run { first: self.end, len, at: place });
            if self.runs.len() > MOST {
                let reason = format!("it has more than {MOST} fragments");
                return Err(Error::unsupported(what, reason));
            }
        }
        Ok(())
    }

    /// What is at a cluster of the attribute and after it.
    pub(super) fn at(&self, cluster: u64) -> Option<Run> {
        let index = self.runs.partition_point(|run| run.first + run.len <= cluster);
        let run = self.runs.get(index)?;
        let into = cluster.checked_sub(run.first)?;
        Some(Run { first: cluster, len: run.len - into, at: run.at.map(|at| at + into) })
    }

    fn push(&mut self, run: Run) {
        self.end += run.len;
        if let Some(last) = self.runs.last_mut() {
            let joins = match (last.at, run.at) {
                (Some(before), Some(at)) => before + last.len == at,
                (before, at) => before == at,
            };
            if joins {
                last.len += run.len;
                return;
            }
        }
        self.runs.push(run);
    }
}

/// A signed number of so many bytes, at most eight.
fn number(bytes: &mut impl Iterator<Item = u8>, len: u8) -> Option<i64> {
    if !(1..=8).contains(&len) {
        return None;
    }
    let mut number = 0_i64;
    for place in 0..len {
        number |= i64::from(bytes.next()?) << (8 * place);
    }
    let spare = 64 - 8 * u32::from(len);
    Some(number << spare >> spare)
}

/// What the longest attribute list of records of 1 KiB has room for, more or less; 128 MiB of memory.
const MOST: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_forth_and_back_and_have_holes() {
        let mut runs = Runs::default();
        // 8 clusters at 0x1234, 4 of nothing, 2 at 0x1234 - 0x10, then 3 right after the last.
        let pairs = [0x21, 8, 0x34, 0x12, 0x01, 4, 0x11, 2, 0xf0, 0x11, 3, 2, 0];
        runs.append(&pairs, 0, 17, 0x2000, "it").unwrap();
        assert_eq!(runs.at(0), Some(Run { first: 0, len: 8, at: Some(0x1234) }));
        assert_eq!(runs.at(11), Some(Run { first: 11, len: 1, at: None }));
        assert_eq!(runs.at(13), Some(Run { first: 13, len: 4, at: Some(0x1225) }));
        assert_eq!(runs.at(17), None);
    }

    #[test]
    fn what_leaves_the_volume_or_the_attribute_is_damaged() {
        for (pairs, end) in [
            (&[0x11, 8, 100, 0][..], 8),
            (&[0x11, 8, 0xf0, 0], 8),
            (&[0x11, 8, 1, 0], 9),
            (&[0x11, 9, 1, 0], 8),
            (&[0x11, 0, 1, 0], 8),
            (&[0x11, 0x80, 1, 0], 8),
            (&[0x91, 8, 1, 0], 8),
            (&[0x21, 8, 1], 8),
            (&[], 1),
        ] {
            Runs::default().append(pairs, 0, end, 104, "it").unwrap_err();
        }
        Runs::default().append(&[0x11, 8, 96, 0], 1, 9, 104, "it").unwrap_err();
    }
}
