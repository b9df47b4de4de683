//! What FAT and exFAT have in common: files are named by where their entries lie, and have no links and no streams.

use super::Table;
use crate::{
    error::{Error, Result},
    fs::{FileName, NodeId, no_streams},
};

/// The number of the file whose entry lies at a place; that of the root, which has none, is 0, where the boot sector is.
pub(in crate::fs) fn node(place: u64) -> NodeId {
    NodeId { tree: 0, number: place }
}

/// A volume's serial number, as it is written everywhere.
pub(in crate::fs) fn serial(number: u32) -> String {
    format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
}

impl Table {
    pub(in crate::fs) fn describe(&self, node: NodeId) -> String {
        format!("the file whose entry is at byte {} of {}", node.number, self.device.name())
    }

    /// The error when somebody reads a directory as a file.
    pub(in crate::fs) fn is_directory(&self, node: NodeId) -> Error {
        Error::NotAFile { what: self.describe(node), kind: "a directory" }
    }

    /// Refuses a stream of a file, and the root.
    pub(in crate::fs) fn may_be_file(&self, node: NodeId, stream: Option<&FileName>) -> Result<()> {
        no_streams(stream, || self.describe(node))?;
        if node == NodeId::default() { Err(self.is_directory(node)) } else { Ok(()) }
    }

    pub(in crate::fs) fn no_link(&self, node: NodeId) -> Result<FileName> {
        Err(Error::Invalid(format!("{} is no link: FAT and exFAT have none", self.describe(node))))
    }
}
