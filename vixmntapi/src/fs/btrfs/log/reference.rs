//! References: what an inode says of its names, in two kinds of items.

use super::{INODE_EXTREF, INODE_REF};
use crate::{
    bytes::{le_u16, le_u64, slice},
    error::Result,
    fs::{btrfs::tree::Key, checksum::crc32c},
};

/// A name of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// The directory that it is in.
    pub(super) parent: u64,
    /// Its place there.
    pub(super) index: u64,
    pub(super) name: Vec<u8>,
}

impl Reference {
    /// All names of an item.
    pub(super) fn all(key: Key, item: &[u8]) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut rest = item;
        while !rest.is_empty() {
            let parsed = || {
                let (parent, rest) = match key.kind {
                    INODE_EXTREF => (le_u64(rest, 0)?, rest.get(8..)?),
                    _ => (key.offset, rest),
                };
                let (index, len) = (le_u64(rest, 0)?, usize::from(le_u16(rest, 8)?));
                let name = slice(rest, 10, len)?.to_vec();
                Some((Self { parent, index, name }, rest.get(10 + len..)?))
            };
            let parsed = parsed();
            let (reference, after) = parsed.ok_or_else(|| super::damaged("a name of an inode ends early"))?;
            found.push(reference);
            rest = after;
        }
        Ok(found)
    }

    /// The item with these names.
    pub(super) fn item(kind: u8, all: &[Self]) -> Vec<u8> {
        let mut item = Vec::new();
        for reference in all {
            if kind == INODE_EXTREF {
                item.extend(reference.parent.to_le_bytes());
            }
            item.extend(reference.index.to_le_bytes());
            item.extend((reference.name.len() as u16).to_le_bytes());
            item.extend(&reference.name);
        }
        item
    }

    pub(super) fn is(&self, parent: u64, name: &[u8]) -> bool {
        self.parent == parent && self.name == name
    }
}

/// The keys under which a name of an inode may be.
pub(super) fn keys(number: u64, parent: u64, name: &[u8]) -> [Key; 2] {
    let hash = crc32c(parent as u32, name);
    [Key::new(number, INODE_REF, parent), Key::new(number, INODE_EXTREF, hash.into())]
}
