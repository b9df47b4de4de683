//! Small objects of recovery points: configurations and the like.

use bytes::Bytes;

use crate::error::{Error, Result};

use super::{
    Repository,
    envelope::Kind,
    id::{MetaId, random},
    storage::{Key, StorageError, StorageErrorKind},
};

impl Repository {
    /// Stores a small object of at most 16 MiB and returns its identity.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too large, [`Error::Storage`].
    ///
    /// # Cancel safety
    /// When dropped, the object is stored or not.
    pub async fn put_meta(&self, body: Bytes) -> Result<MetaId> {
        // The salt makes the object one of its kind: the same bytes stored again get another name.
        let salt: [u8; META_SALT] = random()?;
        let body = Bytes::from([&salt, &*body].concat());
        let id = self.inner.config.keys.meta(&body);
        self.objects().put(Kind::Meta, &meta_key(id), body).await?;
        Ok(id)
    }

    /// Reads a small object, checked against its identity.
    ///
    /// # Errors
    /// [`Error::Damaged`], also when it is absent; [`Error::Storage`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn meta(&self, id: MetaId) -> Result<Bytes> {
        let key = meta_key(id);
        let body = match self.objects().read(Kind::Meta, &key).await {
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::damaged(key, "it is absent"));
            }
            other => other?,
        };
        if body.len() < META_SALT || self.inner.config.keys.meta(&body) != id {
            return Err(Error::damaged(key, "its content does not match its name"));
        }
        Ok(body.slice(META_SALT..))
    }
}

pub(crate) fn meta_key(id: MetaId) -> Key {
    Key::of(&["meta", &id.to_string()])
}

/// Bytes of the salt before the bytes of a small object.
pub(crate) const META_SALT: usize = 16;
