//! Looking at the leases of others, and ending those whose holders are dead.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    error::{Error, Result},
};

use super::{
    super::{
        envelope::Kind,
        fence,
        id::LeaseId,
        object::{Objects, is_absent, is_taken},
        storage::{Key, Storage},
    },
    record::{Ending, LeaseBody, Purpose},
};

/// A lease of somebody.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) body: LeaseBody,
    newest: u32,
    dead: bool,
}

impl Found {
    /// Tells whether the holder must be reckoned with.
    pub(crate) fn is_alive(&self) -> bool {
        !self.dead
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.body.id
    }

    /// Tells whether the holder works for a job.
    pub(crate) fn is_for(&self, job: &str) -> bool {
        self.body.job.as_deref() == Some(job)
    }

    /// Tells whether the holder is a writer, which may yet commit a point.
    pub(crate) fn is_writer(&self) -> bool {
        matches!(self.body.purpose, Purpose::Write { .. })
    }
}

/// Returns all leases that hold, having looked at each: those whose newest generation was seen too long ago are dead.
///
/// With `note`, generations that are seen for the first time are noted, and remains of ended leases are removed.
/// Without, nothing is changed.
///
/// # Errors
/// [`Error::Storage`]; [`Error::Damaged`] when a lease cannot be read: what it protects is not known then.
pub(crate) async fn survey(objects: &Objects, clock: &Clock, note: bool) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (id, mut names) in list(objects.storage().as_ref(), "leases").await? {
        if names.newest().is_none() {
            if note {
                sweep(objects, names).await;
            }
            continue;
        }
        if let Some(lease) = look(objects, clock, id, &mut names, note).await? {
            found.push(lease);
        } else if note {
            sweep(objects, names).await;
        }
    }
    Ok(found)
}

/// Ends the lease of a dead holder: it cannot be renewed, and a writer cannot commit, from before its anchor goes.
///
/// Returns whether it was ended: a holder that renewed in the meantime lives.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) async fn fence(objects: &Objects, found: &Found) -> Result<bool> {
    let (id, storage) = (found.body.id, &**objects.storage());
    if found.body.ending.is_none() {
        let body = LeaseBody { ending: Some(Ending::Fenced), ..found.body.clone() };
        let key = id.key(found.newest + 1);
        if let Err(error) = objects.create(Kind::Lease, &key, body.encode()).await {
            if !is_taken(&error) {
                return Err(error);
            }
            let taken = LeaseBody::decode(&objects.read(Kind::Lease, &key).await?, &key)?;
            if taken.ending.is_none() {
                return Ok(false);
            }
        }
    }
    if let Purpose::Write { point } = &found.body.purpose {
        fence::raise(storage, point).await?;
    }
    if let Err(error) = storage.delete(&id.key(0)).await {
        // Its last generation says that it is over.
        tracing::debug!(lease = %id, %error, "a lease that ended stays");
        return Ok(true);
    }
    if let Some(names) = list(storage, &id.prefix()).await?.remove(&id) {
        sweep(objects, names).await;
    }
    Ok(true)
}

/// The objects of one lease.
#[derive(Debug, Default)]
struct Names {
    generations: Vec<u32>,
    keys: Vec<Key>,
}

impl Names {
    /// Returns the newest generation of a lease that holds.
    fn newest(&self) -> Option<u32> {
        let anchored = self.generations.contains(&0);
        self.generations.iter().max().copied().filter(|_| anchored)
    }
}

async fn list(storage: &dyn Storage, prefix: &str) -> Result<BTreeMap<LeaseId, Names>> {
    let mut leases: BTreeMap<LeaseId, Names> = BTreeMap::new();
    let mut listing = storage.list(prefix);
    while let Some(object) = listing.try_next().await? {
        let mut parts = object.key.as_str().split('/').skip(1);
        let (Some(Ok(id)), Some(name), None) = (parts.next().map(str::parse), parts.next(), parts.next()) else {
            tracing::warn!(object = %object.key, "not a lease's name");
            continue;
        };
        let names = leases.entry(id).or_default();
        names.generations.extend(u32::from_str_radix(name, 16).ok().filter(|_| name.len() == 8));
        names.keys.push(object.key);
    }
    Ok(leases)
}

