//! The walk over pages: an honest server is believed to the byte, a lying one never past a rule.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard},
};

use futures_util::TryStreamExt as _;
use proptest::{collection::vec, prelude::*};
use vsphere_cbt::{AreaSource, Areas, Error, Page, Result, Walk};

const CAPACITY: u64 = 1000;

/// Cuts the truth into pages of the given lengths, the last of which reaches the end.
struct Honest {
    truth: Areas,
    lengths: Mutex<VecDeque<u64>>,
}

impl AreaSource for Honest {
    async fn page(&self, start: u64) -> Result<Page> {
        let length = lock(&self.lengths).pop_front().unwrap_or(CAPACITY);
        let window = start..(start + length).min(CAPACITY);
        Ok(Page { areas: self.truth.clip(window.clone()).into_vec(), window })
    }

    fn subject(&self) -> String {
        "disk 2000".to_owned()
    }
}

/// Says whatever it was told to say, from where it was asked when `echo` is set.
struct Liar {
    pages: Mutex<VecDeque<(bool, Page)>>,
    asked: Mutex<u64>,
}

impl AreaSource for Liar {
    async fn page(&self, start: u64) -> Result<Page> {
        *lock(&self.asked) += 1;
        // In the end it says nothing at all, for ever.
        let (echo, mut page) = lock(&self.pages).pop_front().unwrap_or((true, Page::default()));
        if echo {
            let length = page.window.end.saturating_sub(page.window.start);
            page.window = start..start.saturating_add(length);
        }
        Ok(page)
    }

    fn subject(&self) -> String {
        "disk 2000".to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// What came before the end or the error, and the error.
fn walk(source: impl AreaSource) -> (Vec<Range<u64>>, Option<Error>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut stream = Box::pin(Walk::new(CAPACITY).areas(source));
        let mut ranges = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(range)) => ranges.push(range),
                Ok(None) => return (ranges, None),
                Err(error) => return (ranges, Some(error)),
            }
        }
    })
}

fn range(limit: u64) -> impl Strategy<Value = Range<u64>> {
    (0..=limit, 0..=limit).prop_map(|(start, end)| start..end) // Reversed ones too.
}

proptest! {
    #[test]
    fn an_honest_server_is_believed_to_the_byte(
        ranges in vec((0..CAPACITY, 1..60_u64), 0..40),
        lengths in vec(1..300_u64, 0..30),
    ) {
        let truth: Areas = ranges.into_iter().map(|(start, len)| start..(start + len).min(CAPACITY)).collect();
        let (found, error) = walk(Honest { truth: truth.clone(), lengths: Mutex::new(lengths.into()) });
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(found, truth.into_vec());
    }

    #[test]
    fn a_liar_ends_in_an_error_and_never_leaves_the_disk(
        pages in vec((any::<bool>(), range(CAPACITY + 50), vec(range(CAPACITY + 50), 0..4)), 0..12),
    ) {
        let pages: VecDeque<_> =
            pages.into_iter().map(|(echo, window, areas)| (echo, Page { window, areas })).collect();
        let most = pages.len() as u64 + 1;
        let liar = Liar { pages: Mutex::new(pages), asked: Mutex::new(0) };
        let (found, error) = walk(&liar);
        prop_assert!(*lock(&liar.asked) <= most);
        prop_assert!(found.iter().all(|range| !range.is_empty() && range.end <= CAPACITY));
        prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
        if let Some(error) = error {
            prop_assert!(error.needs_full_backup());
        }
    }
}
