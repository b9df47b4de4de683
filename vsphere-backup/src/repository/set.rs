//! Sets: recovery points of several machines that belong together, and that appear together or not at all.
//!
//! Each member's manifest names the set and all its points. That alone tells what belongs together. Where a set is to be
//! seen all or nothing, three objects decide, in this order:
//!
//! 1. `sets/open/<set>`, before the first manifest: the points of the set, which are withheld from listings from now on.
//! 2. `sets/ended/<set>`, exclusively, after the last manifest: the set is complete, and all its points are seen at
//!    once. Whoever gives the set up creates the same name with the other word: the first one counts, so that a writer
//!    that wakes up late can complete nothing. It stays for ever, as a fence does.
//! 3. `sets/open/<set>` is deleted; of a set that was given up, after its points.
//!
//! A store that deletes nothing loses nothing by it: what counts is what `ended` says.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::{
    Repository,
    envelope::Kind,
    fence,
    id::{PointId, VmId},
    now,
    object::is_absent,
    point::RecoveryPoint,
    storage::Key,
};

/// The set that a recovery point belongs to, as its manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SetRecord {
    /// Its identity: 16 hex digits.
    pub id: String,
    /// Its name, such as that of a vApp.
    #[serde(default)]
    pub name: String,
    /// The points of all members, this one too, in the caller's order. Where the set is not all or nothing, some may
    /// never have been committed.
    pub points: Vec<PointId>,
    /// Whether its points are seen all or nothing.
    #[serde(default)]
    pub all_or_nothing: bool,
    /// The time from the begin of the first snapshot to the end of the last, in milliseconds.
    #[serde(default)]
    pub spread_millis: u64,
}

/// The JSON of `sets/open/<set>`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    id: String,
    name: String,
    points: Vec<PointId>,
    /// In seconds since 1970, UTC.
    created: u64,
}

/// The JSON of `sets/ended/<set>`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutcomeRecord {
    id: String,
    outcome: Outcome,
}

/// What became of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Outcome {
    /// All its points are there.
    Complete,
    /// Not all its points came to be, and none is seen.
    GivenUp,
}

impl RecoveryPoint {
    /// Returns the set that the point belongs to, if it belongs to one.
    pub fn set(&self) -> Option<&SetRecord> {
        self.manifest().set.as_ref()
    }

    /// Opens the points of the set that this one belongs to, in the set's order; this one alone when there is no set.
    ///
    /// # Errors
    /// [`Error::PointNotFound`] when one is missing: never committed, or deleted since. As [`Repository::point`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn points_of_set(&self) -> Result<Vec<Self>> {
        let Some(set) = self.set() else { return Ok(vec![self.clone()]) };
        let mut points = Vec::new();
        for id in &set.points {
            points.push(if id == self.id() { self.clone() } else { self.repository().point(id).await? });
        }
        Ok(points)
    }
}

impl Repository {
    /// Ends sets whose backup was cut short: one all of whose points are there is complete, any other is given up and
    /// its points are deleted.
    ///
    /// Only sets that were begun at least `age` seconds ago are looked at; no backup of such a set may be running. A
    /// [`BackupSet`](crate::BackupSet) does the same for the machines that it holds. Returns the sets that it ended.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Damaged`] when an object of a set cannot be read.
    ///
    /// # Cancel safety
    /// When dropped, run it again.
    pub async fn settle_sets(&self, age: u64) -> Result<Vec<(String, Outcome)>> {
        self.settle_sets_of(|members| now().saturating_sub(members.created) >= age).await
    }

    /// Ends the sets that have a point of one of these machines, all of which the caller holds.
    pub(crate) async fn settle_sets_of_machines(&self, machines: &BTreeSet<VmId>) -> Result<Vec<(String, Outcome)>> {
        self.settle_sets_of(|members| members.points.iter().any(|point| machines.contains(point.vm()))).await
    }

    async fn settle_sets_of(&self, which: impl Fn(&Members) -> bool) -> Result<Vec<(String, Outcome)>> {
        let mut ended = Vec::new();
        for id in self.open_sets().await? {
            let Some(members) = self.members(&id).await?.filter(&which) else { continue };
            let mut whole = true;
            for point in &members.points {
                whole &= match self.point(point).await {
                    Ok(_) => true,
                    Err(Error::PointNotFound { .. }) => false,
                    Err(error) if error.is_damage() => false,
                    Err(error) => return Err(error),
                };
            }
            let outcome = if whole { Outcome::Complete } else { Outcome::GivenUp };
            ended.push((id.clone(), self.end_set(&id, &members.points, outcome).await?));
        }
        Ok(ended)
    }

