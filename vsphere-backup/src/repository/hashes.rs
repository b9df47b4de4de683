//! Checking without keys: whoever holds the storage can see whether its objects are as they were written.

use std::sync::Arc;

use futures_util::TryStreamExt;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    Repository, envelope,
    id::PackId,
    index, pack,
    storage::{Key, ObjectInfo, Storage, StorageError, StorageErrorKind},
    verify::CheckReport,
};

impl Repository {
    /// Checks the hash of every object, and what packs say of themselves, without any key.
    ///
    /// This finds whatever a storage did to an object. It does not find what is missing, nor what somebody made who
    /// computes hashes: for that, [`check`](Self::check) needs the keys. The report names no recovery points.
    ///
    /// # Errors
    /// Damage is not an error but in the report. [`Error::Storage`] when the storage failed, [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check_without_keys(storage: Arc<dyn Storage>, cancel: &CancelToken) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let listed: Vec<ObjectInfo> = storage.list("").try_collect().await?;
        for object in listed {
            cancel.check()?;
            let checked = match object.key.as_str().split('/').next() {
                Some("packs") => match index::named::<PackId>(&object.key) {
                    Some(id) => check_pack(&*storage, id, &mut report).await,
                    None => Err(Error::damaged(&object.key, "its name is not one of this format")),
                },
                Some(folder) if ENVELOPED.contains(&folder) => envelope::check(&*storage, &object.key).await,
                _ => continue,
            };
            match checked {
                Ok(()) => {}
                // Somebody removed it meanwhile.
                Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {}
                Err(error) if error.is_damage() => report.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }
}

async fn check_pack(storage: &dyn Storage, id: PackId, report: &mut CheckReport) -> Result<()> {
    report.packs += 1;
    let key: Key = pack::key(id);
    let bytes = match storage.get(&key, pack::MAX_SIZE).await {
        Err(StorageError { kind: StorageErrorKind::TooLarge, .. }) => {
            return Err(Error::damaged(key, "it is larger than a pack can be"));
        }
        other => other?,
    };
    let work = tokio::task::spawn_blocking(move || pack::check_whole(id, &bytes));
    let pack = work.await.map_err(|_| Error::WriterStopped { reason: "a worker panicked".into() })??;
    report.chunks += pack.entries.len() as u64;
    Ok(())
}

/// Folders of objects in envelopes; anything else may be a file of the storage's own.
const ENVELOPED: [&str; 8] = ["config", "keys", "index", "pages", "meta", "points", "restored", "leases"];
