//! What the handles in a program's hands stand for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Things of one kind by handle.
///
/// A handle is a number in the clothes of a pointer. It is never used as one, and never used again: whatever a program
/// passes, the answer is the right thing or none.
pub(crate) struct Table<T> {
    things: RwLock<BTreeMap<usize, Arc<T>>>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { things: RwLock::new(BTreeMap::new()) }
    }

    /// Keeps a thing and makes its handle.
    pub(crate) fn insert(&self, thing: Arc<T>) -> usize {
        // Odd, so that no pointer of an allocator is equal to a handle.
        let handle = NEXT.fetch_add(1, Ordering::Relaxed) * 2 + 1;
        let mut things = self.things.write().unwrap_or_else(PoisonError::into_inner);
        things.insert(handle, thing);
        handle
    }

    pub(crate) fn find(&self, handle: usize) -> Option<Arc<T>> {
        let things = self.things.read().unwrap_or_else(PoisonError::into_inner);
        things.get(&handle).cloned()
    }

    /// Makes a handle invalid. Who holds the thing may use it on.
    pub(crate) fn remove(&self, handle: usize) -> Option<Arc<T>> {
        self.things.write().unwrap_or_else(PoisonError::into_inner).remove(&handle)
    }

    /// Makes all handles invalid.
    pub(crate) fn clear(&self) -> Vec<Arc<T>> {
        let mut things = self.things.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *things).into_values().collect()
    }
}

/// Shared by all tables, so that a handle of one is none of another.
static NEXT: AtomicUsize = AtomicUsize::new(0x1000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_valid_until_removed_and_only_in_their_own_table() {
        let (numbers, texts) = (Table::new(), Table::new());
        let (one, two) = (numbers.insert(Arc::new(1)), numbers.insert(Arc::new(2)));
        let text = texts.insert(Arc::new("a"));
        assert_eq!((numbers.find(one).as_deref(), numbers.find(two).as_deref()), (Some(&1), Some(&2)));
        assert!(numbers.find(text).is_none() && texts.find(one).is_none() && numbers.find(0).is_none());
        assert_eq!(numbers.remove(one).as_deref(), Some(&1));
        assert!(numbers.find(one).is_none() && numbers.remove(one).is_none());
        let three = numbers.insert(Arc::new(3));
        assert!(three != one, "a handle is never used again");
        assert_eq!(numbers.clear().len(), 2);
        assert!(numbers.find(two).is_none());
    }
}
