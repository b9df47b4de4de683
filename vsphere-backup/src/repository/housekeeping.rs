//! Checking the small objects by which holders, holds and deletions are told.

use futures_util::TryStreamExt;

use crate::error::{Error, Result};

use super::{
    Repository,
    envelope::Kind,
    fence,
    object::is_absent,
    storage::{Key, StorageError, StorageErrorKind},
    verify::CheckReport,
};

impl Repository {
    /// Reads fences, leases, tombstones, holds, records of deletions and marks of restores.
    pub(super) async fn check_housekeeping(&self, report: &mut CheckReport) -> Result<()> {
        for prefix in ["points", "leases", "tombs", "holds", "deleted", "restored"] {
            let listed: Vec<_> = self.storage().list(prefix).try_collect().await?;
            for object in listed {
                let checked = match kind_of(&object.key, object.size) {
                    None => continue,
                    Some(Kind::Fence) => self.check_fence(&object.key).await,
                    Some(kind) => self.objects().read(kind, &object.key).await.map(drop),
                };
                match checked {
                    Ok(()) => {}
                    Err(error) if error.is_damage() => report.damage.push(error),
                    // They come and go.
                    Err(error) if is_absent(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn check_fence(&self, key: &Key) -> Result<()> {
        match self.storage().get(key, fence::SIZE).await {
            Ok(bytes) if fence::is(key, &bytes) => Ok(()),
            // It was replaced while it was listed.
            Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => Ok(()),
            Ok(_) => Err(Error::damaged(key, "it is neither a manifest nor a fence")),
            Err(error) => Err(error.into()),
        }
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
        "restored" => Kind::Restored,
        _ => return None,
    })
}
