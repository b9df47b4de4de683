//! Directories that are listed a block at a time.

use std::collections::VecDeque;

use super::{Entries, Entry};
use crate::error::Result;

/// Lists what `refill` brings, batch by batch: it puts entries into the queue and tells whether there may be more. After
/// an error the list ends.
pub(super) fn batches(refill: impl FnMut(&mut VecDeque<Entry>) -> Result<bool> + Send + 'static) -> Entries {
    Box::new(Batches { refill, ready: VecDeque::new(), done: false })
}

struct Batches<F> {
    refill: F,
    ready: VecDeque<Entry>,
    done: bool,
}

impl<F: FnMut(&mut VecDeque<Entry>) -> Result<bool>> Iterator for Batches<F> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.done {
                return None;
            }
            match (self.refill)(&mut self.ready) {
                Ok(more) => self.done = !more,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