/// Returns a lease, unless it has ended meanwhile.
///
/// # Errors
/// [`Error::Damaged`], also when its newest generation is listed again and again and never is there.
async fn look(objects: &Objects, clock: &Clock, id: LeaseId, names: &mut Names, note: bool) -> Result<Option<Found>> {
    for _ in 0..LOOKS {
        let Some(newest) = names.newest() else { return Ok(None) };
        let key = id.key(newest);
        let body = match objects.read(Kind::Lease, &key).await {
            Ok(body) => LeaseBody::decode(&body, &key)?,
            Err(error) if is_absent(&error) => {
                // Renewed or ended since it was listed.
                *names = list(&**objects.storage(), &id.prefix()).await?.remove(&id).unwrap_or_default();
                continue;
            }
            Err(error) => return Err(error),
        };
        let dead = match body.ending {
            Some(Ending::Released) => return Ok(None),
            Some(Ending::Fenced) => true,
            None => is_overdue(objects, clock, &id.seen_key(newest), body.ttl, note).await?,
        };
        return Ok(Some(Found { body, newest, dead }));
    }
    let reason = format!("of {LOOKS} times that it was listed, its newest generation was there at none");
    Err(Error::damaged(id.prefix(), reason))
}

/// The JSON of the note of when a generation was first seen.
#[derive(Serialize, Deserialize)]
struct Seen {
    /// By the observer's clock, in seconds since 1970.
    at: u64,
}

async fn is_overdue(objects: &Objects, clock: &Clock, key: &Key, ttl: u64, note: bool) -> Result<bool> {
    let now = clock.seconds();
    let first = match objects.read(Kind::Seen, key).await {
        Ok(body) => serde_json::from_slice::<Seen>(&body).ok().map(|seen| seen.at),
        Err(error) if is_absent(&error) || error.is_damage() => None,
        Err(error) => return Err(error),
    };
    match first {
        // Whole seconds: one more, so that no less than the time to live has passed.
        Some(first) if first <= now => Ok(now - first > ttl),
        // None, damaged, or from an observer whose clock is ahead: the time begins now.
        _ => {
            if note {
                let body: Bytes = serde_json::to_vec(&Seen { at: now }).expect("a number is valid JSON").into();
                objects.put(Kind::Seen, key, body).await?;
            }
            Ok(false)
        }
    }
}

/// Removes what an ended lease left.
async fn sweep(objects: &Objects, mut names: Names) {
    // The anchor first, should a listing that ran meanwhile have shown it.
    names.keys.sort_unstable();
    for key in names.keys {
        if let Err(error) = objects.storage().delete(&key).await {
            tracing::debug!(%key, %error, "a part of an ended lease stays");
        }
    }
}

impl From<&Found> for Error {
    /// The lease is in the way.
    fn from(found: &Found) -> Self {
        Self::Busy { what: format!("the repository is in use: {}", found.body.describe()) }
    }
}

/// How often a lease is looked for that is listed and not there: holders renew it every few seconds at most.
const LOOKS: u32 = 100;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::repository::{
        lease::{Lease, record::Roots},
        storage::{
            BoxFuture, MemoryStorage, StorageError, StorageErrorKind,
            around::{Answer, Around, Kind, Operation, decorate},
        },
    };

    /// Lists objects and has none of them.
    #[derive(Debug)]
    struct Lying(Arc<MemoryStorage>);

    impl Around for Lying {
        fn inner(&self) -> &dyn Storage {
            &*self.0
        }

        async fn around<'a, T: Answer>(
            &'a self,
            operation: Operation<'a>,
            mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
        ) -> Result<T, StorageError> {
            if operation.kind == Kind::Read {
                return Err(operation.failed(StorageErrorKind::NotFound));
            }
            attempt().await
        }
    }

    decorate!(Lying);

    #[tokio::test]
    async fn a_lease_that_is_listed_and_never_there_is_damage_and_not_asked_for_without_end() {
        let storage = Arc::new(MemoryStorage::new());
        let honest = Objects::plain(storage.clone());
        let hour = Duration::from_secs(3600);
        let lease = Lease::begin(&honest, Purpose::Collect, Roots::default(), hour).await.unwrap();
        let lying = Objects::plain(Arc::new(Lying(storage)));
        let error = survey(&lying, &Clock::default(), true).await.unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("listed"), "{error}");
        assert_eq!(survey(&honest, &Clock::default(), true).await.unwrap().len(), 1, "nothing was swept");
        lease.release().await;
    }
}
