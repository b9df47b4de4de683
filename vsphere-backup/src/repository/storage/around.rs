//! What decorators share: one place that every operation passes.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};

use super::{BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError, StorageErrorKind};

/// One operation, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::repository) struct Operation<'a> {
    pub(in crate::repository) name: &'static str,
    pub(in crate::repository) key: &'a str,
    pub(in crate::repository) kind: Kind,
}

/// What an operation does to the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::repository) enum Kind {
    Read,
    List,
    /// With the bytes that are sent.
    Write(u64),
    Delete,
}

impl Operation<'_> {
    pub(in crate::repository) fn failed(&self, kind: StorageErrorKind) -> StorageError {
        StorageError::new(kind, self.name, self.key)
    }

    pub(in crate::repository) fn changes(&self) -> bool {
        matches!(self.kind, Kind::Write(_) | Kind::Delete)
    }
}

/// A decorator: [`decorate`] makes a [`Storage`] of it.
pub(in crate::repository) trait Around: Send + Sync {
    fn inner(&self) -> &dyn Storage;

    /// Carries out an operation. `attempt` begins it, each time that it is called.
    fn around<'a, T: Answer>(
        &'a self,
        operation: Operation<'a>,
        attempt: impl FnMut() -> BoxFuture<'a, Result<T, StorageError>> + Send + 'a,
    ) -> impl Future<Output = Result<T, StorageError>> + Send + 'a;

    /// Carries out a `put`.
    fn replacement<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        let operation = Operation { name: "put", key: key.as_str(), kind: Kind::Write(total(&parts)) };
        Box::pin(self.around(operation, move || self.inner().put(key, parts.clone())))
    }

    /// Carries out a `put_new`.
    fn creation<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
        let operation = Operation { name: "create", key: key.as_str(), kind: Kind::Write(total(&parts)) };
        Box::pin(self.around(operation, move || self.inner().put_new(key, parts.clone())))
    }

    /// Carries out a listing: as an operation that succeeds, then the listing itself.
    fn listing<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
        let operation = Operation { name: "list", key: prefix, kind: Kind::List };
        let gate = self.around(operation, || future::ready(Ok(())).boxed());
        stream::once(gate).map_ok(move |()| self.inner().list(prefix)).try_flatten().boxed()
    }
}

/// What an operation answers.
pub(in crate::repository) trait Answer: Send + 'static {
    /// The bytes that came with it.
    fn received(&self) -> u64;
}

impl Answer for Bytes {
    fn received(&self) -> u64 {
        self.len() as u64
    }
}

impl Answer for u64 {
    fn received(&self) -> u64 {
        0
    }
}

impl Answer for () {
    fn received(&self) -> u64 {
        0
    }
}

/// Counts the bytes of an object's parts.
pub(in crate::repository) fn total(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Implements [`Storage`] for a type that is [`Around`] another one.
macro_rules! decorate {
    ($type:ty) => {
        const _: () = {
            use std::{ops::Range, time::SystemTime};

            use bytes::Bytes;

            use $crate::repository::storage::{
                BoxFuture, BoxStream, Key, ObjectInfo, Storage, StorageError,
                around::{Around, Kind, Operation},
            };

            impl Storage for $type {
                fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Bytes, StorageError>> {
                    let operation = Operation { name: "get", key: key.as_str(), kind: Kind::Read };
                    Box::pin(self.around(operation, move || self.inner().get(key, limit)))
                }

                fn get_range<'a>(
                    &'a self,
                    key: &'a Key,
                    range: Range<u64>,
                ) -> BoxFuture<'a, Result<Bytes, StorageError>> {
                    let operation = Operation { name: "get range", key: key.as_str(), kind: Kind::Read };
                    Box::pin(self.around(operation, move || self.inner().get_range(key, range.clone())))
                }

                fn put<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
                    self.replacement(key, parts)
                }

                fn put_new<'a>(&'a self, key: &'a Key, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), StorageError>> {
                    self.creation(key, parts)
                }

                fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<ObjectInfo, StorageError>> {
                    self.listing(prefix)
                }

                fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StorageError>> {
                    let operation = Operation { name: "delete", key: key.as_str(), kind: Kind::Delete };
                    Box::pin(self.around(operation, move || self.inner().delete(key)))
                }

                fn remove_unfinished(&self, before: SystemTime) -> BoxFuture<'_, Result<u64, StorageError>> {
                    let operation = Operation { name: "remove unfinished", key: "", kind: Kind::Delete };
                    Box::pin(self.around(operation, move || self.inner().remove_unfinished(before)))
                }

                fn location(&self) -> String {
                    self.inner().location()
                }
            }
        };
    };
}

pub(in crate::repository) use decorate;
