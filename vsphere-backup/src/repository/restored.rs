//! Marks that a machine's disks were written by a restore.
//!
//! What a restore writes is not what the guest writes: whether a server's change tracking sees it is
//! not known. A mark, durable before the first byte is written, makes the next backup of the disk a
//! full one, wherever it runs.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::{
    Repository,
    envelope::Kind,
    id::{PointId, VmId},
    now_micros,
    storage::Key,
};

/// The JSON of a mark.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    /// The mark's own name, in the form of a point's.
    id: PointId,
    /// The point that was restored.
    point: PointId,
    /// The device keys.
    disks: BTreeSet<i32>,
}

impl Repository {
    /// Notes that disks of a machine are about to be written.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn note_restore(&self, point: &PointId, disks: BTreeSet<i32>) -> Result<()> {
        let micros = self.next_micros(point.vm()).await?;
        let id = PointId::new(point.vm().clone(), micros)?;
        let mark = Mark { id: id.clone(), point: point.clone(), disks };
        let body = serde_json::to_vec(&mark).expect("a struct of plain fields is valid JSON");
        self.objects().create(Kind::Restored, &key(&id), body.into()).await
    }

    /// Returns the disks that were restored after `point` was begun.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::UnsupportedVersion`]; [`Error::Damaged`] when a mark cannot be read: which disks
    /// it names is not known then.
    pub(crate) async fn restored_since(&self, point: &PointId) -> Result<BTreeSet<i32>> {
        let mut disks = BTreeSet::new();
        for id in self.marks(point.vm()).await?.into_iter().filter(|id| id > point) {
            let key = key(&id);
            let body = self.objects().read(Kind::Restored, &key).await?;
            let mark: Mark = serde_json::from_slice(&body)
                .map_err(|error| Error::damaged(&key, format!("its content is not valid: {error}")))?;
            if mark.id != id {
                return Err(Error::damaged(&key, format!("it is the mark {}", mark.id)));
            }
            disks.extend(mark.disks);
        }
        Ok(disks)
    }

    /// Returns a time for a new name that sorts behind all points and marks of a machine, also when the clock was set
    /// back.
    pub(super) async fn next_micros(&self, vm: &VmId) -> Result<u64> {
        let (points, marks) = (self.points(vm).await?, self.marks(vm).await?);
        let newest = points.last().max(marks.iter().max());
        Ok(newest.map_or(0, |newest| newest.micros().saturating_add(1)).max(now_micros()))
    }

    async fn marks(&self, vm: &VmId) -> Result<Vec<PointId>> {
        let prefix = format!("restored/{vm}");
        let listed: Vec<_> = self.storage().list(&prefix).try_collect().await?;
        let parse = |key: &Key| key.as_str().strip_prefix("restored/").and_then(|id| PointId::parse(id).ok());
        Ok(listed.iter().filter_map(|object| parse(&object.key)).collect())
    }
}

fn key(id: &PointId) -> Key {
    Key::of(&["restored", id.vm().as_str(), id.name()])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::repository::storage::{MemoryStorage, Storage};

    #[tokio::test]
    async fn a_mark_counts_for_points_before_it_only() {
        let storage = Arc::new(MemoryStorage::new());
        let repository = Repository::create(storage.clone(), Default::default()).await.unwrap();
        let vm = VmId::parse("vm-1").unwrap();
        let before = PointId::new(vm.clone(), repository.next_micros(&vm).await.unwrap()).unwrap();
        assert!(repository.restored_since(&before).await.unwrap().is_empty());
        repository.note_restore(&before, [2000, 2001].into()).await.unwrap();
        repository.note_restore(&before, [2002].into()).await.unwrap();
        assert_eq!(repository.restored_since(&before).await.unwrap(), [2000, 2001, 2002].into());
        let after = PointId::new(vm.clone(), repository.next_micros(&vm).await.unwrap()).unwrap();
        assert!(repository.restored_since(&after).await.unwrap().is_empty());
        assert!(repository.points(&vm).await.unwrap().is_empty(), "a mark is no point");

        let mark = storage.keys().into_iter().find(|key| key.is_below("restored")).unwrap();
        storage.put(&mark, vec!["damaged".into()]).await.unwrap();
        assert!(repository.restored_since(&before).await.unwrap_err().is_damage());
    }
}
