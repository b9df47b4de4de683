//! The range algebra against a model: one bit for each byte of a small disk.

use std::{num::NonZeroU64, ops::Range};

use proptest::{collection::vec, prelude::*};
use vsphere_cbt::{
    Areas, ChangeId,
    areas::{Joiner, pieces},
};

const SIZE: u64 = 256;

type Bits = [bool; SIZE as usize];

fn bits(areas: &Areas) -> Bits {
    let mut bits = [false; SIZE as usize];
    for range in areas.iter() {
        bits[range.start as usize..range.end as usize].fill(true);
    }
    bits
}

/// True when the ranges ascend, are not empty, and neither overlap nor touch.
fn is_canonical(areas: &Areas) -> bool {
    let ranges = areas.as_slice();
    ranges.iter().all(|range| !range.is_empty()) && ranges.windows(2).all(|pair| pair[0].end < pair[1].start)
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..=SIZE, 0..40_u64).prop_map(|(start, len)| start..(start + len).min(SIZE))
}

fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    vec(range(), 0..24)
}

fn areas() -> impl Strategy<Value = Areas> {
    ranges().prop_map(|ranges| ranges.into_iter().collect())
}

proptest! {
    #[test]
    fn collecting_and_inserting_are_the_same(ranges in ranges()) {
        let collected: Areas = ranges.iter().cloned().collect();
        let mut inserted = Areas::new();
        let mut model = [false; SIZE as usize];
        for range in ranges {
            model[range.start as usize..range.end as usize].fill(true);
            inserted.insert(range);
        }
        prop_assert!(is_canonical(&collected));
        prop_assert_eq!(bits(&collected), model);
        prop_assert_eq!(collected, inserted);
    }

    #[test]
    fn set_operations_are_those_of_the_bits(a in areas(), b in areas()) {
        let (left, right) = (bits(&a), bits(&b));
        let model = |combine: fn(bool, bool) -> bool| -> Bits { std::array::from_fn(|at| combine(left[at], right[at])) };
        let results = [
            (a.union(&b), model(|a, b| a || b)),
            (a.intersect(&b), model(|a, b| a && b)),
            (a.subtract(&b), model(|a, b| a && !b)),
            (a.complement(0..SIZE), model(|a, _| !a)),
        ];
        for (result, model) in results {
            prop_assert!(is_canonical(&result), "{:?}", result);
            prop_assert_eq!(bits(&result), model);
        }
        let mut extended = a.clone();
        extended.extend(b.iter());
        prop_assert_eq!(extended, a.union(&b));
    }

    #[test]
    fn questions_are_answered_as_by_the_bits(set in areas(), range in range(), offset in 0..SIZE) {
        let model = bits(&set);
        let part = &model[range.start as usize..range.end as usize];
        prop_assert_eq!(set.contains(offset), model[offset as usize]);
        prop_assert_eq!(set.overlaps(&range), part.iter().any(|bit| *bit));
        prop_assert_eq!(set.covers(&range), part.iter().all(|bit| *bit));
        prop_assert_eq!(set.total(), model.iter().filter(|bit| **bit).count() as u64);
        prop_assert_eq!(bits(&set.clip(range.clone())), {
            let mut clipped = [false; SIZE as usize];
            clipped[range.start as usize..range.end as usize].copy_from_slice(part);
            clipped
        });
    }

    #[test]
    fn coalescing_fills_exactly_the_gaps_up_to_the_limit(set in areas(), gap in 0..50_u64) {
        let joined = set.coalesce(gap);
        prop_assert!(is_canonical(&joined));
        let holes = set.complement(set.span());
        let expected: Areas = set.iter().chain(holes.iter().filter(|hole| hole.end - hole.start <= gap)).collect();
        prop_assert_eq!(joined, expected);
    }

    #[test]
    fn aligning_takes_every_touched_cell_and_no_other(set in areas(), grid in 1..70_u64, limit in 0..=SIZE) {
        let aligned = set.align(NonZeroU64::new(grid).unwrap(), limit);
        prop_assert!(is_canonical(&aligned));
        let model = bits(&set);
        for at in 0..SIZE {
            let cell = at / grid * grid..((at / grid + 1) * grid).min(limit);
            let touched = cell.clone().any(|byte| model[byte as usize]);
            prop_assert_eq!(aligned.contains(at), at < limit && touched, "byte {}, cell {:?}", at, cell);
        }
    }

    #[test]
    fn pieces_are_the_same_bytes_and_cross_no_border(set in areas(), cell in 1..70_u64) {
        let cell = NonZeroU64::new(cell).unwrap();
        let cut: Vec<_> = set.pieces(cell).collect();
        prop_assert!(cut.iter().all(|piece| !piece.is_empty() && piece.start / cell == (piece.end - 1) / cell));
        prop_assert!(cut.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert_eq!(cut.into_iter().collect::<Areas>(), set);
    }

    #[test]
    fn pieces_end_at_the_end_of_the_range(start in 0..u64::MAX, len in 1..5000_u64, cell in 1000..u64::MAX) {
        let range = start..start.saturating_add(len);
        let cut: Vec<_> = pieces(range.clone(), NonZeroU64::new(cell).unwrap()).collect();
        prop_assert_eq!((cut[0].start, cut[cut.len() - 1].end), (range.start, range.end));
    }

    #[test]
    fn a_joiner_fed_one_by_one_equals_the_set_operation(set in areas(), grid in 1..70_u64, gap in 0..50_u64) {
        let grid = NonZeroU64::new(grid).unwrap();
        let mut joiner = Joiner::new().grid(grid, SIZE).gap(gap);
        let mut out: Vec<_> = set.iter().filter_map(|range| joiner.push(range)).collect();
        out.extend(joiner.finish());
        prop_assert_eq!(out, set.align(grid, SIZE).coalesce(gap).into_vec());
        prop_assert_eq!(joiner.finish(), None);
    }

    #[test]
    fn parsing_a_change_id_never_panics_and_keeps_the_text(text in "\\PC*") {
        if let Ok(id) = text.parse::<ChangeId>() {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(id.same_epoch(&id));
        }
    }

    #[test]
    fn well_formed_change_ids_parse(epoch in "[0-9a-f -]{1,60}", sequence: u64) {
        let id: ChangeId = format!("{epoch}/{sequence}").parse().unwrap();
        prop_assert_eq!(id.sequence(), sequence);
        prop_assert_eq!(id.epoch(), &epoch);
    }
}
