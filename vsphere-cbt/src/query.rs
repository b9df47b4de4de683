//! The changed areas of a disk as a stream: all pages, checked and merged.

use std::{collections::VecDeque, ops::Range};

use futures_core::Stream;
use futures_util::{StreamExt as _, stream};

use crate::{
    areas::Joiner,
    error::{Error, Result},
    page::{Cursor, Page},
};

/// Whoever answers `QueryChangedDiskAreas` for one disk and one change id: one page a call.
///
/// A vCenter or host in production ([`changed_areas`](crate::changed_areas) brings it along), a script in tests, a
/// recorded answer in an audit.
pub trait AreaSource: Send + Sync {
    /// Asks for the areas from byte `start` on.
    ///
    /// The answer may end before the disk does; what is in it is checked by the caller.
    fn page(&self, start: u64) -> impl Future<Output = Result<Page>> + Send;

    /// What the areas are of, for errors: `disk 2000 of VirtualMachine:vm-42`.
    fn subject(&self) -> String;
}

impl<S: AreaSource> AreaSource for &S {
    async fn page(&self, start: u64) -> Result<Page> {
        (**self).page(start).await
    }

    fn subject(&self) -> String {
        (**self).subject()
    }
}

/// How the areas of an [`AreaSource`] are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Walk {
    capacity: u64,
    base_capacity: Option<u64>,
}

impl Walk {
    /// Walks the whole of a disk of `capacity` bytes. The capacity has to be that of the **snapshot's** disk: servers
    /// refuse offsets beyond it, and what lies behind a smaller one would be left out.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, base_capacity: None }
    }

    /// States the capacity at the last backup. Everything behind it is reported as changed, whatever the server says.
    pub fn base_capacity(self, bytes: u64) -> Self {
        Self { base_capacity: Some(bytes), ..self }
    }

    /// Walks. The stream yields ascending ranges that neither overlap nor touch, and ends after the first error.
    ///
    /// # Errors
    /// Those of the source, and [`Error::Answer`] for an answer that breaks a rule.
    pub fn areas<S: AreaSource>(self, source: S) -> impl Stream<Item = Result<Range<u64>>> + Send + use<S> {
        let start = State {
            source,
            cursor: Cursor::new(self.capacity),
            joiner: Joiner::new(),
            ready: VecDeque::new(),
            tail: self.base_capacity.filter(|base| *base < self.capacity).map(|base| base..self.capacity),
        };
        stream::unfold(Some(start), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(Some(range)) => Some((Ok(range), Some(state))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .fuse()
    }
}

struct State<S> {
    source: S,
    cursor: Cursor,
    joiner: Joiner,
    /// Complete ranges of the last page.
    ready: VecDeque<Range<u64>>,
    /// Bytes that the disk did not have at the last backup; taken at the end.
    tail: Option<Range<u64>>,
}

impl<S: AreaSource> State<S> {
    async fn next(&mut self) -> Result<Option<Range<u64>>> {
        loop {
            if let Some(range) = self.ready.pop_front() {
                return Ok(Some(range));
            }
            let Some(start) = self.cursor.next_start() else {
                if let Some(range) = self.tail.take().and_then(|tail| self.joiner.push(tail)) {
                    return Ok(Some(range));
                }
                return Ok(self.joiner.finish());
            };
            let page = self.source.page(start).await?;
            self.cursor.accept(&page).map_err(|problem| Error::Answer { of: self.source.subject(), problem })?;
            let Page { window, areas } = page;
            tracing::debug!(start, end = window.end, areas = areas.len(), "changed areas");
            // The tail is added whole at the end, so that ranges keep ascending.
            let limit = self.tail.as_ref().map_or(u64::MAX, |tail| tail.start);
            let (ready, joiner) = (&mut self.ready, &mut self.joiner);
            ready.extend(areas.into_iter().filter_map(|area| joiner.push(area.start..area.end.min(limit))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::page::PageProblem;

    /// Answers from a list; remembers the questions.
    struct Script {
        pages: Mutex<VecDeque<Page>>,
        asked: Mutex<Vec<u64>>,
    }

    impl Script {
        fn new<const N: usize>(pages: [(Range<u64>, &[Range<u64>]); N]) -> Self {
            let pages = pages.into_iter().map(|(window, areas)| Page { window, areas: areas.to_vec() });
            Self { pages: Mutex::new(pages.collect()), asked: Mutex::default() }
        }
    }

    impl AreaSource for Script {
        async fn page(&self, start: u64) -> Result<Page> {
            self.asked.lock().unwrap().push(start);
            Ok(self.pages.lock().unwrap().pop_front().expect("no more questions than answers"))
        }

        fn subject(&self) -> String {
            "disk 2000 of VirtualMachine:vm-1".to_owned()
        }
    }

    async fn all(walk: Walk, script: &Script) -> Result<Vec<Range<u64>>> {
        walk.areas(script).try_collect().await
    }

    #[tokio::test]
    async fn pages_are_followed_to_the_end_and_merged_across_their_borders() {
        let script = Script::new([(0..400, &[0..100, 300..400]), (400..500, &[]), (500..1000, &[500..600, 600..601])]);
        assert_eq!(all(Walk::new(1000), &script).await.unwrap(), [0..100, 300..400, 500..601]);
        assert_eq!(*script.asked.lock().unwrap(), [0, 400, 500]);

        let touching = Script::new([(0..400, &[300..400]), (400..1000, &[400..500])]);
        assert_eq!(all(Walk::new(1000), &touching).await.unwrap(), [300..500]);
    }

    #[tokio::test]
    async fn an_empty_page_in_the_middle_is_not_the_end() {
        let script = Script::new([(0..500, &[]), (500..1000, &[900..1000])]);
        assert_eq!(all(Walk::new(1000), &script).await.unwrap(), [900..1000]);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_a_rule_ends_the_stream_with_an_error() {
        let script = Script::new([(0..500, &[0..100, 200..300]), (500..500, &[])]);
        let mut stream = Box::pin(Walk::new(1000).areas(&script));
        assert_eq!(stream.next().await.unwrap().unwrap(), 0..100);
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Answer { problem: PageProblem::NoProgress { start: 500 }, .. }));
        assert!(!error.is_retryable());
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none(), "and stays ended");
    }

    #[tokio::test]
    async fn a_disk_that_grew_has_changed_in_its_tail() {
        let walk = Walk::new(1000).base_capacity(600);
        let silent = Script::new([(0..1000, &[10..20])]);
        assert_eq!(all(walk, &silent).await.unwrap(), [10..20, 600..1000]);
        let partial = Script::new([(0..1000, &[10..20, 590..610, 700..710])]);
        assert_eq!(all(walk, &partial).await.unwrap(), [10..20, 590..1000]);
        let none = Script::new([(0..1000, &[])]);
        assert_eq!(all(Walk::new(1000).base_capacity(1000), &none).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_disk_without_bytes_needs_no_question() {
        assert_eq!(all(Walk::new(0), &Script::new([])).await.unwrap(), []);
    }
}
