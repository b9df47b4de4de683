//! One file behind `/folder`: positioned reads by ranges, many at the same time.

use std::{io, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use vmdk::{AsyncReadAt, SourceHint};
use vsphere_vim::datastore::{Datastore, DatastorePath};

use super::{error::HttpsError, options::HttpsOptions};

/// What the files of one disk share: settings, and the right to use a connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) options: HttpsOptions,
    connections: Semaphore,
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
    pub(super) fn new(options: HttpsOptions) -> Self {
        Self { connections: Semaphore::new(options.connections), options }
    }
}

impl FolderFile {
    /// Asks for the file's size. Nothing is known of a file whose size the server does not tell.
    pub(super) async fn open(channel: Arc<Channel>, store: Datastore, path: DatastorePath) -> Result<Self, HttpsError> {
        let failed = |source| HttpsError::of_server(&path, 0..0, source);
        let (size, modified) = match store.stat(&path).await {
            Ok(None) => return Err(HttpsError::NotFound { file: path.to_string() }),
            Ok(Some(stat)) if stat.size.is_some() => (stat.size, stat.modified),
            // Servers that do not answer HEAD, or not with a length, tell it with the first byte.
            Ok(Some(_)) | Err(vsphere_vim::Error::Transport(_)) => {
                let first = store.read(&path).range(0..1).exactly().retry(channel.options.retry.clone());
                let first = first.open().await.map_err(failed)?;
                (first.file_size(), first.modified().map(str::to_owned))
            }
            Err(error) => return Err(failed(error)),
        };
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
