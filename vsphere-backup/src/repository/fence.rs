//! Fences: a point's name, taken so that a writer that was declared dead cannot commit any more.
//!
//! A writer's point has its name from the begin on, and the manifest is created under it exclusively. Whoever creates
//! a fence under that name first has settled the matter, also for a writer that sleeps for hours and then goes on.
//! A fence is an envelope with an empty body, never sealed: every fence has the same 56 bytes, which no manifest is
//! as short as, so that a listing alone tells them apart. Fences stay: there is no time after which a writer that is
//! paused could not wake up.

use bytes::Bytes;

use crate::error::Result;

use super::{
    envelope::{self, Kind},
    id::PointId,
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

/// The size of every fence in bytes.
pub(crate) const SIZE: u64 = 56;

/// Takes the name of a point, unless it is taken: by a manifest or by a fence.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage) when it is not known whether the name is taken now.
pub(crate) async fn raise(storage: &dyn Storage, point: &PointId) -> Result<()> {
    match storage.put_new(&point.key(), envelope::seal(Kind::Fence, Bytes::new())?).await {
        Ok(()) | Err(StorageError { kind: StorageErrorKind::AlreadyExists, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a fence stands under the name of a point.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage) when that could not be told.
pub(crate) async fn stands(storage: &dyn Storage, point: &PointId) -> Result<bool> {
    let key = point.key();
    match storage.get(&key, SIZE).await {
        Ok(bytes) => Ok(is(&key, &bytes)),
        Err(StorageError { kind: StorageErrorKind::NotFound | StorageErrorKind::TooLarge, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether an object is a fence.
pub(crate) fn is(key: &Key, bytes: &Bytes) -> bool {
    let opened = envelope::open(Kind::Fence, key, bytes.clone()).and_then(|fence| fence.plain(key));
    opened.is_ok_and(|body| body.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{id::VmId, storage::MemoryStorage};

    #[tokio::test]
    async fn the_first_to_take_the_name_has_it() {
        let storage = MemoryStorage::new();
        let point = PointId::new(VmId::parse("vm").unwrap(), 5).unwrap();
        assert!(!stands(&storage, &point).await.unwrap());
        raise(&storage, &point).await.unwrap();
        assert!(stands(&storage, &point).await.unwrap());
        assert_eq!(storage.object(&point.key()).unwrap().len() as u64, SIZE);
        raise(&storage, &point).await.unwrap();
        let taken = storage.put_new(&point.key(), vec![]).await.unwrap_err();
        assert_eq!(taken.kind, StorageErrorKind::AlreadyExists);

        storage.tamper(&point.key(), Some("a manifest is longer".repeat(3).into()));
        raise(&storage, &point).await.unwrap();
        assert!(!stands(&storage, &point).await.unwrap());
    }
}
