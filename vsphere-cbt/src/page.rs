//! One answer of `QueryChangedDiskAreas`, and the checks that every answer has to pass.
//!
//! Everything here is plain data: no server, no time. The rules are those that keep a backup from losing bytes or from
//! asking for ever; a server that breaks one of them gets an error, never a silent end.

use std::ops::Range;

/// One answer, as the server gave it. All offsets are bytes.
#[doc(alias = "DiskChangeInfo")]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The part of the disk that the answer is about; the next question begins at its end.
    pub window: Range<u64>,
    /// The changed areas in it.
    #[doc(alias = "DiskChangeExtent")]
    pub areas: Vec<Range<u64>>,
}

/// How an answer contradicts the question, the disk or itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageProblem {
    /// The answer is about another part of the disk than asked for.
    #[error("asked from byte {asked}, it answered from byte {answered}")]
    WrongStart {
        /// The offset in the question.
        asked: u64,
        /// The offset in the answer.
        answered: u64,
    },
    /// The answer covers nothing, so asking on would never end and stopping would lose the rest of the disk.
    #[error("the answer from byte {start} covers nothing")]
    NoProgress {
        /// The offset of question and answer.
        start: u64,
    },
    /// The answer covers bytes that the disk does not have: the capacity is not that of the snapshot.
    #[error("the answer covers bytes {}..{}, but the disk has {capacity}", window.start, window.end)]
    BeyondDisk {
        /// What the answer covers.
        window: Range<u64>,
        /// The disk's size.
        capacity: u64,
    },
    /// An area without bytes.
    #[error("area {index} of the answer from byte {start} has no bytes")]
    EmptyArea {
        /// The offset of question and answer.
        start: u64,
        /// Which area, from 0.
        index: usize,
    },
    /// An area leaves the part of the disk that the answer is about.
    #[error(
        "area {index}, bytes {}..{}, leaves the answer's own bytes {}..{}",
        area.start, area.end, window.start, window.end
    )]
    OutsideWindow {
        /// What the answer covers.
        window: Range<u64>,
        /// Which area, from 0.
        index: usize,
        /// The area.
        area: Range<u64>,
    },
    /// An area begins before the one before it ends.
    #[error("area {index} begins at byte {start}, before the end of its predecessor at {previous_end}")]
    NotAscending {
        /// Which area, from 0.
        index: usize,
        /// First byte of the area.
        start: u64,
        /// The byte after the last of the area before it.
        previous_end: u64,
    },
}

/// Where a walk over a disk has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    next: u64,
    capacity: u64,
}

impl Cursor {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { next: 0, capacity }
    }

    /// The offset to ask from; `None` when the whole disk has been answered for.
    pub(crate) fn next_start(&self) -> Option<u64> {
        (self.next < self.capacity).then_some(self.next)
    }

    /// Checks the answer to the question at [`next_start`](Self::next_start) and moves on behind it.
    pub(crate) fn accept(&mut self, page: &Page) -> Result<(), PageProblem> {
        let Self { next: asked, capacity } = *self;
        let window = &page.window;
        if window.start != asked {
            return Err(PageProblem::WrongStart { asked, answered: window.start });
        }
        if window.is_empty() {
            return Err(PageProblem::NoProgress { start: asked });
        }
        if window.end > capacity {
            return Err(PageProblem::BeyondDisk { window: window.clone(), capacity });
        }
        let mut previous_end = asked;
        for (index, area) in page.areas.iter().enumerate() {
            if area.is_empty() {
                return Err(PageProblem::EmptyArea { start: asked, index });
            }
            if area.start < window.start || area.end > window.end {
                return Err(PageProblem::OutsideWindow { window: window.clone(), index, area: area.clone() });
            }
            if area.start < previous_end {
                return Err(PageProblem::NotAscending { index, start: area.start, previous_end });
            }
            previous_end = area.end;
        }
        self.next = window.end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page<const N: usize>(window: Range<u64>, areas: [Range<u64>; N]) -> Page {
        Page { window, areas: areas.into() }
    }

    fn refused<const N: usize>(window: Range<u64>, areas: [Range<u64>; N]) -> PageProblem {
        let mut cursor = Cursor { next: 100, capacity: 1000 };
        let problem = cursor.accept(&page(window, areas)).unwrap_err();
        assert_eq!(cursor.next, 100, "a refused answer moves nothing");
        problem
    }

    #[test]
    fn answers_join_up_to_the_end_of_the_disk() {
        let mut cursor = Cursor::new(1000);
        assert_eq!(cursor.accept(&page(0..600, [0..10, 10..15, 590..600])), Ok(()));
        assert_eq!(cursor.next_start(), Some(600));
        assert_eq!(cursor.accept(&page(600..1000, [])), Ok(()));
        assert_eq!(cursor.next_start(), None);
    }

    #[test]
    fn an_empty_disk_is_never_asked_about() {
        assert_eq!(Cursor::new(0).next_start(), None);
    }

    #[test]
    fn start_has_to_echo_the_question() {
        assert_eq!(refused(0..10, []), PageProblem::WrongStart { asked: 100, answered: 0 });
        assert_eq!(refused(200..300, []), PageProblem::WrongStart { asked: 100, answered: 200 });
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that a server sends them is the point")]
    fn an_answer_without_progress_is_an_error_and_not_the_end() {
        assert_eq!(refused(100..100, []), PageProblem::NoProgress { start: 100 });
        assert_eq!(refused(100..50, []), PageProblem::NoProgress { start: 100 });
    }

    #[test]
    fn an_answer_stays_inside_the_disk() {
        assert_eq!(refused(100..1001, []), PageProblem::BeyondDisk { window: 100..1001, capacity: 1000 });
    }

    #[test]
    fn areas_lie_inside_their_answer() {
        for area in [99..110, 195..201, 900..910, 50..100] {
            assert!(
                matches!(refused(100..200, [area.clone()]), PageProblem::OutsideWindow { index: 0, .. }),
                "{area:?}"
            );
        }
    }

    #[test]
    fn areas_ascend_and_do_not_overlap() {
        for second in [110..120, 119..121, 100..105] {
            let problem = refused(100..200, [110..120, second.clone()]);
            assert_eq!(problem, PageProblem::NotAscending { index: 1, start: second.start, previous_end: 120 });
        }
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that a server sends them is the point")]
    fn areas_have_bytes() {
        for area in [110..110, 120..110] {
            assert_eq!(refused(100..200, [area]), PageProblem::EmptyArea { start: 100, index: 0 });
        }
    }
}
