//! One file behind `/folder`: positioned reads by ranges, many at the same time.

use std::{io, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use vmdk::{AsyncReadAt, SourceHint};
use vsphere_vim::{
    RetryPolicy,
    datastore::{Datastore, DatastorePath},
};

use super::{error::HttpsError, options::HttpsOptions};
use crate::governor::{Place, Turn};

/// What the files of one disk share: settings, and the right to use a connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) options: HttpsOptions,
    connections: Semaphore,
    /// Where it takes turns with other disks.
    place: Option<Place>,
}

/// A file that is open. There is nothing on the server to close.
#[derive(Debug)]
pub(super) struct FolderFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Arc<Channel>,
    store: Datastore,
    path: DatastorePath,
    len: u64,
    modified: Option<String>,
    connections: Semaphore,
}

impl Channel {
    pub(super) fn new(options: HttpsOptions, place: Option<Place>) -> Self {
        Self { connections: Semaphore::new(options.connections), options, place }
    }

    async fn turn(&self, bytes: u64) -> Option<Turn> {
        Some(self.place.as_ref()?.connection(bytes).await)
    }
}

impl FolderFile {
    /// Asks for the file's size. Nothing is known of a file whose size the server does not tell.
    pub(super) async fn open(channel: Arc<Channel>, store: Datastore, path: DatastorePath) -> Result<Self, HttpsError> {
        let failed = |source| HttpsError::of_server(&path, 0..0, source);
        let seen = look_at(&store, &path, Some(&channel.options.retry)).await.map_err(failed)?;
        let (size, modified) = seen.ok_or_else(|| HttpsError::NotFound { file: path.to_string() })?;
        let len = size.ok_or_else(|| HttpsError::WrongAnswer {
            file: path.to_string(),
            range: 0..1,
            problem: "it does not say how long the file is".to_owned(),
        })?;
        tracing::debug!(file = %path, len, "open over HTTPS");
        let connections = Semaphore::new(channel.options.per_file);
        Ok(Self { inner: Arc::new(Inner { channel, store, path, len, modified, connections }) })
    }
}

/// Asks for a file's size and `Last-Modified`; `None` when there is no such file.
///
/// Servers that do not answer HEAD, or not with a length, tell them with the first byte. So do those that name no bytes:
/// proxies say 0 for what has no body.
pub(crate) async fn look_at(
    store: &Datastore,
    path: &DatastorePath,
    retry: Option<&RetryPolicy>,
) -> vsphere_vim::Result<Option<(Option<u64>, Option<String>)>> {
    let head = store.stat(path).await;
    let is_empty = match &head {
        Ok(None) => return Ok(None),
        Ok(Some(stat)) if stat.size.is_some_and(|size| size > 0) => {
            return head.map(|stat| stat.map(|stat| (stat.size, stat.modified)));
        }
        Ok(Some(stat)) => stat.size == Some(0),
        Err(vsphere_vim::Error::Transport(_)) => false,
        Err(_) => return head.map(|_| None),
    };
    let first = store.read(path).range(0..1).exactly();
    let first = match retry {
        Some(policy) => first.retry(policy.clone()),
        None => first,
    };
    match first.open().await {
        Ok(first) => Ok(Some((first.file_size(), first.modified().map(str::to_owned)))),
        Err(vsphere_vim::Error::NotFound { .. }) => Ok(None),
        // There is no first byte.
        Err(vsphere_vim::Error::InvalidInput { .. }) if is_empty => Ok(Some((Some(0), None))),
        Err(error) => Err(error),
    }
}

impl AsyncReadAt for FolderFile {
    async fn len(&self) -> io::Result<u64> {
        Ok(self.inner.len)
    }

    async fn read_ranges(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Bytes>> {
        let mut read: Vec<Bytes> = vec![Bytes::new(); ranges.len()];
        // Dropped with this future, and all requests with it.
        let mut reading = JoinSet::new();
        for (number, range) in ranges.into_iter().enumerate() {
            let file = Arc::clone(&self.inner);
            reading.spawn(async move { (number, file.read(range).await) });
        }
        while let Some(done) = reading.join_next().await {
            let (number, bytes) = done.map_err(io::Error::other)?;
            read[number] = bytes.map_err(HttpsError::into_io)?;
        }
        Ok(read)
    }

    fn hint(&self) -> SourceHint {
        let options = &self.inner.channel.options;
        SourceHint::default().gap(options.gap).longest(options.longest)
    }
}

impl Inner {
    async fn read(&self, range: Range<u64>) -> Result<Bytes, HttpsError> {
        let _of_file = self.connections.acquire().await.expect("the semaphores are never closed");
        let _of_disk = self.channel.connections.acquire().await.expect("the semaphores are never closed");
        let _turn = self.channel.turn(range.end - range.start).await;
        let limit = self.channel.options.request_timeout;
        match timeout(limit, self.exchange(range.clone())).await {
            Ok(read) => read,
            Err(_) => Err(HttpsError::TimedOut { file: self.path.to_string(), range, after: limit }),
        }
    }

    async fn exchange(&self, range: Range<u64>) -> Result<Bytes, HttpsError> {
        let options = &self.channel.options;
        let failed = |source| HttpsError::of_server(&self.path, range.clone(), source);
        let request = self.store.read(&self.path).range(range.clone()).exactly().retry(options.retry.clone());
        let mut reader = request.open().await.map_err(failed)?;
        self.check_unchanged(reader.file_size(), reader.modified())?;
        let len = (range.end - range.start) as usize;
        let mut bytes = BytesMut::with_capacity(len);
        while let Some(piece) = reader.try_next().await.map_err(failed)? {
            if piece.len() > len - bytes.len() {
                return Err(self.wrong(range, "more bytes than were asked for"));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() < len {
            let problem = format!("{} bytes of {len}", bytes.len());
            return Err(self.wrong(range, problem));
        }
        Ok(bytes.freeze())
    }

    fn check_unchanged(&self, len: Option<u64>, modified: Option<&str>) -> Result<(), HttpsError> {
        let changed = |change: String| Err(HttpsError::Changed { file: self.path.to_string(), change });
        if let Some(len) = len.filter(|len| *len != self.len) {
            return changed(format!("it had {} bytes and has {len}", self.len));
        }
        match (&self.modified, modified) {
            (Some(before), Some(now)) if self.channel.options.check_modified && before != now => {
                changed(format!("it was last modified {before} and is now {now}"))
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, range: Range<u64>, problem: impl Into<String>) -> HttpsError {
        HttpsError::WrongAnswer { file: self.path.to_string(), range, problem: problem.into() }
    }
}
