//! Names: entries of directories and the references that inodes have to them.

use super::{
    DIR_INDEX, DIR_ITEM, DIR_LOG_INDEX, Fields, INODE_EXTREF, INODE_REF, LINKS, Replay, SIZE, damaged,
    reference::{Reference, keys},
    set,
};
use crate::{
    bytes::le_u64,
    error::Result,
    fs::{
        FileKind,
        btrfs::{
            directory::{DirItem, name_hash},
            inode::INODE_ITEM,
            tree::Key,
        },
    },
};

/// An entry of a directory.
#[derive(Clone, Debug)]
struct Name {
    location: Key,
    name: Vec<u8>,
    kind: u8,
}

impl Name {
    fn of(item: &DirItem<'_>) -> Self {
        Self { location: item.location, name: item.name.to_vec(), kind: item.kind }
    }

    fn all(item: &[u8]) -> Result<Vec<Self>> {
        let all = DirItem::all(item).ok_or_else(|| damaged("an entry of a directory is none"))?;
        Ok(all.iter().map(Self::of).collect())
    }

    fn item(&self) -> Vec<u8> {
        let mut item = self.location.object.to_le_bytes().to_vec();
        item.push(self.location.kind);
        item.extend(self.location.offset.to_le_bytes());
        item.extend([0; 10]);
        item.extend((self.name.len() as u16).to_le_bytes());
        item.push(self.kind);
        item.extend(&self.name);
        item
    }
}

