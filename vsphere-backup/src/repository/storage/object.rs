//! Objects in whatever `object_store` speaks to: its types end here.

use std::{error::Error as StdError, fmt, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload,
    memory::InMemory, path::Path,
};

use super::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind};

/// A [`Storage`] in an object store: Amazon S3 and what speaks its protocol, Google Cloud Storage,
/// Azure Blob Storage, each by its feature, or [memory](Self::memory).
///
/// Large objects that may be replaced go up in parts, several at once; the object appears with the
/// last of them. What must be new is one conditional request. When its answer is lost, or the store
/// says that the name is taken, the object is asked whether it carries this very request's random
/// mark, so that of several writers exactly one learns that it won, retries or not.
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// Put before every name; without a slash at its end.
    prefix: String,
    location: String,
    ability: Ability,
    scrubber: Scrubber,
}

/// What a store can do beyond the least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    /// Objects can carry a mark of who wrote them.
    pub(super) marks: bool,
    /// Objects larger than this go up in parts.
    pub(super) parts_from: u64,
}

impl Ability {
    pub(super) const CLOUD: Self = Self { marks: true, parts_from: 32 << 20 };
    pub(super) const FOLDER: Self = Self { marks: false, parts_from: u64::MAX };
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the store itself: what it shows is not ours to vouch for.
        write!(f, "ObjectStorage({})", self.location)
    }
}

impl ObjectStorage {
    /// Makes an empty object store in memory, which behaves as those in the cloud do.
    pub fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()), "object store in memory", Ability::CLOUD)
    }

    pub(super) fn new(store: Arc<dyn ObjectStore>, location: impl Into<String>, ability: Ability) -> Self {
        Self { store, prefix: String::new(), location: location.into(), ability, scrubber: Scrubber::default() }
    }

    /// Keeps all objects below `prefix`, which is checked as a key is.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub(super) fn below(self, prefix: &str) -> crate::Result<Self> {
        let prefix = if prefix.is_empty() { String::new() } else { Key::parse(prefix)?.to_string() };
        Ok(Self { prefix, ..self })
    }

    /// Words that must never be seen in a message.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub(super) fn hiding(self, secrets: Vec<vsphere_vim::Secret>) -> Self {
        Self { scrubber: Scrubber { secrets }, ..self }
    }

    fn path(&self, key: &str) -> Path {
        match self.prefix.as_str() {
            "" => Path::from(key),
            prefix => Path::from(format!("{prefix}/{key}")),
        }
    }

    fn wrong(&self, operation: &'static str, key: impl fmt::Display, error: object_store::Error) -> StorageError {
        StorageError::new(kind(&error), operation, key).because(self.scrubber.told(&error))
    }

    async fn size(&self, key: &Key) -> Result<u64, object_store::Error> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(self.store.get_opts(&self.path(key.as_str()), options).await?.meta.size)
    }

    /// Writes in parts; nothing is visible before the last step.
    async fn put_in_parts(&self, key: &Key, bytes: Bytes) -> Result<(), object_store::Error> {
        let path = self.path(key.as_str());
        let mut upload = self.store.put_multipart_opts(&path, Default::default()).await?;
        let parts: Vec<_> =
            (0..bytes.len()).step_by(PART).map(|at| bytes.slice(at..bytes.len().min(at + PART))).collect();
        // Made in order, which gives them their numbers; sent several at once.
        let sending: Vec<_> = parts.into_iter().map(|part| upload.put_part(part.into())).collect();
        let sent = stream::iter(sending).buffer_unordered(PARTS_AT_ONCE).try_collect::<Vec<()>>().await;
        let done = match sent {
            Ok(_) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(error) = upload.abort().await
        {
            let error = self.scrubber.told(&error);
            tracing::warn!(%key, %error, "parts of an object that was given up stay until the store removes them");
        }
        done
    }

    /// Tells whether the object is there and was written with `mark`: `None` when it is absent.
    async fn is_marked(&self, key: &Key, mark: &AttributeValue) -> Result<Option<bool>, object_store::Error> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.path(key.as_str()), options).await {
            Ok(answer) => Ok(Some(answer.attributes.get(&MARK) == Some(mark))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, key: &Key, payload: PutPayload) -> Result<(), StorageError> {
        const OPERATION: &str = "create";
        let wrong = |error| self.wrong(OPERATION, key, error);
        let path = self.path(key.as_str());
        if !self.ability.marks {
            return self.store.put_opts(&path, payload, PutMode::Create.into()).await.map(drop).map_err(wrong);
        }
        let random: [u8; 16] = crate::repository::random()
            .map_err(|error| StorageError::new(StorageErrorKind::Other, OPERATION, key).because(error))?;
        let mark = AttributeValue::from(u128::from_be_bytes(random).to_string());
        let attributes = Attributes::from_iter([(MARK, mark.clone())]);
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        let error = match self.store.put_opts(&path, payload, options).await {
            Ok(_) => return Ok(()),
            Err(error) => wrong(error),
        };
        if !matches!(error.kind, StorageErrorKind::AlreadyExists | StorageErrorKind::Unavailable) {
            return Err(error);
        }
        match (self.is_marked(key, &mark).await, error.kind) {
            // Our own write, sent again by the client below or never answered.
            (Ok(Some(true)), _) => Ok(()),
            (Ok(Some(false)), _) => Err(StorageError { kind: StorageErrorKind::AlreadyExists, ..error }),
            // A store may also say "conflict" of two requests that met, when neither was carried out.
            (Ok(None), _) => Err(StorageError { kind: StorageErrorKind::Unavailable, ..error }),
            (Err(_), StorageErrorKind::AlreadyExists) => {
                // Who wrote it cannot be told now; saying "taken" could leave a name without an owner.
                Err(StorageError { kind: StorageErrorKind::Unavailable, ..error })
            }
            (Err(_), _) => Err(error),
        }
    }
}

