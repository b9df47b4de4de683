//! The object `config`: what a repository is, written once.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

use super::{
    envelope::{self, Kind},
    hex::{hex, parse_hex},
    id::{IdKeys, RepositoryId, random},
    keys::{KeyHolder, KeySource, Scope, SecretKey},
    storage::{Key, Storage, StorageError, StorageErrorKind},
};

/// How a new repository is laid out. What is chosen here stays for the repository's life.
#[derive(Clone, Debug)]
#[must_use]
pub struct CreateOptions {
    chunk_size: u32,
    sources: Vec<KeySource>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { chunk_size: 256 << 10, sources: Vec::new() }
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

    /// Encrypts everything, for whoever holds this source; call it again for each further one.
    ///
    /// Without a source the repository is plain, for ever.
    pub fn encrypted(mut self, source: KeySource) -> Self {
        self.sources.push(source);
        self
    }
}

/// The content of `config`, as this release understands it, and the keys of identities.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) id: RepositoryId,
    pub(crate) chunk_size: u32,
    pub(crate) keys: IdKeys,
    pub(crate) created: u64,
}

impl Config {
    /// Writes the `config` of a new repository, exclusively; before it, where it is encrypted, the keys.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`], [`Error::Invalid`] for bad options, [`Error::KeyService`], [`Error::Storage`].
    pub(crate) async fn create(storage: &dyn Storage, options: CreateOptions) -> Result<(Self, Option<KeyHolder>)> {
        check_chunk_size(options.chunk_size).map_err(Error::invalid)?;
        let exists = || Error::RepositoryExists { location: storage.location() };
        match Draft::read(storage).await {
            Err(Error::NotARepository { .. }) => {}
            Ok(_) => return Err(exists()),
            Err(error) if error.is_damage() => return Err(exists()),
            Err(error) => return Err(error),
        }
        let secret = if options.sources.is_empty() { Some(SecretKey::generate()?) } else { None };
        let body = Body {
            repository_id: RepositoryId(random()?),
            created: super::now(),
            chunk_size: options.chunk_size,
            page_entries: PAGE_ENTRIES,
            id_key: secret.map(|secret| hex(&secret.expose()[..])),
            incompatible_features: Vec::new(),
            compatible_features: Vec::new(),
            encryption: (!options.sources.is_empty()).then(|| serde_json::json!({ "cipher": CIPHER })),
        };
        let bytes = Bytes::from(serde_json::to_vec(&body).expect("a struct of plain fields is valid JSON"));
        let draft = Draft::parse(&bytes)?;
        let keys = match draft.scope() {
            Some(scope) => Some(KeyHolder::create(storage, scope, &options.sources).await?),
            None => None,
        };
        match storage.put_new(&key(), envelope::seal(Kind::Config, bytes.clone())?).await {
            Ok(()) => {}
            Err(StorageError { kind: StorageErrorKind::AlreadyExists, .. }) => {
                // A storage that tries again may have met its own object.
                let found = match envelope::read_plain(storage, Kind::Config, &key()).await {
                    Err(error) if !error.is_damage() => return Err(error),
                    found => found,
                };
                if found.is_err() || found.is_ok_and(|found| found != bytes) {
                    if let Some((_, number)) = keys {
                        KeyHolder::withdraw(storage, number).await;
                    }
                    return Err(exists());
                }
            }
            Err(error) => return Err(error.into()),
        }
        let keys = keys.map(|(keys, _)| keys);
        Ok((draft.finish(storage, keys.as_ref())?, keys))
    }
}

/// What `config` says; the keys of identities may be missing yet.
pub(crate) struct Draft {
    id: RepositoryId,
    chunk_size: u32,
    created: u64,
    /// `None` when the repository is encrypted.
    secret: Option<SecretKey>,
    /// BLAKE3 of the body.
    sum: [u8; 32],
}

impl Draft {
    /// Reads `config`.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Damaged`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFeature`], [`Error::Storage`].
    pub(crate) async fn read(storage: &dyn Storage) -> Result<Self> {
        let bytes = match envelope::read_plain(storage, Kind::Config, &key()).await {
            Ok(bytes) => bytes,
            Err(Error::Storage(StorageError { kind: StorageErrorKind::NotFound, .. })) => {
                return Err(Error::NotARepository { location: storage.location() });
            }
            Err(error) => return Err(error),
        };
        Self::parse(&bytes)
    }

