//! Marks that change tracking does not tell all that became of a machine's disks.
//!
//! What a restore writes is not what the guest writes: whether a server's change tracking sees it is
//! not known. A mark, durable before the first byte is written, makes the next backup of the disk a
//! full one, wherever it runs.
//!
//! A backup that finds a change which tracking had missed marks the disk as well, before it reads all of it: should it
//! not come to its end, the next one must not believe the same answer.
//!
//! A mark says something of points with older names only. Collections of garbage delete it when there is none any more,
//! and [`gc::forget`](super::gc) says why nobody misses it. So whoever asks what became of disks since a point looks for
//! the point *after* the marks were read: names are given once, so when it is there, it was there all the time, and no
//! mark behind it was deleted. When it is not, nothing can be told any more.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The point that was restored, or that a disk was compared with.
    point: PointId,
    /// The device keys.
    disks: BTreeSet<i32>,
    /// What was found of their change tracking; nothing was restored then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distrust: Option<String>,
}

/// What the marks behind a point say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The disks that were restored.
    pub(crate) restored: BTreeSet<i32>,
    /// The disks whose change tracking missed a change, and what was found first.
    pub(crate) distrusted: BTreeMap<i32, String>,
}

impl Repository {
    /// Notes that disks of a machine are about to be written.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn note_restore(&self, point: &PointId, disks: BTreeSet<i32>) -> Result<()> {
        self.mark(point, disks, None).await
    }

    /// Notes that change tracking missed a change of a disk since `point`, and what was found.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn note_distrust(&self, point: &PointId, disk: i32, found: &str) -> Result<()> {
        self.mark(point, [disk].into(), Some(found.to_owned())).await
    }

    async fn mark(&self, point: &PointId, disks: BTreeSet<i32>, distrust: Option<String>) -> Result<()> {
        let micros = self.next_micros(point.vm()).await?;
        let id = PointId::new(point.vm().clone(), micros)?;
        let mark = Mark { id: id.clone(), point: point.clone(), disks, distrust };
        let body = serde_json::to_vec(&mark).expect("a struct of plain fields is valid JSON");
        self.objects().create(Kind::Restored, &key(&id), body.into()).await
    }

    /// Tells whether a disk may have been restored after `point` was begun: it was, or that cannot be told any more.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::UnsupportedVersion`].
    pub(crate) async fn may_be_restored_since(&self, point: &PointId, disk: i32) -> Result<bool> {
        match self.marked_since(point).await {
            Ok(marked) => Ok(marked.restored.contains(&disk)),
            Err(Error::PointNotFound { .. }) => Ok(true),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, disk, "a damaged mark counts as one of a restore");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns what became of disks after `point` was begun that change tracking need not tell.
    ///
    /// # Errors
    /// [`Error::PointNotFound`] when the point was deleted: marks behind it may be gone, too. [`Error::Storage`],
    /// [`Error::UnsupportedVersion`]; [`Error::Damaged`] when a mark cannot be read: which disks it names is not known
    /// then.
    pub(crate) async fn marked_since(&self, point: &PointId) -> Result<Marked> {
        let mut marked = Marked::default();
        for id in self.marks(point.vm()).await?.into_iter().filter(|id| id > point) {
            let key = key(&id);
            let body = self.objects().read(Kind::Restored, &key).await?;
            let mark: Mark = serde_json::from_slice(&body)
                .map_err(|error| Error::damaged(&key, format!("its content is not valid: {error}")))?;
            if mark.id != id {
                return Err(Error::damaged(&key, format!("it is the mark {}", mark.id)));
            }
            match mark.distrust {
                None => marked.restored.extend(mark.disks),
                Some(found) => {
                    for disk in mark.disks {
                        marked.distrusted.entry(disk).or_insert_with(|| found.clone());
                    }
                }
            }
        }
        // After the marks were read: see above.
        match self.list_points(&format!("points/{}", point.vm())).await?.contains(point) {
            true => Ok(marked),
            false => Err(Error::PointNotFound { point: point.clone() }),
        }
    }

    /// Returns a time for a new name that sorts behind all points and marks of a machine, also when the clock was set
    /// back.
    pub(super) async fn next_micros(&self, vm: &VmId) -> Result<u64> {
        // Those that are withheld too.
        let points = self.list_points(&format!("points/{vm}")).await?;
        let marks = self.marks(vm).await?;
        let newest = points.last().max(marks.iter().max());
        Ok(newest.map_or(0, |newest| newest.micros().saturating_add(1)).max(now_micros()))
    }

    async fn marks(&self, vm: &VmId) -> Result<Vec<PointId>> {
        let prefix = format!("restored/{vm}");
        let listed: Vec<_> = self.storage().list(&prefix).try_collect().await?;
        Ok(listed.iter().filter_map(|object| parse(&object.key)).collect())
    }
}

