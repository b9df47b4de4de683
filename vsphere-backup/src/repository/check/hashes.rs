//! Checking without keys: whoever holds the storage can see whether its objects are as they were written.

use std::sync::Arc;

use futures_util::TryStreamExt;

use crate::{
    cancel::CancelToken,
    error::{Error, Result},
};

use super::{
    super::{
        Repository,
        id::PackId,
        index,
        storage::{ObjectInfo, Storage},
    },
    CheckOptions, CheckReport, VerifyLevel,
    cursor::{self, ALL},
    envelope, pack,
};

impl Repository {
    /// Checks the hash of every object, and what packs say of themselves, without any key.
    ///
    /// # Errors
    /// As [`check_without_keys_with`](Self::check_without_keys_with).
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check_without_keys(storage: Arc<dyn Storage>, cancel: &CancelToken) -> Result<CheckReport> {
        Self::check_without_keys_with(storage, &CheckOptions::new(VerifyLevel::Hash).cancel(cancel)).await
    }

    /// The same for a share of the packs, or from where an earlier check ended. The level in the options is of no meaning.
    ///
    /// This finds whatever a storage did to an object. It does not find what is missing, nor what somebody made who
    /// computes hashes: for that, [`check`](Self::check) needs the keys. The report names no recovery points.
    ///
    /// # Errors
    /// Damage is not an error but in the report. [`Error::Storage`] when the storage failed, [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check_without_keys_with(storage: Arc<dyn Storage>, options: &CheckOptions) -> Result<CheckReport> {
        options.cancel.run(Box::pin(Self::check_hashes(storage, options))).await
    }

    async fn check_hashes(storage: Arc<dyn Storage>, options: &CheckOptions) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let parts = cursor::parts(options.from.objects, options.share);
        let mut packs = Vec::new();
        let mut listing = storage.list("");
        while let Some(ObjectInfo { key, size, .. }) = listing.try_next().await? {
            options.cancel.check()?;
            match key.as_str().split('/').next() {
                Some("packs") => match index::named::<PackId>(&key) {
                    Some(id) if parts.contains(&id.0[0].into()) => packs.push((id, size)),
                    Some(_) => {}
                    None => report.note(Error::damaged(&key, "its name is not one of this format")),
                },
                Some(folder) if ENVELOPED.contains(&folder) => report.take(envelope::check(&*storage, &key).await)?,
                _ => {}
            }
        }
        drop(listing);
        packs.sort_unstable();
        let mut next = options.from;
        (next.objects, next.points) = (parts.end, ALL);
        for (id, size) in packs {
            if options.cancel.is_stopping() {
                options.cancel.check()?;
                next.objects = id.0[0].into();
                break;
            }
            report.packs += 1;
            match pack::check_hash(&*storage, id, size).await {
                Ok(chunks) => {
                    report.chunks += chunks;
                    report.bytes += size;
                }
                Err(error) => report.take(Err(error))?,
            }
        }
        report.next = next.or_start();
        Ok(report)
    }
}

/// Folders of objects in envelopes; anything else may be a file of the storage's own.
const ENVELOPED: [&str; 13] = [
    "config", "keys", "index", "pages", "meta", "points", "restored", "leases", "tombs", "holds", "deleted", "damage",
    "sets",
];