    fn parse(bytes: &Bytes) -> Result<Self> {
        let damaged = |reason: String| Error::damaged(key(), reason);
        let body: Body =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("its content is not valid: {error}")))?;
        let unknown = |feature: String| Error::UnsupportedFeature { object: key().to_string(), feature };
        if let Some(feature) = body.incompatible_features.into_iter().next() {
            return Err(unknown(feature));
        }
        if let Some(encryption) = &body.encryption
            && encryption["cipher"] != CIPHER
        {
            return Err(unknown(format!("encryption {encryption}")));
        }
        if body.page_entries != PAGE_ENTRIES {
            return Err(unknown(format!("pages of {} entries", body.page_entries)));
        }
        check_chunk_size(body.chunk_size).map_err(damaged)?;
        let secret = match (body.encryption, body.id_key) {
            (None, Some(digits)) => {
                let mut secret = Zeroizing::new([0; SecretKey::LEN]);
                parse_hex(&digits, &mut *secret)
                    .ok_or_else(|| damaged("the key of identities is not 64 hex digits".into()))?;
                Some(SecretKey::new(*secret))
            }
            (Some(_), None) => None,
            (None, None) => return Err(damaged("it has no key of identities".into())),
            (Some(_), Some(_)) => return Err(damaged("it shows a key of identities that should be encrypted".into())),
        };
        let sum = *blake3::hash(bytes).as_bytes();
        Ok(Self { id: body.repository_id, chunk_size: body.chunk_size, created: body.created, secret, sum })
    }

    /// Returns what the keys are bound to; `None` when the repository is not encrypted.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self.secret {
            Some(_) => None,
            None => Some(Scope { repository: self.id, config: self.sum }),
        }
    }

    /// Adds the keys.
    ///
    /// # Errors
    /// [`Error::Encrypted`] when the repository is and there are none.
    pub(crate) fn finish(self, storage: &dyn Storage, keys: Option<&KeyHolder>) -> Result<Config> {
        let secret = match (self.secret, keys) {
            (Some(secret), _) => secret,
            (None, Some(keys)) => keys.identity(),
            (None, None) => return Err(Error::Encrypted { location: storage.location() }),
        };
        let keys = IdKeys::derive(secret.expose());
        Ok(Config { id: self.id, chunk_size: self.chunk_size, keys, created: self.created })
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
    /// Absent when the repository is encrypted: then it is among the sealed keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_key: Option<String>,
    #[serde(default)]
    incompatible_features: Vec<String>,
    #[serde(default)]
    compatible_features: Vec<String>,
    /// The cipher of an encrypted repository.
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

const CIPHER: &str = "aes-256-gcm";

/// Entries of one page of a disk's index.
pub(crate) const PAGE_ENTRIES: u32 = 4096;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::repository::storage::{
        BoxFuture, MemoryStorage,
        around::{Answer, Around, Operation, decorate},
    };

    #[tokio::test]
    async fn is_created_once_and_read_back() {
        let storage = MemoryStorage::new();
        assert!(matches!(Draft::read(&storage).await, Err(Error::NotARepository { .. })));
        let (made, _) = Config::create(&storage, CreateOptions::default()).await.unwrap();
        let read = Draft::read(&storage).await.unwrap().finish(&storage, None).unwrap();
        assert_eq!((made.id, made.chunk_size), (read.id, 256 << 10));
        assert_eq!(made.keys.chunk(b"x"), read.keys.chunk(b"x"));
        let again = Config::create(&storage, CreateOptions::default()).await;
        assert!(matches!(again, Err(Error::RepositoryExists { .. })));
        let odd = Config::create(&storage, CreateOptions::default().chunk_size(100_000)).await;
        assert!(matches!(odd, Err(Error::Invalid { .. })));
    }

    #[tokio::test]
    async fn what_another_one_created_meanwhile_is_never_taken_for_ones_own() {
        let storage = Late { inner: MemoryStorage::new(), gets: AtomicU32::new(0) };
        Config::create(&storage.inner, CreateOptions::default()).await.unwrap();
        let error = Config::create(&storage, CreateOptions::default()).await.err().unwrap();
        assert!(matches!(error, Error::Storage(StorageError { kind: StorageErrorKind::Unavailable, .. })), "{error}");
    }

    /// Has what another one creates between the first look and the creation, and fails when it is looked at again.
    #[derive(Debug)]
    struct Late {
        inner: MemoryStorage,
        gets: AtomicU32,
    }

    impl Around for Late {
        fn inner(&self) -> &dyn Storage {
            &self.inner
        }

        async fn around<'a, T: Answer>(
            &'a self,
            operation: Operation<'a>,
            mut attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
        ) -> Result<T, StorageError> {
            if operation.name == "get" {
                return Err(operation.failed(match self.gets.fetch_add(1, Ordering::Relaxed) {
                    0 => StorageErrorKind::NotFound,
                    _ => StorageErrorKind::Unavailable,
                }));
            }
            attempt().await
        }
    }

    decorate!(Late);

    #[tokio::test]
    async fn unknown_features_are_refused_by_name() {
        let storage = MemoryStorage::new();
        Config::create(&storage, CreateOptions::default()).await.unwrap();
        let body = envelope::read_plain(&storage, Kind::Config, &key()).await.unwrap();
        let good: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for (field, value) in [
            ("incompatibleFeatures", serde_json::json!(["time-travel"])),
            ("encryption", serde_json::json!({"kdf": "argon2id"})),
            ("pageEntries", serde_json::json!(1024)),
        ] {
            let mut changed = good.clone();
            changed[field] = value;
            let error = Draft::parse(&changed.to_string().into()).err().unwrap();
            assert!(matches!(error, Error::UnsupportedFeature { .. }), "{field}: {error}");
        }
        let mut compatible = good.clone();
        compatible["compatibleFeatures"] = serde_json::json!(["comments"]);
        compatible["somethingNew"] = serde_json::json!(1);
        assert!(Draft::parse(&compatible.to_string().into()).is_ok());
        let mut odd = good;
        odd["chunkSize"] = serde_json::json!(1);
        assert!(matches!(Draft::parse(&odd.to_string().into()), Err(Error::Damaged { .. })));
    }
}