    /// Withholds the points of a set, none of which is committed yet.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) async fn open_set(&self, set: &SetRecord) -> Result<()> {
        let members =
            Members { id: set.id.clone(), name: set.name.clone(), points: set.points.clone(), created: now() };
        let body = serde_json::to_vec(&members).expect("a struct of plain fields is valid JSON");
        self.objects().create(Kind::Set, &members_key(&set.id), body.into()).await
    }

    /// Ends a set, unless somebody did before; returns how it ended. Points of a set that is given up are deleted.
    ///
    /// # Errors
    /// [`Error::Storage`]: the points stay withheld.
    pub(crate) async fn end_set(&self, id: &str, points: &[PointId], outcome: Outcome) -> Result<Outcome> {
        let outcome = self.decide(id, outcome).await?;
        if outcome == Outcome::GivenUp {
            for point in points {
                // Taken by the manifest, or from now on by a fence: none appears later.
                fence::raise(self.storage(), point).await?;
                match self.point(point).await {
                    Ok(there) => there.delete().await?,
                    Err(Error::PointNotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if let Err(error) = self.storage().delete(&members_key(id)).await {
            tracing::info!(set = id, %error, "the members of a set that has ended stay written down");
        }
        Ok(outcome)
    }

    /// Says how a set ended, unless that was said before; returns what counts.
    async fn decide(&self, id: &str, outcome: Outcome) -> Result<Outcome> {
        let record = OutcomeRecord { id: id.to_owned(), outcome };
        let body = serde_json::to_vec(&record).expect("a struct of plain fields is valid JSON");
        match self.objects().create(Kind::Set, &outcome_key(id), body.into()).await {
            Ok(()) => Ok(outcome),
            Err(error) => match self.outcome(id).await {
                Ok(Some(said)) => Ok(said),
                _ => Err(error),
            },
        }
    }

    /// Returns the points that are withheld from listings: those of sets that are not complete.
    ///
    /// # Errors
    /// [`Error::Storage`]. Where it cannot be read which they are, none is: each is a whole image of its machine, and
    /// damage is what a check tells.
    pub(super) async fn withheld(&self) -> Result<BTreeSet<PointId>> {
        let mut withheld = BTreeSet::new();
        for id in self.open_sets().await? {
            match self.withheld_of(&id).await {
                Ok(points) => withheld.extend(points),
                Err(error) if error.is_damage() => tracing::warn!(set = id, %error, "its points are not withheld"),
                Err(error) => return Err(error),
            }
        }
        Ok(withheld)
    }

    async fn withheld_of(&self, id: &str) -> Result<Vec<PointId>> {
        if self.outcome(id).await? == Some(Outcome::Complete) {
            return Ok(Vec::new());
        }
        Ok(self.members(id).await?.map(|members| members.points).unwrap_or_default())
    }

    /// Lists the sets whose members are written down.
    async fn open_sets(&self) -> Result<Vec<String>> {
        let listed: Vec<_> = self.storage().list("sets/open").try_collect().await?;
        let id = |key: &Key| key.as_str().strip_prefix("sets/open/").map(str::to_owned);
        Ok(listed.iter().filter_map(|object| id(&object.key)).filter(|id| is_set_id(id)).collect())
    }

    async fn members(&self, id: &str) -> Result<Option<Members>> {
        let key = members_key(id);
        let Some(members) = self.read_of_set::<Members>(&key).await? else { return Ok(None) };
        if members.id != id {
            return Err(Error::damaged(&key, format!("it is of set {}", members.id)));
        }
        Ok(Some(members))
    }

    async fn outcome(&self, id: &str) -> Result<Option<Outcome>> {
        let key = outcome_key(id);
        let Some(record) = self.read_of_set::<OutcomeRecord>(&key).await? else { return Ok(None) };
        if record.id != id {
            return Err(Error::damaged(&key, format!("it is of set {}", record.id)));
        }
        Ok(Some(record.outcome))
    }

    async fn read_of_set<T: for<'de> Deserialize<'de>>(&self, key: &Key) -> Result<Option<T>> {
        let body = match self.objects().read(Kind::Set, key).await {
            Err(error) if is_absent(&error) => return Ok(None),
            other => other?,
        };
        let record = serde_json::from_slice(&body);
        record.map(Some).map_err(|error| Error::damaged(key, format!("its content is not valid: {error}")))
    }
}

fn members_key(id: &str) -> Key {
    Key::of(&["sets", "open", id])
}

fn outcome_key(id: &str) -> Key {
    Key::of(&["sets", "ended", id])
}

fn is_set_id(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::repository::{Consistency, VmRecord, storage::MemoryStorage};

    const SET: &str = "0123456789abcdef";

    async fn repository() -> (Arc<MemoryStorage>, Repository) {
        let storage = Arc::new(MemoryStorage::new());
        let repository = Repository::create(storage.clone(), Default::default()).await.unwrap();
        (storage, repository)
    }

    fn vm(name: &str) -> VmId {
        VmId::parse(name).unwrap()
    }

    /// Begins a point of two machines, opens their set, and commits the first `committed` of them.
    async fn begun(repository: &Repository, committed: usize) -> SetRecord {
        let mut writers = Vec::new();
        for name in ["vm-1", "vm-2"] {
            let record = VmRecord { instance_uuid: vm(name), mo_ref: String::new(), name: String::new() };
            writers.push(repository.begin(record, Consistency::Crash, Default::default()).await.unwrap());
        }
        let points = writers.iter().map(|writer| writer.id().clone()).collect();
        let set = SetRecord { id: SET.into(), name: "app".into(), points, all_or_nothing: true, spread_millis: 3 };
        repository.open_set(&set).await.unwrap();
        for mut writer in writers.into_iter().take(committed) {
            writer.set_set(set.clone());
            writer.commit().await.unwrap();
        }
        set
    }

    async fn seen(repository: &Repository) -> usize {
        let of = async |name| repository.points(&vm(name)).await.unwrap().len();
        let listed = of("vm-1").await + of("vm-2").await;
        assert_eq!(repository.vms().await.unwrap().len(), listed);
        listed
    }

    #[tokio::test]
    async fn the_points_of_a_set_appear_all_at_once() {
        let (storage, repository) = repository().await;
        let set = begun(&repository, 2).await;
        assert_eq!(seen(&repository).await, 0, "both are committed, and none is seen");
        // The store deletes nothing: the word alone counts.
        assert_eq!(repository.decide(SET, Outcome::Complete).await.unwrap(), Outcome::Complete);
        assert_eq!(seen(&repository).await, 2);
        assert_eq!(repository.end_set(SET, &set.points, Outcome::GivenUp).await.unwrap(), Outcome::Complete);
        assert_eq!(seen(&repository).await, 2);
        assert!(!storage.keys().iter().any(|key| key.as_str().starts_with("sets/open")));
        let point = repository.latest(&vm("vm-2")).await.unwrap().unwrap();
        let of_set = point.points_of_set().await.unwrap();
        assert_eq!(of_set.iter().map(|point| point.id()).collect::<Vec<_>>(), set.points.iter().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_set_that_was_cut_short_is_completed_or_given_up() {
        for (committed, outcome) in [(2, Outcome::Complete), (1, Outcome::GivenUp), (0, Outcome::GivenUp)] {
            let (storage, repository) = repository().await;
            let set = begun(&repository, committed).await;
            assert_eq!(repository.settle_sets(60).await.unwrap(), [], "it is young");
            let ended = repository.settle_sets_of_machines(&[vm("vm-2")].into()).await.unwrap();
            assert_eq!(ended, [(SET.to_owned(), outcome)]);
            assert_eq!(seen(&repository).await, if committed == 2 { 2 } else { 0 });
            assert!(!storage.keys().iter().any(|key| key.as_str().starts_with("sets/open")));
            if committed < 2 {
                assert!(fence::stands(repository.storage(), &set.points[1]).await.unwrap(), "no writer comes late");
            }
        }
    }

    #[tokio::test]
    async fn whoever_decides_first_is_right() {
        let (_, repository) = repository().await;
        let set = begun(&repository, 2).await;
        repository.decide(SET, Outcome::GivenUp).await.unwrap();
        assert_eq!(repository.end_set(SET, &set.points, Outcome::Complete).await.unwrap(), Outcome::GivenUp);
        assert_eq!(seen(&repository).await, 0);
    }
}
