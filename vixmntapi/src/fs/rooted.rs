//! A file system seen from another of its directories: what is mounted when a subvolume is named.

use std::sync::Arc;

use super::{Content, Entries, FileName, FileSystem, FileSystemInfo, Metadata, NodeId, Subvolume};
use crate::error::Result;

/// All calls are those of `files` but for the root.
#[derive(Debug)]
pub(crate) struct Rooted {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) root: NodeId,
}

impl FileSystem for Rooted {
    fn info(&self) -> FileSystemInfo {
        self.files.info()
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.files.metadata(node)
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        self.files.lookup(directory, name)
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        self.files.clone().read_dir(directory)
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        self.files.read_link(node)
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        self.files.clone().open(node, stream)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        self.files.xattrs(node)
    }

    fn streams(&self, node: NodeId) -> Result<Vec<(FileName, u64)>> {
        self.files.streams(node)
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        self.files.subvolumes()
    }

    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        self.files.security_descriptor(node)
    }
}