/// Returns the name of a mark, of its object's; `None` when it is none.
pub(super) fn parse(key: &Key) -> Option<PointId> {
    key.as_str().strip_prefix("restored/").and_then(|id| PointId::parse(id).ok())
}

/// Returns the object's name of a mark.
pub(super) fn key(id: &PointId) -> Key {
    Key::of(&["restored", id.vm().as_str(), id.name()])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::repository::{
        Consistency, RecoveryPoint, VmRecord,
        storage::{MemoryStorage, Storage},
    };

    async fn point(repository: &Repository) -> RecoveryPoint {
        let vm = VmId::parse("vm-1").unwrap();
        let record = VmRecord { instance_uuid: vm, mo_ref: String::new(), name: String::new() };
        let writer = repository.begin(record, Consistency::Crash, Default::default()).await.unwrap();
        writer.commit().await.unwrap().0
    }

    async fn restored_since(repository: &Repository, point: &PointId) -> Vec<i32> {
        repository.marked_since(point).await.unwrap().restored.into_iter().collect()
    }

    #[tokio::test]
    async fn a_mark_counts_for_points_before_it_only() {
        let storage = Arc::new(MemoryStorage::new());
        let repository = Repository::create(storage.clone(), Default::default()).await.unwrap();
        let before = point(&repository).await.id().clone();
        assert!(restored_since(&repository, &before).await.is_empty());
        repository.note_restore(&before, [2000, 2001].into()).await.unwrap();
        repository.note_restore(&before, [2002].into()).await.unwrap();
        assert_eq!(restored_since(&repository, &before).await, [2000, 2001, 2002]);
        assert!(repository.may_be_restored_since(&before, 2001).await.unwrap());
        assert!(!repository.may_be_restored_since(&before, 2003).await.unwrap());
        let after = point(&repository).await.id().clone();
        assert!(restored_since(&repository, &after).await.is_empty());
        assert_eq!(repository.points(before.vm()).await.unwrap().len(), 2, "a mark is no point");

        repository.note_distrust(&after, 2001, "first").await.unwrap();
        repository.note_distrust(&after, 2001, "second").await.unwrap();
        let marked = repository.marked_since(&after).await.unwrap();
        assert_eq!(marked, Marked { restored: [].into(), distrusted: [(2001, "first".to_owned())].into() });

        let mark = storage.keys().into_iter().find(|key| key.is_below("restored")).unwrap();
        storage.put(&mark, vec!["damaged".into()]).await.unwrap();
        assert!(repository.marked_since(&before).await.unwrap_err().is_damage());
        assert!(repository.may_be_restored_since(&before, 2003).await.unwrap(), "that cannot be told");
    }

    #[tokio::test]
    async fn of_a_point_that_was_deleted_nothing_can_be_told() {
        let repository = Repository::create(Arc::new(MemoryStorage::new()), Default::default()).await.unwrap();
        let deleted = point(&repository).await;
        let id = deleted.id().clone();
        point(&repository).await;
        deleted.delete().await.unwrap();
        assert!(matches!(repository.marked_since(&id).await, Err(Error::PointNotFound { point }) if point == id));
        assert!(repository.may_be_restored_since(&id, 2000).await.unwrap());
    }
}