impl Replay<'_> {
    /// Removes what was in a directory and is not in the log, of those ranges that the log tells whole.
    pub(super) fn remove_entries(&mut self, directory: u64) -> Result<()> {
        let mut ranges = Vec::new();
        let (volume, log) = (self.volume, self.log);
        volume.stored_each(log, Key::new(directory, DIR_LOG_INDEX, 0), |key, item| {
            if (key.object, key.kind) != (directory, DIR_LOG_INDEX) {
                return Ok(false);
            }
            ranges.push((key.offset, le_u64(item, 0).ok_or_else(|| damaged("a range of names ends early"))?));
            Ok(true)
        })?;
        // What an earlier range has told is not told again.
        let mut from = Some(0);
        for (first, last) in ranges {
            let Some(first) = from.map(|from: u64| from.max(first)).filter(|first| *first <= last) else { continue };
            self.remove_range(directory, first, last, true)?;
            from = last.checked_add(1);
        }
        Ok(())
    }

    fn remove_range(&mut self, directory: u64, first: u64, last: u64, but_logged: bool) -> Result<()> {
        let mut gone = Vec::new();
        self.view().each_item(Key::new(directory, DIR_INDEX, first), |key, item| {
            if (key.object, key.kind) != (directory, DIR_INDEX) || key.offset > last {
                return Ok(false);
            }
            for name in Name::all(item)? {
                self.step(1)?;
                let logged = if but_logged { self.logged(key)? } else { None };
                let logged = logged.as_deref().map(Name::all).transpose()?.unwrap_or_default();
                if !logged.iter().any(|logged| logged.name == name.name) {
                    gone.push(name);
                }
            }
            Ok(true)
        })?;
        gone.iter().try_for_each(|name| self.drop_entry(directory, name))
    }

    /// Replays an entry of a directory.
    pub(super) fn entry(&mut self, key: Key, item: &[u8]) -> Result<()> {
        Name::all(item)?.iter().try_for_each(|name| self.entry_of(key, name))
    }

    fn entry_of(&mut self, key: Key, new: &Name) -> Result<()> {
        let directory = key.object;
        self.existing(directory)?;
        let target = new.location.object;
        let is_inode = new.location.kind == INODE_ITEM;
        let exists = is_inode && self.exists(target)?;
        let by_name = self.find(directory, &new.name)?;
        let by_name = self.resolve(directory, by_name, new, exists)?;
        let by_index = self.at_index(key, &new.name)?;
        let by_index = self.resolve(directory, by_index, new, exists)?;
        if by_name && by_index {
            return Ok(());
        }
        if !is_inode {
            // The kernel commits when subvolumes come and go.
            return Err(damaged("a subvolume came since the last commit"));
        }
        // A name that the inode tells as well is added with the inode.
        for reference in keys(target, directory, &new.name) {
            if self.is_logged(reference, directory, &new.name)? {
                return Ok(());
            }
        }
        if !exists || self.find(directory, &new.name)?.is_some() {
            return Ok(());
        }
        let [reference, _] = keys(target, directory, &new.name);
        let old = self.view().item(reference)?.unwrap_or_default();
        let mut all = Reference::all(reference, &old)?;
        if all.iter().any(|old| old.is(directory, &new.name)) {
            return Ok(());
        }
        all.push(Reference { parent: directory, index: key.offset, name: new.name.clone() });
        self.changes.put(reference, Reference::item(reference.kind, &all))?;
        self.add_entry(directory, target, key.offset, &new.name)?;
        if new.kind != OF_DIRECTORY {
            self.count.insert(target);
        }
        Ok(())
    }

    /// Whether what is there is what the log says; if not, it goes when there is something to come.
    fn resolve(&mut self, directory: u64, there: Option<Name>, new: &Name, exists: bool) -> Result<bool> {
        let Some(there) = there else { return Ok(false) };
        if (there.location, there.kind) == (new.location, new.kind) {
            return Ok(true);
        }
        if exists {
            self.drop_entry(directory, &there)?;
        }
        Ok(false)
    }

    /// Replays the names that an inode tells.
    pub(super) fn references(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let (number, logged) = (key.object, Reference::all(key, item)?);
        self.existing(number)?;
        // Each name is looked for among all of them.
        self.step((logged.len() * logged.len()) as u64 / 16)?;
        let mut some_parent = key.kind == INODE_REF && self.exists(key.offset)?;
        for new in &logged {
            // Not all directories of an inode are in the log.
            if !self.exists(new.parent)? {
                continue;
            }
            some_parent = true;
            if self.is_in_directory(number, new)? {
                continue;
            }
            if number == new.parent {
                // The root directory's name for itself.
                return Ok(());
            }
            self.make_room(number, new)?;
            self.add_entry(new.parent, number, new.index, &new.name)?;
        }
        if !some_parent {
            return Ok(());
        }
        let old = self.view().item(key)?.unwrap_or_default();
        for old in Reference::all(key, &old)? {
            if !logged.iter().any(|new| new.is(old.parent, &old.name)) {
                self.unlink(old.parent, number, &old.name)?;
            }
        }
        self.changes.put(key, item.to_vec())
    }

    /// Removes what is in the way of a name: other names of the inode in the same directory of which the log knows
    /// nothing, and other inodes with this name.
    fn make_room(&mut self, number: u64, new: &Reference) -> Result<()> {
        let [short, long] = keys(number, new.parent, &new.name);
        for key in [short, long] {
            let there = self.view().item(key)?.unwrap_or_default();
            let there = Reference::all(key, &there)?;
            if key.kind == INODE_EXTREF && !there.iter().any(|there| there.is(new.parent, &new.name)) {
                continue;
            }
            for victim in there.iter().filter(|victim| victim.parent == new.parent) {
                let [short, long] = keys(number, victim.parent, &victim.name);
                let logged = if key.kind == INODE_REF { short } else { long };
                if !self.is_logged(logged, victim.parent, &victim.name)? {
                    self.unlink(victim.parent, number, &victim.name)?;
                }
            }
        }
        if let Some(there) = self.at_index(Key::new(new.parent, DIR_INDEX, new.index), &new.name)? {
            self.drop_entry(new.parent, &there)?;
        }
        if let Some(there) = self.find(new.parent, &new.name)? {
            self.drop_entry(new.parent, &there)?;
        }
        Ok(())
    }

    /// Whether a name is just as it should be.
    fn is_in_directory(&self, number: u64, reference: &Reference) -> Result<bool> {
        let is_it = |there: Option<Name>| there.is_some_and(|there| there.location.object == number);
        let by_index = self.at_index(Key::new(reference.parent, DIR_INDEX, reference.index), &reference.name)?;
        Ok(is_it(by_index) && is_it(self.find(reference.parent, &reference.name)?))
    }

    /// Whether the log has a name of an inode in one of its items.
    fn is_logged(&self, key: Key, parent: u64, name: &[u8]) -> Result<bool> {
        let Some(item) = self.logged(key)? else { return Ok(false) };
        Ok(Reference::all(key, &item)?.iter().any(|reference| reference.is(parent, name)))
    }

    /// Finds an entry by its name.
    fn find(&self, directory: u64, name: &[u8]) -> Result<Option<Name>> {
        let item = self.view().item(Key::new(directory, DIR_ITEM, name_hash(name)))?;
        Ok(Name::all(&item.unwrap_or_default())?.into_iter().find(|found| found.name == name))
    }

    /// Finds an entry by its place, if it has this name.
    fn at_index(&self, key: Key, name: &[u8]) -> Result<Option<Name>> {
        let item = self.view().item(key)?;
        Ok(Name::all(&item.unwrap_or_default())?.into_iter().find(|found| found.name == name))
    }

    fn drop_entry(&mut self, directory: u64, entry: &Name) -> Result<()> {
        if entry.location.kind != INODE_ITEM {
            return Err(damaged("a subvolume went since the last commit"));
        }
        self.existing(entry.location.object)?;
        self.count.insert(entry.location.object);
        self.unlink(directory, entry.location.object, &entry.name)
    }

    /// Removes a name: both entries and the reference.
    fn unlink(&mut self, directory: u64, number: u64, name: &[u8]) -> Result<()> {
        let missing = || damaged(format!("a name of inode {number} that it removes is not there"));
        let key = Key::new(directory, DIR_ITEM, name_hash(name));
        let mut entries = Name::all(&self.view().item(key)?.unwrap_or_default())?;
        let before = entries.len();
        entries.retain(|entry| entry.name != name);
        if entries.len() == before {
            return Err(missing());
        }
        self.put_or_remove(key, entries.iter().flat_map(Name::item).collect())?;
        let mut index = None;
        for key in keys(number, directory, name) {
            let mut all = Reference::all(key, &self.view().item(key)?.unwrap_or_default())?;
            let Some(at) = all.iter().position(|reference| reference.is(directory, name)) else { continue };
            index = Some(all.remove(at).index);
            self.put_or_remove(key, Reference::item(key.kind, &all))?;
            break;
        }
        let key = Key::new(directory, DIR_INDEX, index.ok_or_else(missing)?);
        self.changes.remove(key, key)?;
        self.resize(directory, |size| size.saturating_sub(2 * name.len() as u64))
    }

    fn put_or_remove(&mut self, key: Key, item: Vec<u8>) -> Result<()> {
        if item.is_empty() { self.changes.remove(key, key) } else { self.changes.put(key, item) }
    }

    /// Adds both entries of a name.
    fn add_entry(&mut self, directory: u64, number: u64, index: u64, name: &[u8]) -> Result<()> {
        let inode = Fields::of(&self.existing(number)?)?;
        let new = Name { location: Key::new(number, INODE_ITEM, 0), name: name.to_vec(), kind: inode.entry }.item();
        let by_index = Key::new(directory, DIR_INDEX, index);
        if self.view().item(by_index)?.is_some() {
            return Err(damaged(format!("two names of directory {directory} have the same place")));
        }
        let by_name = Key::new(directory, DIR_ITEM, name_hash(name));
        let mut all = self.view().item(by_name)?.unwrap_or_default();
        all.extend(&new);
        self.changes.put(by_name, all)?;
        self.changes.put(by_index, new)?;
        self.resize(directory, |size| size.saturating_add(2 * name.len() as u64))
    }

    fn resize(&mut self, directory: u64, new: impl FnOnce(u64) -> u64) -> Result<()> {
        let mut item = self.existing(directory)?;
        let size = Fields::of(&item)?.size;
        set(&mut item, SIZE, new(size));
        self.changes.put(Key::new(directory, INODE_ITEM, 0), item)
    }

    /// Makes an inode's number of links that of its names. A directory that has lost its name loses what is in it.
    pub(super) fn count_names(&mut self, number: u64) -> Result<()> {
        let mut links = 0_u32;
        self.view().each_item(Key::new(number, INODE_REF, 0), |key, item| {
            let is_name = key.object == number && matches!(key.kind, INODE_REF | INODE_EXTREF);
            if is_name {
                links = links.saturating_add(Reference::all(key, item)?.len() as u32);
            }
            Ok(is_name)
        })?;
        let mut item = self.existing(number)?;
        let inode = Fields::of(&item)?;
        if inode.links != links {
            if let Some(field) = item.get_mut(LINKS..LINKS + 4) {
                field.copy_from_slice(&links.to_le_bytes());
            }
            self.changes.put(Key::new(number, INODE_ITEM, 0), item)?;
        }
        if links == 0 && inode.kind == FileKind::Directory {
            self.remove_range(number, 0, u64::MAX, false)?;
        }
        Ok(())
    }
}

/// The type of a directory's entry.
const OF_DIRECTORY: u8 = 2;