impl Storage for ObjectStorage {
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let wrong = |error| self.wrong("get", key, error);
            let answer = self.store.get_opts(&self.path(key.as_str()), GetOptions::default()).await.map_err(wrong)?;
            if answer.meta.size > limit {
                return Err(StorageError::new(StorageErrorKind::TooLarge, "get", key));
            }
            let size = answer.meta.size;
            let bytes = answer.bytes().await.map_err(wrong)?;
            if bytes.len() as u64 != size {
                let cut = format!("{} of {size} bytes came", bytes.len());
                return Err(StorageError::new(StorageErrorKind::Unavailable, "get", key).because(cut));
            }
            Ok(bytes)
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let short = || StorageError::new(StorageErrorKind::OutOfRange, "get range", key);
            if range.is_empty() {
                return if range.start == range.end { Ok(Bytes::new()) } else { Err(short()) };
            }
            let wrong = |error| self.wrong("get range", key, error);
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let answer = match self.store.get_opts(&self.path(key.as_str()), options).await {
                Ok(answer) => answer,
                // A range that begins behind the end is an error of no kind of its own. Only the size tells it from
                // others, such as no descriptors left or a disk that fails.
                Err(error @ object_store::Error::Generic { .. }) => {
                    return match self.size(key).await {
                        Ok(size) if size < range.end => Err(short()),
                        _ => Err(wrong(error)),
                    };
                }
                Err(error) => return Err(wrong(error)),
            };
            // A range that only ends behind the end is cut short in silence.
            if answer.range != range {
                return Err(short());
            }
            let bytes = answer.bytes().await.map_err(wrong)?;
            if bytes.len() as u64 != range.end - range.start {
                let cut = format!("{} bytes came", bytes.len());
                return Err(StorageError::new(StorageErrorKind::Unavailable, "get range", key).because(cut));
            }
            Ok(bytes)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let size: u64 = parts.iter().map(|part| part.len() as u64).sum();
            let done = if size > self.ability.parts_from {
                self.put_in_parts(key, super::join(&parts)).await
            } else {
                let payload: PutPayload = parts.into_iter().collect();
                self.store.put_opts(&self.path(key.as_str()), payload, PutMode::Overwrite.into()).await.map(drop)
            };
            done.map_err(|error| self.wrong("put", key, error))
        })
    }

    fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.create(key, parts.into_iter().collect()))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let below = match (self.prefix.is_empty(), prefix.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Path::from(self.prefix.as_str())),
            (_, false) => Some(self.path(prefix)),
        };
        let found = self.store.list(below.as_ref());
        Box::pin(
            found
                .map_err(move |error| self.wrong("list", prefix, error))
                // Names that are not ours (a stray file of the administrator) are not listed.
                .try_filter_map(move |meta| async move {
                    let name = meta.location.as_ref();
                    let name = match self.prefix.as_str() {
                        "" => Some(name),
                        prefix => name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')),
                    };
                    // Some stores compare prefixes by bytes and not by segments.
                    let key = name.and_then(|name| Key::parse(name).ok()).filter(|key| key.is_below(prefix));
                    let modified = Some(meta.last_modified.into());
                    Ok(key.map(|key| ObjectInfo { key, size: meta.size, modified }))
                }),
        )
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let location = self.path(key.as_str());
            let one = stream::once(async move { Ok(location) }).boxed();
            match self.store.delete_stream(one).try_collect::<Vec<_>>().await {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.wrong("delete", key, error)),
            }
        })
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

