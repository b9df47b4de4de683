//! Holds: recovery points that are not deleted, whatever retention says.

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    error::{Error, Result},
};

use super::{Repository, envelope::Kind, hex::random_name, id::PointId, point::RecoveryPoint, storage::Key};

/// A hold on a recovery point: it is not deleted before the hold is released or its time has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Hold {
    /// The point.
    pub point: PointId,
    /// Tells several holds of one point apart: 16 hex digits.
    pub id: String,
    /// Why, in words.
    pub reason: String,
    /// Until when, in seconds since 1970, UTC; `None` for as long as it is not released.
    #[serde(default)]
    pub until: Option<u64>,
    /// When it was made, in seconds since 1970, UTC.
    pub created: u64,
}

impl Hold {
    /// Tells whether the hold still holds at a time, in seconds since 1970.
    pub fn holds_at(&self, seconds: u64) -> bool {
        self.until.is_none_or(|until| seconds < until)
    }

    fn key(&self) -> Key {
        Key::of(&["holds", self.point.vm().as_str(), self.point.name(), &self.id])
    }
}

impl RecoveryPoint {
    /// Holds the point, for ever or until a time in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::PointNotFound`] when the point is gone or is being deleted; [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, the hold exists or not.
    pub async fn hold(&self, reason: impl Into<String>, until: Option<u64>) -> Result<Hold> {
        let (repository, point) = (self.repository(), self.id().clone());
        let hold = Hold { point, id: random_name()?, reason: reason.into(), until, created: super::now() };
        let body = serde_json::to_vec(&hold).expect("a struct of plain fields is valid JSON");
        repository.objects().create(Kind::Hold, &hold.key(), body.into()).await?;
        // Who deletes writes a record first and looks for holds then; a hold is made first and looks for records then:
        // one of the two meets the other.
        let going = repository.is_being_deleted(self.id()).await?;
        let there = repository.point(self.id()).await;
        if going || matches!(there, Err(Error::PointNotFound { .. })) {
            repository.release_hold(&hold).await?;
            return Err(Error::PointNotFound { point: self.id().clone() });
        }
        Ok(hold)
    }
}

impl Repository {
    /// Lists the holds of a point, those included whose time has come.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Damaged`] when a hold cannot be read: the point then counts as held.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn holds(&self, point: &PointId) -> Result<Vec<Hold>> {
        let prefix = format!("holds/{point}");
        let listed: Vec<_> = self.storage().list(&prefix).try_collect().await?;
        let mut holds = Vec::new();
        for object in listed {
            let body = match self.objects().read(Kind::Hold, &object.key).await {
                Err(error) if super::object::is_absent(&error) => continue,
                other => other?,
            };
            let hold: Hold = serde_json::from_slice(&body)
                .map_err(|error| Error::damaged(&object.key, format!("its content is not valid: {error}")))?;
            if hold.point != *point || hold.id != object.key.file_name() {
                return Err(Error::damaged(&object.key, "it is another hold"));
            }
            holds.push(hold);
        }
        holds.sort_unstable_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(holds)
    }

    /// Releases a hold.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, the hold exists or not.
    pub async fn release_hold(&self, hold: &Hold) -> Result<()> {
        Ok(self.storage().delete(&hold.key()).await?)
    }

    /// Returns the reason why a point may not be deleted now, if there is one.
    pub(crate) async fn held(&self, point: &PointId, clock: &Clock) -> Result<Option<String>> {
        match self.holds(point).await {
            Ok(holds) => Ok(holds.into_iter().find(|hold| hold.holds_at(clock.seconds())).map(|hold| hold.reason)),
            Err(error) if error.is_damage() => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}
