//! Listings of what a file system holds.

use std::{fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    fs::{Content, FileKind, FileName, FileSystem, Metadata, NodeId, spans},
    walk::{Found, Walk},
};

/// Lists files with all that is known of them, one after another: of a [walk](Walk), or of what a
/// [search](crate::find::Find) finds.
///
/// ```
/// # use std::sync::Arc;
/// # use vixmntapi::{Result, catalogue::Catalogue, fs::FileSystem};
/// # fn list(files: &Arc<dyn FileSystem>) -> Result<()> {
/// for record in Catalogue::new(files).digests_up_to(1 << 30) {
///     let record = record?;
///     println!("{} {} {:?}", record.path, record.metadata.size, record.digest);
/// }
/// # Ok(()) }
/// ```
pub struct Catalogue {
    files: Arc<dyn FileSystem>,
    found: Box<dyn Iterator<Item = Result<Found>> + Send>,
    digests_up_to: Option<u64>,
    buffer: Vec<u8>,
}

impl Catalogue {
    /// Of a whole file system.
    pub fn new(files: &Arc<dyn FileSystem>) -> Self {
        Self::of(files, Walk::new(files))
    }

    /// Of what a walk or a search in this file system finds.
    pub fn of(
        files: &Arc<dyn FileSystem>,
        found: impl IntoIterator<Item = Result<Found>, IntoIter: Send + 'static>,
    ) -> Self {
        Self { files: files.clone(), found: Box::new(found.into_iter()), digests_up_to: None, buffer: Vec::new() }
    }

    /// The same with a digest of each file, for which it is read. A file of more bytes is an error in its place: what a
    /// volume says of its sparse files may take years.
    #[must_use]
    pub fn digests_up_to(mut self, bytes: u64) -> Self {
        self.digests_up_to = Some(bytes);
        self
    }

    fn record(&mut self, found: Found) -> Result<Record> {
        let metadata = self.files.metadata(found.node)?;
        let target = match metadata.kind {
            FileKind::Symlink => Some(self.files.read_link(found.node)?),
            _ => None,
        };
        let digest = match (metadata.kind, self.digests_up_to) {
            (FileKind::File, Some(limit)) if metadata.size > limit => {
                let size = metadata.size;
                return Err(Error::Invalid(format!(
                    "it has {size} bytes, more than the {limit} of which digests are made"
                )));
            }
            (FileKind::File, Some(_)) => {
                Some(digest_with(&self.files.clone().open(found.node, None)?, &mut self.buffer)?)
            }
            _ => None,
        };
        Ok(Record { path: found.path, node: found.node, metadata, target, digest })
    }
}

impl Iterator for Catalogue {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.found.next()?;
        Some(found.and_then(|found| {
            let path = found.path.clone();
            self.record(found).map_err(|error| error.at(&path))
        }))
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// From where the walk or search began.
    pub path: FileName,
    /// Its id; names of one file have the same.
    pub node: NodeId,
    /// Kind, size, owner, times.
    pub metadata: Metadata,
    /// Where a link leads.
    pub target: Option<FileName>,
    /// BLAKE3 of a file's bytes, as `b3sum` prints it, where it was asked for.
    pub digest: Option<[u8; 32]>,
}

/// BLAKE3 of all bytes of a file. Holes are not read.
///
/// # Errors
/// What reading says.
pub fn digest(content: &Arc<dyn Content>) -> Result<[u8; 32]> {
    digest_with(content, &mut Vec::new())
}

fn digest_with(content: &Arc<dyn Content>, buffer: &mut Vec<u8>) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    spans::for_each_bytes(content, buffer, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}
