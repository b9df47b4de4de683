//! Items of a tree that are other than what is stored, because its log was replayed in memory.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    Volume,
    tree::{Around, Key, Tree},
};
use crate::error::{Error, Result};

/// What is other than stored in one tree.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Items that are new, or instead of stored ones.
    put: BTreeMap<Key, Arc<[u8]>>,
    /// Stored items that are gone, from the first key of a range to its last. Ranges do not touch each other.
    gone: BTreeMap<Key, Key>,
    /// What all this takes in memory, about.
    bytes: usize,
}

impl Changes {
    /// Whether nothing is other than stored.
    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }

    /// Sets an item.
    pub(super) fn put(&mut self, key: Key, item: Vec<u8>) -> Result<()> {
        self.grow(item.len())?;
        if let Some(old) = self.put.insert(key, item.into()) {
            self.bytes -= EACH + old.len();
        }
        Ok(())
    }

    /// Removes all items from one key to another.
    pub(super) fn remove(&mut self, first: Key, last: Key) -> Result<()> {
        if first > last {
            return Ok(());
        }
        let dropped: Vec<_> = self.put.range(first..=last).map(|(key, _)| *key).collect();
        for key in dropped {
            let old = self.put.remove(&key);
            self.bytes -= EACH + old.map_or(0, |old| old.len());
        }
        let (mut first, mut last) = (first, last);
        if let Some((start, end)) = self.gone.range(..=first).next_back()
            && (*end >= first || end.next() == Some(first))
        {
            (first, last) = (*start, last.max(*end));
        }
        while let Some((start, end)) = self.gone.range(first..).next().map(|(start, end)| (*start, *end)) {
            if start > last && last.next() != Some(start) {
                break;
            }
            last = last.max(end);
            self.gone.remove(&start);
            self.bytes -= EACH;
        }
        self.grow(0)?;
        self.gone.insert(first, last);
        Ok(())
    }

    /// The range of gone items that a key is in.
    fn gone(&self, key: Key) -> Option<(Key, Key)> {
        let (first, last) = self.gone.range(..=key).next_back()?;
        (*last >= key).then_some((*first, *last))
    }

    fn grow(&mut self, len: usize) -> Result<()> {
        self.bytes += EACH + len;
        if self.bytes > MOST {
            let reason = format!("what it changes takes more than {} MiB", MOST >> 20);
            return Err(Error::unsupported("the log of this Btrfs", reason));
        }
        Ok(())
    }
}

/// A tree with what is other in it than stored.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) volume: &'a Volume,
    pub(super) tree: Tree,
    pub(super) changes: &'a Changes,
}

impl View<'_> {
    /// Goes through the items from a key on, until `take` says no.
    pub(super) fn each_item(&self, from: Key, mut take: impl FnMut(Key, &[u8]) -> Result<bool>) -> Result<()> {
        let mut ours = self.changes.put.range(from..).peekable();
        let mut goes_on = true;
        self.volume.stored_each(self.tree, from, |key, item| {
            while let Some((our_key, our_item)) = ours.next_if(|(our_key, _)| **our_key <= key) {
                goes_on = take(*our_key, our_item)?;
                if !goes_on || *our_key == key {
                    return Ok(goes_on);
                }
            }
            if self.changes.gone(key).is_none() {
                goes_on = take(key, item)?;
            }
            Ok(goes_on)
        })?;
        for (key, item) in ours {
            goes_on = goes_on && take(*key, item)?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// The item with a key.
    pub(super) fn item(&self, key: Key) -> Result<Option<Vec<u8>>> {
        match self.changes.put.get(&key) {
            Some(item) => Ok(Some(item.to_vec())),
            None if self.changes.gone(key).is_some() => Ok(None),
            None => self.volume.stored_item(self.tree, key),
        }
    }

    /// The last item up to a key, and the key of the first one after that.
    pub(super) fn around(&self, key: Key) -> Result<Around> {
        let stored = |key| self.volume.stored_around(self.tree, key);
        let (mut last, mut next) = stored(key)?;
        // Ranges of gone items are stepped over as a whole. Items that are out of order must not lead in a circle.
        while let Some((first, _)) = last.as_ref().and_then(|(found, _)| self.changes.gone(*found)) {
            last = match first.previous() {
                Some(before) => stored(before)?.0.filter(|(found, _)| *found <= before),
                None => None,
            };
        }
        while let Some((_, end)) = next.and_then(|found| self.changes.gone(found)) {
            next = stored(end)?.1.filter(|found| *found > end);
        }
        let put = &self.changes.put;
        if let Some((ours, item)) = put.range(..=key).next_back()
            && last.as_ref().is_none_or(|(found, _)| found <= ours)
        {
            last = Some((*ours, item.to_vec()));
        }
        let ours = put.range((Bound::Excluded(key), Bound::Unbounded)).next().map(|(key, _)| *key);
        Ok((last, next.into_iter().chain(ours).min()))
    }
}

impl Volume {
    /// Goes through the items of a tree from a key on, until `take` says no.
    pub(super) fn each_item(&self, tree: Tree, from: Key, take: impl FnMut(Key, &[u8]) -> Result<bool>) -> Result<()> {
        match self.view(tree) {
            Some(view) => view.each_item(from, take),
            None => self.stored_each(tree, from, take),
        }
    }

    /// The item of a tree with a key.
    pub(super) fn item(&self, tree: Tree, key: Key) -> Result<Option<Vec<u8>>> {
        self.view(tree).map_or_else(|| self.stored_item(tree, key), |view| view.item(key))
    }

    /// The last item of a tree up to a key, and the key of the first one after that.
    pub(super) fn around(&self, tree: Tree, key: Key) -> Result<Around> {
        self.view(tree).map_or_else(|| self.stored_around(tree, key), |view| view.around(key))
    }

    fn view(&self, tree: Tree) -> Option<View<'_>> {
        let changes = self.changes.get(&tree.id)?;
        Some(View { volume: self, tree, changes })
    }
}

/// What an item or a range takes in memory besides its bytes, about.
const EACH: usize = 100;
/// What changes to one tree may take in memory. The kernel commits long before a log is as large.
const MOST: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(offset: u64) -> Key {
        Key::new(1, 1, offset)
    }

    #[test]
    fn ranges_that_touch_become_one_and_what_is_put_later_stays() {
        let mut changes = Changes::default();
        changes.put(key(15), vec![1]).unwrap();
        changes.remove(key(10), key(19)).unwrap();
        changes.remove(key(30), key(39)).unwrap();
        assert_eq!(changes.gone.len(), 2);
        changes.put(key(12), vec![2]).unwrap();
        changes.remove(key(20), key(29)).unwrap();
        assert_eq!(changes.gone.clone().into_iter().collect::<Vec<_>>(), [(key(10), key(39))]);
        assert_eq!(changes.put.keys().copied().collect::<Vec<_>>(), [key(12)]);
        assert_eq!(changes.gone(key(39)), Some((key(10), key(39))));
        assert_eq!(changes.gone(key(40)), None);
        changes.remove(key(0), key(u64::MAX)).unwrap();
        assert_eq!((changes.gone.len(), changes.put.len(), changes.bytes), (1, 0, EACH));
        changes.remove(key(3), key(2)).unwrap();
        assert_eq!(changes.gone.len(), 1);
    }

    #[test]
    fn more_than_fits_is_refused() {
        let mut changes = Changes::default();
        assert!((0..3).any(|number| changes.put(key(number), vec![0; MOST / 2]).is_err()));
    }
}
