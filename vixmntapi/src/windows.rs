//! What files of Windows have besides their content, as extended attributes of the names that ntfs-3g gives them.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    fs::{FileName, FileSystem, NodeId},
};

/// An alternate stream as an attribute: `user.` and its name, and what it holds.
pub(crate) fn stream(files: &Arc<dyn FileSystem>, node: NodeId, name: &FileName) -> Result<(FileName, Vec<u8>)> {
    let content = files.clone().open(node, Some(name))?;
    let what = || format!("stream {name}");
    if content.size() > LARGEST {
        let reason = format!("it has {} bytes, and an extended attribute {LARGEST} at most", content.size());
        return Err(Error::unsupported(what(), reason));
    }
    let mut value = vec![0; content.size() as usize];
    if content.read_at(0, &mut value)? < value.len() {
        return Err(Error::damaged(what(), "it ends before its end"));
    }
    Ok((FileName::new([&b"user."[..], name.as_bytes()].concat()), value))
}

/// The security descriptor as an attribute, if there is one.
pub(crate) fn descriptor(files: &Arc<dyn FileSystem>, node: NodeId) -> Result<Option<(FileName, Vec<u8>)>> {
    let descriptor = files.security_descriptor(node)?;
    Ok(descriptor.map(|value| (FileName::from("system.ntfs_acl"), value)))
}

/// Whether files have security descriptors.
pub(crate) fn has_descriptors(files: &Arc<dyn FileSystem>) -> bool {
    files.info().kind == "ntfs"
}

/// `XATTR_SIZE_MAX` of Linux.
const LARGEST: u64 = 64 << 10;
