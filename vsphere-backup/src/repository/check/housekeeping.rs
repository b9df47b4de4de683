//! Checking the small objects by which holders, holds and deletions are told.

use futures_util::TryStreamExt;

use crate::error::{Error, Result};

use super::{
    super::{
        Repository,
        envelope::Kind,
        fence,
        storage::{Key, StorageError, StorageErrorKind},
    },
    Check,
};

impl Check<'_> {
    /// Reads fences, leases, tombstones, holds, records of deletions, marks of damage, sets and marks of restores. They come and go.
    pub(super) async fn housekeeping(&mut self) -> Result<()> {
        for prefix in ["points", "leases", "tombs", "holds", "deleted", "damage", "restored", "sets"] {
            let repository = self.repository.clone();
            let mut listing = repository.storage().list(prefix);
            while let Some(object) = listing.try_next().await? {
                let checked = match kind_of(&object.key, object.size) {
                    None => continue,
                    Some(Kind::Fence) => check_fence(&repository, &object.key).await,
                    Some(kind) => repository.objects().read(kind, &object.key).await.map(drop),
                };
                self.report.take(checked)?;
            }
        }
        Ok(())
    }
}

async fn check_fence(repository: &Repository, key: &Key) -> Result<()> {
    match repository.storage().get(key, fence::SIZE).await {
        Ok(bytes) if fence::is(key, &bytes) => Ok(()),
        // It was replaced while it was listed.
        Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => Ok(()),
        Ok(_) => Err(Error::damaged(key, "it is neither a manifest nor a fence")),
        Err(error) => Err(error.into()),
    }
}

/// Returns the kind of a small object by its name; manifests are checked elsewhere.
fn kind_of(key: &Key, size: u64) -> Option<Kind> {
    let name = key.file_name();
    Some(match key.as_str().split('/').next()? {
        "points" if size == fence::SIZE => Kind::Fence,
        "leases" if name.ends_with("-seen") => Kind::Seen,
        "leases" => Kind::Lease,
        "tombs" if name == "waits" => Kind::Waits,
        "tombs" => Kind::Tomb,
        "holds" => Kind::Hold,
        "deleted" => Kind::Deleted,
        "damage" => Kind::Damage,
        "restored" => Kind::Restored,
        "sets" => Kind::Set,
        _ => return None,
    })
}
