//! The object `config`: what a repository is, written once.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::{
    envelope::{self, Kind},
    id::{IdKeys, RepositoryId, parse_hex, random},
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

/// How a new repository is laid out. What is chosen here stays for the repository's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct CreateOptions {
    chunk_size: u32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { chunk_size: 256 << 10 }
    }
}

impl CreateOptions {
    /// Sets the size of chunks in bytes: a power of two from 64 KiB to 4 MiB, 256 KiB by default.
    ///
    /// Smaller chunks store less of a scattered change and need a larger index.
    pub fn chunk_size(mut self, bytes: u32) -> Self {
        self.chunk_size = bytes;
        self
    }
}

/// The content of `config`, as this release understands it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) id: RepositoryId,
    pub(crate) chunk_size: u32,
    pub(crate) keys: IdKeys,
    pub(crate) created: u64,
}

impl Config {
    /// Writes the `config` of a new repository, exclusively.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`], [`Error::Invalid`] for a bad chunk size, [`Error::Storage`].
    pub(crate) async fn create(storage: &dyn Storage, options: CreateOptions) -> Result<Self> {
        check_chunk_size(options.chunk_size).map_err(Error::invalid)?;
        let secret: [u8; 32] = random()?;
        let body = Body {
            repository_id: RepositoryId(random()?),
            created: super::now(),
            chunk_size: options.chunk_size,
            page_entries: PAGE_ENTRIES,
            id_key: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
            incompatible_features: Vec::new(),
            compatible_features: Vec::new(),
            encryption: None,
        };
        let bytes = serde_json::to_vec(&body).expect("a struct of plain fields is valid JSON");
        let sealed = envelope::seal(Kind::Config, bytes.into())?;
        match storage.put_new(&key(), sealed).await {
            Ok(()) => Self::from_body(body),
            Err(StorageError { kind: StorageErrorKind::AlreadyExists, .. }) => {
                Err(Error::RepositoryExists { location: storage.location() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads `config`.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Damaged`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFeature`], [`Error::Storage`].
    pub(crate) async fn read(storage: &dyn Storage) -> Result<Self> {
        let bytes = match envelope::read(storage, Kind::Config, &key()).await {
            Ok(bytes) => bytes,
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::NotARepository { location: storage.location() });
            }
            Err(error) => return Err(error),
        };
        Self::parse(&bytes)
    }

    fn parse(bytes: &Bytes) -> Result<Self> {
        let body = serde_json::from_slice(bytes)
            .map_err(|error| Error::damaged(key(), format!("its content is not valid: {error}")))?;
        Self::from_body(body)
    }

    fn from_body(body: Body) -> Result<Self> {
        let unknown = |feature: String| Error::UnsupportedFeature { object: key().to_string(), feature };
        if let Some(feature) = body.incompatible_features.into_iter().next() {
            return Err(unknown(feature));
        }
        if body.encryption.is_some() {
            return Err(unknown("encryption".into()));
        }
        if body.page_entries != PAGE_ENTRIES {
            return Err(unknown(format!("pages of {} entries", body.page_entries)));
        }
        check_chunk_size(body.chunk_size).map_err(|reason| Error::damaged(key(), reason))?;
        let mut secret = [0; 32];
        parse_hex(&body.id_key, &mut secret)
            .ok_or_else(|| Error::damaged(key(), "the key of identities is not 64 hex digits"))?;
        Ok(Self {
            id: body.repository_id,
            chunk_size: body.chunk_size,
            keys: IdKeys::derive(&secret),
            created: body.created,
        })
    }
}

/// The JSON of `config`. Not `Debug`: it holds the key of identities.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    repository_id: RepositoryId,
    /// Seconds since 1970, UTC.
    created: u64,
    chunk_size: u32,
    page_entries: u32,
    id_key: String,
    #[serde(default)]
    incompatible_features: Vec<String>,
    #[serde(default)]
    compatible_features: Vec<String>,
    /// Reserved: the wrapped keys of an encrypted repository.
    #[serde(default)]
    encryption: Option<serde_json::Value>,
}

fn check_chunk_size(bytes: u32) -> Result<(), String> {
    if bytes.is_power_of_two() && (64 << 10..=4 << 20).contains(&bytes) {
        Ok(())
    } else {
        Err(format!("a chunk size of {bytes} bytes is not a power of two from 64 KiB to 4 MiB"))
    }
}

pub(crate) fn key() -> Key {
    Key::of(&["config"])
}

/// Entries of one page of a disk's index.
pub(crate) const PAGE_ENTRIES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::storage::MemoryStorage;

    #[tokio::test]
    async fn is_created_once_and_read_back() {
        let storage = MemoryStorage::new();
        assert!(matches!(Config::read(&storage).await, Err(Error::NotARepository { .. })));
        let made = Config::create(&storage, CreateOptions::default()).await.unwrap();
        let read = Config::read(&storage).await.unwrap();
        assert_eq!((made.id, made.chunk_size), (read.id, 256 << 10));
        assert_eq!(made.keys.chunk(b"x"), read.keys.chunk(b"x"));
        let again = Config::create(&storage, CreateOptions::default()).await;
        assert!(matches!(again, Err(Error::RepositoryExists { .. })));
        let odd = Config::create(&storage, CreateOptions::default().chunk_size(100_000)).await;
        assert!(matches!(odd, Err(Error::Invalid { .. })));
    }

    #[tokio::test]
    async fn unknown_features_are_refused_by_name() {
        let storage = MemoryStorage::new();
        Config::create(&storage, CreateOptions::default()).await.unwrap();
        let body = envelope::read(&storage, Kind::Config, &key()).await.unwrap();
        let good: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for (field, value) in [
            ("incompatibleFeatures", serde_json::json!(["time-travel"])),
            ("encryption", serde_json::json!({"kdf": "argon2id"})),
            ("pageEntries", serde_json::json!(1024)),
        ] {
            let mut changed = good.clone();
            changed[field] = value;
            let error = Config::parse(&changed.to_string().into()).unwrap_err();
            assert!(matches!(error, Error::UnsupportedFeature { .. }), "{field}: {error}");
        }
        let mut compatible = good.clone();
        compatible["compatibleFeatures"] = serde_json::json!(["comments"]);
        compatible["somethingNew"] = serde_json::json!(1);
        assert!(Config::parse(&compatible.to_string().into()).is_ok());
        let mut odd = good;
        odd["chunkSize"] = serde_json::json!(1);
        assert!(matches!(Config::parse(&odd.to_string().into()), Err(Error::Damaged { .. })));
    }
}
