//! What a disk says of itself: its descriptor, read and edited while the disk is open.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{PoisonError, atomic::Ordering},
};

use super::{
    Disk,
    chain::{Chain, Link},
};
use crate::{
    descriptor::{Cid, Descriptor},
    error::{Error, Result},
};

impl Chain {
    /// All entries of the disk data bases, link by link: keys come as often as links have them.
    pub(super) fn ddb_entries(links: &[Link]) -> impl Iterator<Item = (String, String)> {
        links.iter().filter_map(|link| link.descriptor.as_ref()).flat_map(|described| entries(&described.descriptor))
    }
}

/// Keeps the first of the entries with the same key, whatever its case.
pub(super) fn first_of_each(entries: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    entries.filter(|(key, _)| seen.insert(key.to_ascii_lowercase())).collect()
}

fn entries(descriptor: &Descriptor) -> Vec<(String, String)> {
    descriptor.ddb().map(|(key, value)| (Cow::into_owned(key), Cow::into_owned(value))).collect()
}

impl Disk {
    /// A copy of the disk's own descriptor; `None` for raw disks and bare sparse extents.
    pub fn descriptor(&self) -> Option<Descriptor> {
        self.descriptor.as_ref().map(|file| file.read(Clone::clone))
    }

    /// A value of the disk data base, from the first link that has it, the disk itself first.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn ddb_get(&self, key: &str) -> Option<String> {
        let own = self.descriptor.as_ref().and_then(|file| file.read(|found| Some(found.ddb_get(key)?.into_owned())));
        own.or_else(|| Chain::ddb_get(&self.chain.links[1..], key))
    }

    /// All keys of the disk data base with their values, each from the first link that has it, the disk itself first.
    #[doc(alias = "VixDiskLib_GetMetadataKeys")]
    pub fn ddb_list(&self) -> Vec<(String, String)> {
        let own = self.descriptor.iter().flat_map(|file| file.read(entries));
        first_of_each(own.chain(Chain::ddb_entries(&self.chain.links[1..])))
    }

    /// Sets a value of the disk's own data base, in the file at once.
    ///
    /// The change of a text descriptor survives a crash whole or not at all: a change inside one sector, such as a
    /// new content id, is one write, and any other puts a new file in the old one's place where the storage can
    /// ([`Resolver::replace`](super::Resolver::replace)). A descriptor inside of a sparse file is written over in one
    /// write; a power failure in its middle may tear it at a sector.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] for disks without a descriptor or not open for writing, [`Error::InvalidInput`]
    /// for values that cannot be written or do not fit.
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub fn ddb_set(&self, key: &str, value: &str) -> Result<()> {
        self.edit_descriptor(|descriptor| descriptor.ddb_set(key, value))
    }

    /// Removes a value of the disk's own data base, in the file at once; returns whether it was there.
    ///
    /// # Errors
    /// As [`Disk::ddb_set`].
    pub fn ddb_remove(&self, key: &str) -> Result<bool> {
        let mut removed = false;
        self.edit_descriptor(|descriptor| {
            removed = descriptor.ddb_remove(key);
            Ok(())
        })?;
        Ok(removed)
    }

    /// Forgets changed block tracking, as [`Descriptor::strip_change_tracking`], in the file at once; returns whether
    /// anything changed. The tracking file itself stays.
    ///
    /// Writes through this crate are not tracked. A disk that is changed while its descriptor names a tracking file
    /// must lose it, or the next incremental backup on its host misses those changes.
    ///
    /// # Errors
    /// As [`Disk::ddb_set`].
    pub fn strip_change_tracking(&self) -> Result<bool> {
        let mut stripped = false;
        self.edit_descriptor(|descriptor| {
            stripped = descriptor.strip_change_tracking();
            Ok(())
        })?;
        Ok(stripped)
    }

    /// Gives the disk a new content id before its first change, on stable storage, so that no crash can leave
    /// changed bytes under the old one.
    pub(super) fn note_change(&self) -> Result<()> {
        if self.cid_updated.load(Ordering::Acquire) {
            return Ok(());
        }
        let _lock = self.cid_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.cid_updated.load(Ordering::Acquire) {
            if let Some(file) = &self.descriptor {
                file.edit(|descriptor| descriptor.set_cid(Cid::random()))?;
                file.sync()?;
            }
            self.cid_updated.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn edit_descriptor(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        const OPERATION: &str = "change the descriptor of";
        self.check_writable(OPERATION)?;
        match &self.descriptor {
            Some(file) => file.edit(change),
            None => Err(Error::ReadOnly { operation: OPERATION, object: self.name(), reason: "it has none" }),
        }
    }
}
