//! What a change of a disk's size means for an incremental backup.

use std::ops::Range;

/// How a disk's size compares with that at the last backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Growth {
    /// As large as before.
    Same,
    /// Larger. The new bytes count as changed, whatever the server says.
    Grown {
        /// The new bytes.
        tail: Range<u64>,
        /// A multiple of 128 GiB lies between the old and the new end, or is one of them. ESX 4.x and 5.x report wrong areas from then on, until tracking is reset
        /// (VMware KB 2090639): take a full backup there.
        crosses_128_gib: bool,
    },
    /// Smaller, which vSphere does not do to a disk: it is another disk, take a full backup.
    Shrunk,
}

impl Growth {
    /// Compares the capacity at the last backup with the one now. Both in bytes.
    pub fn between(before: u64, now: u64) -> Self {
        const BORDER: u64 = 128 << 30;
        match before.cmp(&now) {
            std::cmp::Ordering::Equal => Self::Same,
            std::cmp::Ordering::Greater => Self::Shrunk,
            std::cmp::Ordering::Less => {
                Self::Grown { tail: before..now, crosses_128_gib: before.div_ceil(BORDER) <= now / BORDER }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_names_the_tail_and_the_known_defect() {
        let gib = |n: u64| n << 30;
        assert_eq!(Growth::between(gib(10), gib(10)), Growth::Same);
        assert_eq!(Growth::between(gib(10), gib(9)), Growth::Shrunk);
        let grown = |before, now, crosses_128_gib| {
            assert_eq!(Growth::between(before, now), Growth::Grown { tail: before..now, crosses_128_gib });
        };
        grown(gib(10), gib(20), false);
        grown(gib(100), gib(130), true);
        grown(gib(130), gib(200), false);
        grown(gib(200), gib(300), true);
        grown(gib(127), gib(128), true);
        // The old end is the border: what was added lies beyond it.
        grown(gib(128), gib(200), true);
        grown(gib(128) + 512, gib(200), false);
    }
}