fn kind(error: &object_store::Error) -> StorageErrorKind {
    use object_store::Error as Theirs;
    match error {
        Theirs::NotFound { .. } => StorageErrorKind::NotFound,
        Theirs::AlreadyExists { .. } | Theirs::Precondition { .. } => StorageErrorKind::AlreadyExists,
        Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. } => StorageErrorKind::PermissionDenied,
        other => chain(other).find_map(known).unwrap_or(StorageErrorKind::Other),
    }
}

/// What one error of a chain says by itself.
fn known(error: &(dyn StdError + 'static)) -> Option<StorageErrorKind> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => Some(io_kind(error)),
        None => known_of_http(error),
    }
}

#[cfg(not(any(feature = "s3", feature = "gcs", feature = "azure")))]
fn known_of_http(_: &(dyn StdError + 'static)) -> Option<StorageErrorKind> {
    None
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn known_of_http(error: &(dyn StdError + 'static)) -> Option<StorageErrorKind> {
    use object_store::client::{HttpError, HttpErrorKind};
    if let Some(error) = error.downcast_ref::<HttpError>() {
        return match error.kind() {
            HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Timeout | HttpErrorKind::Interrupted => {
                Some(StorageErrorKind::Unavailable)
            }
            _ => None,
        };
    }
    // The type of an answer with a bad status is not public; a test holds its words.
    let text = error.to_string();
    let status = text.strip_prefix("Server returned non-2xx status code: ").and_then(|rest| rest.get(..3));
    match status {
        Some("507") => Some(StorageErrorKind::Full),
        Some("408" | "429") => Some(StorageErrorKind::Unavailable),
        Some(status) if status.starts_with('5') => Some(StorageErrorKind::Unavailable),
        _ => None,
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

pub(super) fn io_kind(error: &io::Error) -> StorageErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        io::ErrorKind::TimedOut
        | io::ErrorKind::Interrupted
        | io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionRefused => StorageErrorKind::Unavailable,
        _ => StorageErrorKind::Other,
    }
}

/// Retells errors of others without what must not be told.
#[derive(Default)]
struct Scrubber {
    secrets: Vec<vsphere_vim::Secret>,
}

impl Scrubber {
    /// Returns all that an error and its causes say, each thing once, as one text.
    ///
    /// Only the text is kept: the error's own `Debug` may show requests with their headers.
    fn told(&self, error: &(dyn StdError + 'static)) -> String {
        let mut told = String::new();
        for text in chain(error).map(ToString::to_string) {
            if !told.contains(&text) {
                let colon = if told.is_empty() { "" } else { ": " };
                told.extend([colon, &text]);
            }
        }
        let told = self.secrets.iter().map(vsphere_vim::Secret::expose).filter(|secret| !secret.is_empty()).fold(
            told,
            // Both as it is and as a query of an address has it.
            |told, secret| told.replace(secret, "***").replace(&percent_encoded(secret), "***"),
        );
        let end = told.char_indices().nth(LONGEST_TEXT).map_or(told.len(), |(at, _)| at);
        told[..end].to_owned()
    }
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// The name under which an object carries the mark of the request that created it.
const MARK: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("vsphere-backup-request"));
/// Bytes of one part: at most 10 000 parts make an object, 5 MiB is the least that S3 takes.
const PART: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
/// Characters of another's words: some stores answer with a page of HTML.
const LONGEST_TEXT: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_retold() {
        let scrubber = Scrubber { secrets: vec![vsphere_vim::Secret::new("p/s+w"), vsphere_vim::Secret::new("")] };
        let source = Box::new(io::Error::other("GET https://host/a?sig=p%2Fs%2Bw&x=p/s+w"));
        let told = scrubber.told(&object_store::Error::Generic { store: "S3", source });
        assert!(!told.contains("p/s+w") && !told.contains("p%2Fs%2Bw"), "{told}");
        assert!(told.contains("https://host/a?sig=***&x=***"), "{told}");
    }

    #[tokio::test]
    async fn an_object_in_parts_is_whole_and_replaced_whole() {
        let small = ObjectStorage { ability: Ability { marks: true, parts_from: 100 }, ..ObjectStorage::memory() };
        let key = Key::parse("packs/a").unwrap();
        let bytes = Bytes::from(vec![7; 2 * PART + 5]);
        small.put(&key, vec![bytes.slice(..10), bytes.slice(10..)]).await.unwrap();
        assert_eq!(small.get(&key, u64::MAX).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_creation_that_was_carried_out_twice_is_a_success_and_anothers_is_not() {
        let storage = ObjectStorage::memory();
        let (key, body) = (Key::parse("points/x").unwrap(), Bytes::from("body"));
        storage.put_new(&key, vec![body.clone()]).await.unwrap();
        let again = storage.put_new(&key, vec![body]).await.unwrap_err();
        assert_eq!(again.kind, StorageErrorKind::AlreadyExists, "another request, whatever its bytes");
    }
}
