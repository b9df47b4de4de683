//! The disk data base: entries whose key starts with `ddb.`.

use std::borrow::Cow;

use super::{Descriptor, line::Line};
use crate::error::Result;

impl Descriptor {
    /// Returns a value of the disk data base; `key` with or without `ddb.` in front.
    #[doc(alias = "VixDiskLib_ReadMetadata")]
    pub fn ddb_get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.value(&full_key(key))
    }

    /// Sets a value of the disk data base; `key` with or without `ddb.` in front.
    ///
    /// # Errors
    /// As [`set_value`](Self::set_value).
    #[doc(alias = "VixDiskLib_WriteMetadata")]
    pub fn ddb_set(&mut self, key: &str, value: &str) -> Result<()> {
        self.set_value(&full_key(key), value)
    }

    /// Removes a value of the disk data base; returns whether there was one.
    pub fn ddb_remove(&mut self, key: &str) -> bool {
        self.remove_value(&full_key(key))
    }

    /// All entries of the disk data base in order, keys without `ddb.`.
    #[doc(alias = "VixDiskLib_GetMetadataKeys")]
    pub fn ddb(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let charset = self.charset();
        self.lines.iter().filter_map(Line::entry).filter(|entry| entry.is_ddb()).map(move |entry| {
            let key = entry.key.get(PREFIX.len()..).unwrap_or_default();
            (String::from_utf8_lossy(key), charset.decode_lossy(entry.value))
        })
    }
}

const PREFIX: &str = "ddb.";

pub(super) fn is_ddb(key: &str) -> bool {
    key.get(..PREFIX.len()).is_some_and(|section| section.eq_ignore_ascii_case(PREFIX))
}

fn full_key(key: &str) -> Cow<'_, str> {
    if is_ddb(key) { Cow::Borrowed(key) } else { Cow::Owned(format!("{PREFIX}{key}")) }
}
