//! What programs have open.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fuser::Errno;

use super::Failure;
use crate::{
    error::Result,
    fs::{
        Content,
        spans::{Span, Spans},
    },
};

/// Open things by the numbers that the kernel has for them.
pub(super) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }

    pub(super) fn insert(&self, thing: T) -> Result<u64, Failure> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_OPEN {
            return Err(Failure::Code(Errno::ENFILE));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(number, Arc::new(thing));
        Ok(number)
    }

    pub(super) fn get(&self, number: u64) -> Result<Arc<T>, Failure> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned().ok_or(Failure::Code(Errno::EBADF))
    }

    pub(super) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

/// An open file.
pub(super) struct OpenFile {
    pub(super) content: Arc<dyn Content>,
    /// Where the last search for data or holes came to: programs go on from there.
    search: Mutex<Option<Search>>,
}

/// A place in the map of a file.
struct Search {
    spans: Spans,
    here: Span,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    Data,
    Hole,
}

impl OpenFile {
    pub(super) fn new(content: Arc<dyn Content>) -> Self {
        Self { content, search: Mutex::new(None) }
    }

    /// The first byte at or after `offset` that is data, or in a hole; the end of a file counts as a hole.
    pub(super) fn seek(&self, offset: u64, sought: Sought) -> Result<u64, Failure> {
        let size = self.content.size();
        if offset >= size {
            return Err(Failure::Code(Errno::ENXIO));
        }
        let mut kept = self.search.lock().unwrap_or_else(PoisonError::into_inner);
        let mut search = match kept.take() {
            Some(search) if search.here.range.start <= offset => search,
            _ => Search {
                spans: Spans::after(&self.content, offset),
                here: Span { range: offset..offset, is_zero: false },
            },
        };
        let at = loop {
            let Span { range, is_zero } = &search.here;
            if range.end > offset && *is_zero == (sought == Sought::Hole) {
                break range.start.max(offset);
            }
            match search.spans.next() {
                Some(span) => search.here = span?,
                None if sought == Sought::Hole => break size,
                None => return Err(Failure::Code(Errno::ENXIO)),
            }
        };
        if search.here.range.end > at {
            *kept = Some(search);
        }
        Ok(at)
    }
}

/// More than programs have open at once.
const MAX_OPEN: usize = 1 << 16;
