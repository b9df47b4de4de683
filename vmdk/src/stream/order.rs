//! In which order grains come, and which were left out.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use crate::layout::ENTRIES_PER_TABLE;

/// In which order the grains of a stream may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GrainOrder {
    /// Ascending, as vSphere writes and wants it.
    #[default]
    Ascending,
    /// Any order, but no grain twice: open-vmdk writes grains as its threads finish them.
    ///
    /// Memory is bounded: where grains of more than 131 072 tables (4 TiB of disk) are under way, the lowest table is
    /// closed, and a grain that comes for it later is an error.
    Any,
}

/// Checks the order of grains, by their numbers, and finds the gaps between them.
#[derive(Debug)]
pub(super) struct Order {
    kind: Kind,
    /// Gaps that nobody has taken; only when somebody wants them.
    gaps: Option<VecDeque<Range<u64>>>,
    ended: bool,
}

#[derive(Debug)]
enum Kind {
    Ascending {
        /// Behind the last grain.
        next: u64,
    },
    Any {
        /// Tables below this one are closed.
        open: u64,
        /// Grains of open tables, a bit each.
        tables: BTreeMap<u64, Bits>,
        /// Tables that may be open at once.
        limit: usize,
    },
}

type Bits = [u64; ENTRIES as usize / 64];

impl Order {
    pub(super) fn new(order: GrainOrder) -> Self {
        let kind = match order {
            GrainOrder::Ascending => Kind::Ascending { next: 0 },
            GrainOrder::Any => Kind::Any { open: 0, tables: BTreeMap::new(), limit: OPEN_TABLES },
        };
        Self { kind, gaps: None, ended: false }
    }

    /// Keeps gaps from now on, for [`next_gap`](Self::next_gap).
    pub(super) fn keep_gaps(&mut self) {
        self.gaps.get_or_insert_default();
    }

    /// Takes note of a grain; says what is wrong with its place.
    pub(super) fn note(&mut self, grain: u64) -> Result<(), &'static str> {
        match &mut self.kind {
            Kind::Ascending { next } => {
                if grain < *next {
                    return Err("after one at or behind it");
                }
                keep(&mut self.gaps, *next..grain);
                *next = grain + 1;
            }
            Kind::Any { open, tables, limit } => {
                let table = grain / ENTRIES;
                if table < *open {
                    return Err("too far behind those before it");
                }
                let (word, bit) = ((grain % ENTRIES / 64) as usize, 1 << (grain % 64));
                let bits = tables.entry(table).or_default();
                if bits[word] & bit != 0 {
                    return Err("for the second time");
                }
                bits[word] |= bit;
                while tables.len() > *limit {
                    close_first(open, tables, &mut self.gaps);
                }
            }
        }
        Ok(())
    }

    /// No grain of the disk's `grains` will come any more.
    pub(super) fn end(&mut self, grains: u64) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        match &mut self.kind {
            Kind::Ascending { next } => keep(&mut self.gaps, *next..grains),
            // A mark where the disk ends, so that all before it is closed.
            Kind::Any { tables, .. } => {
                let bits = tables.entry(grains / ENTRIES).or_default();
                for grain in grains % ENTRIES..ENTRIES {
                    bits[(grain / 64) as usize] |= 1 << (grain % 64);
                }
            }
        }
    }

    /// Numbers of grains that the stream leaves out; neighbouring gaps may come in parts.
    pub(super) fn next_gap(&mut self) -> Option<Range<u64>> {
        loop {
            let gap = self.gaps.as_mut()?.pop_front();
            if gap.is_some() || !self.ended {
                return gap;
            }
            match &mut self.kind {
                Kind::Any { open, tables, .. } if !tables.is_empty() => close_first(open, tables, &mut self.gaps),
                _ => return None,
            }
        }
    }
}

/// Closes the lowest open table: what it and the tables before it do not have is a gap.
fn close_first(open: &mut u64, tables: &mut BTreeMap<u64, Bits>, gaps: &mut Option<VecDeque<Range<u64>>>) {
    let Some((table, bits)) = tables.pop_first() else { return };
    let mut start = *open * ENTRIES;
    for grain in (0..ENTRIES).filter(|grain| bits[(grain / 64) as usize] & 1 << (grain % 64) != 0) {
        let grain = table * ENTRIES + grain;
        keep(gaps, start..grain);
        start = grain + 1;
    }
    *open = table + 1;
    keep(gaps, start..*open * ENTRIES);
}

fn keep(gaps: &mut Option<VecDeque<Range<u64>>>, gap: Range<u64>) {
    let Some(gaps) = gaps.as_mut().filter(|_| !gap.is_empty()) else { return };
    match gaps.back_mut() {
        Some(last) if last.end == gap.start => last.end = gap.end,
        _ => gaps.push_back(gap),
    }
}

/// Tables with grains under way: 10 MiB or so.
const OPEN_TABLES: usize = 128 << 10;

const ENTRIES: u64 = ENTRIES_PER_TABLE as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps_of(order: &mut Order) -> Vec<Range<u64>> {
        let mut all: Vec<Range<u64>> = Vec::new();
        while let Some(gap) = order.next_gap() {
            match all.last_mut() {
                Some(last) if last.end == gap.start => last.end = gap.end,
                _ => all.push(gap),
            }
        }
        all
    }

    #[test]
    fn gaps_are_what_did_not_come_whatever_the_order() {
        let grains = [3, 4, 511, 512, 1999, 5000];
        let expected = [0..3, 5..511, 513..1999, 2000..5000, 5001..5003];
        let mut ascending = Order::new(GrainOrder::Ascending);
        ascending.keep_gaps();
        grains.iter().for_each(|grain| ascending.note(*grain).unwrap());
        ascending.end(5003);
        assert_eq!(gaps_of(&mut ascending), expected);
        let mut any = Order::new(GrainOrder::Any);
        any.keep_gaps();
        grains.iter().rev().for_each(|grain| any.note(*grain).unwrap());
        any.end(5003);
        assert_eq!(gaps_of(&mut any), expected);
        for whole in [GrainOrder::Ascending, GrainOrder::Any] {
            let mut order = Order::new(whole);
            order.keep_gaps();
            (0..1024).for_each(|grain| order.note(grain).unwrap());
            order.end(1024);
            assert_eq!(gaps_of(&mut order), []);
        }
    }

    #[test]
    fn no_grain_comes_twice_or_back() {
        let mut order = Order::new(GrainOrder::Ascending);
        order.note(7).unwrap();
        assert!(order.note(7).is_err() && order.note(6).is_err());
        let mut order = Order::new(GrainOrder::Any);
        order.note(7).unwrap();
        order.note(6).unwrap();
        assert!(order.note(7).is_err());
    }

    #[test]
    fn few_tables_are_open_at_once() {
        let kind = Kind::Any { open: 0, tables: BTreeMap::new(), limit: 2 };
        let mut order = Order { kind, gaps: None, ended: false };
        order.keep_gaps();
        for table in [2, 1, 0] {
            order.note(table * ENTRIES).unwrap();
        }
        assert_eq!(order.next_gap(), Some(1..ENTRIES));
        assert_eq!(order.next_gap(), None);
        assert!(order.note(5).is_err(), "its table is closed");
        order.note(ENTRIES + 1).unwrap();
    }
}
