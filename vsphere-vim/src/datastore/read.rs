//! Reading a file, and going on where it stopped.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;

use super::{Datastore, DatastorePath, route::refusal};
use crate::{
    error::{Call, Error, Result, TransportError, TransportErrorKind},
    retry::RetryPolicy,
    transport::stream::{ByteStream, StreamResponse, StreamVerb, steps},
};

/// What is known of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStat {
    /// Its size in bytes, if the server told it.
    pub size: Option<u64>,
    /// When it was changed, as the HTTP header `Last-Modified` says it.
    pub modified: Option<String>,
}

/// A read that has not begun; made by [`Datastore::read`].
#[derive(Clone, Debug)]
#[must_use = "nothing is read until `open` is awaited"]
pub struct ReadFile {
    store: Datastore,
    path: DatastorePath,
    range: Range<u64>,
    exactly: bool,
    retry: Option<RetryPolicy>,
}

impl Datastore {
    /// Describes a read of a file: all of it, unless a range is stated.
    pub fn read(&self, path: &DatastorePath) -> ReadFile {
        ReadFile { store: self.clone(), path: path.clone(), range: 0..u64::MAX, exactly: false, retry: None }
    }

    /// Asks for a file's size; `None` when there is no such file.
    ///
    /// # Errors
    /// [`Error::Transport`] when the server refuses or does not answer.
    ///
    /// # Privileges
    /// `Datastore.Browse`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stat(&self, path: &DatastorePath) -> Result<Option<FileStat>> {
        self.own(path)?;
        let response = self.fetch(StreamVerb::Head, path, None).await?;
        match response.status {
            200..=299 => Ok(Some(FileStat {
                size: response.content_length(),
                modified: response.header("last-modified").map(str::to_owned),
            })),
            404 | 410 => Ok(None),
            _ => Err(refusal(StreamVerb::Head, path, response).await),
        }
    }
}

impl ReadFile {
    /// Reads these bytes only; an end beyond the file's is its end.
    pub fn range(self, range: Range<u64>) -> Self {
        Self { range, ..self }
    }

    /// Refuses a server that answers a range with the whole file, instead of reading and dropping what lies before it:
    /// for those who read many small ranges of a large file.
    pub fn exactly(self) -> Self {
        Self { exactly: true, ..self }
    }

    /// Goes on after failures as this policy says, instead of the client's.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        Self { retry: Some(policy), ..self }
    }

    /// Sends the request.
    ///
    /// When the connection breaks later, or the session ends, the reader asks for the rest, as often as the client's
    /// retry policy allows without progress.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such file, [`Error::InvalidInput`] for a range behind its end or a path of
    /// another datastore, [`Error::Transport`] when the server refuses: a running machine's disk answers with HTTP
    /// status 500 on newer hosts. [`Error::Unsupported`] when [only the range](Self::exactly) is wanted and the server
    /// sends more.
    ///
    /// # Privileges
    /// `Datastore.Browse`; vCenter also wants `Datastore.FileManagement`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(self) -> Result<FileReader> {
        self.store.own(&self.path)?;
        if self.range.start >= self.range.end {
            return Err(Error::invalid_input("range", "it is empty"));
        }
        let mut reading = Reading {
            at: self.range.start,
            end: None,
            wanted: self.range.end,
            seen: None,
            body: None,
            skip: 0,
            tries: 0,
            over: false,
            exactly: self.exactly,
            retry: self.retry.unwrap_or_else(|| self.store.vim.settings().retry.clone()),
            store: self.store,
            path: self.path,
        };
        while let Err(error) = reading.connect().await {
            match reading.may_go_on(&error) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
        let size = reading.seen.as_ref().and_then(|seen| seen.total);
        let modified = reading.seen.as_ref().and_then(|seen| seen.modified.clone());
        let expected = reading.end.map(|end| end - reading.at);
        let stream = steps(reading, |mut reading| {
            Box::pin(async move {
                let piece = if reading.over { None } else { reading.next().await };
                reading.over = !matches!(piece, Some(Ok(_)));
                (reading, piece)
            })
        });
        Ok(FileReader { size, modified, expected, stream: Box::pin(stream) })
    }
}

/// The bytes of a file, in order: a [`Stream`], with [`FileReader::try_next`] for those without stream combinators.
///
/// Bounded memory: what is not taken is not read. Dropping it closes the connection.
pub struct FileReader {
    size: Option<u64>,
    modified: Option<String>,
    expected: Option<u64>,
    stream: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl FileReader {
    /// The size of the whole file in bytes, if the server told it.
    pub fn file_size(&self) -> Option<u64> {
        self.size
    }

    /// When the file was changed, as the HTTP header `Last-Modified` says it.
    pub fn modified(&self) -> Option<&str> {
        self.modified.as_deref()
    }

    /// How many bytes this reader yields in all, if the server told it.
    pub fn len(&self) -> Option<u64> {
        self.expected
    }

    /// True when it is known that there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.expected == Some(0)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection broke and could not be had again, [`Error::Protocol`] when the file
    /// changed meanwhile. After an error the stream ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub async fn try_next(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.stream.as_mut().poll_next(cx)).await.transpose()
    }

    /// Collects all bytes, for small files.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next), and [`Error::InvalidInput`] beyond `limit` bytes.
    ///
    /// # Cancel safety
    /// A dropped future loses what it has read.
    pub async fn collect(mut self, limit: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.try_next().await? {
            if piece.len() > limit.saturating_sub(all.len()) {
                return Err(Error::invalid_input("limit", format!("the file has more than {limit} bytes")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

impl Stream for FileReader {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().stream.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").field("size", &self.size).field("len", &self.expected).finish_non_exhaustive()
    }
}

/// A read that goes on.
struct Reading {
    store: Datastore,
    path: DatastorePath,
    /// The next byte to yield.
    at: u64,
    /// The byte after the last one, once it is known.
    end: Option<u64>,
    /// The end that the caller asked for.
    wanted: u64,
    /// What the first answer said of the file.
    seen: Option<Seen>,
    body: Option<ByteStream>,
    /// Bytes of the body to drop: the server began further in front than asked.
    skip: u64,
    /// Answers in a row without a new byte.
    tries: u32,
    /// Ended, or failed.
    over: bool,
    /// The whole file instead of a range is an error.
    exactly: bool,
    retry: RetryPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    total: Option<u64>,
    modified: Option<String>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if self.at >= self.end.unwrap_or(self.wanted) {
                return None;
            }
            let Some(body) = &mut self.body else {
                if let Err(error) = self.connect().await {
                    match self.may_go_on(&error) {
                        Some(delay) => tokio::time::sleep(delay).await,
                        None => return Some(Err(error)),
                    }
                }
                continue;
            };
            let failure = match std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await {
                Some(Ok(piece)) => match self.take(piece) {
                    Some(piece) => return Some(Ok(piece)),
                    None => continue,
                },
                // Without a stated length the end of the body is the end of the file.
                None if self.end.is_none() && self.skip == 0 => return None,
                None if self.end.is_none() => {
                    let why = format!("{} ended before byte {}", self.path, self.at);
                    return Some(Err(Error::protocol(Call::named("GET /folder"), why)));
                }
                None => TransportError::new(TransportErrorKind::Disconnected, "the body ended too early"),
                Some(Err(failure)) => failure,
            };
            self.body = None;
            let error = Error::transport("GET /folder", failure);
            match self.may_go_on(&error) {
                Some(delay) => {
                    tracing::warn!(%error, path = %self.path, offset = self.at, "the read broke off; going on");
                    tokio::time::sleep(delay).await;
                }
                None => return Some(Err(error)),
            }
        }
    }

    /// What of a piece is wanted.
    fn take(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        let mut piece = piece.split_off(skipped as usize);
        let room = self.end.unwrap_or(self.wanted) - self.at;
        piece.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if piece.is_empty() {
            return None;
        }
        self.at += piece.len() as u64;
        self.tries = 0;
        Some(piece)
    }

    /// How long to wait before asking for the rest; `None` when that cannot help.
    fn may_go_on(&mut self, error: &Error) -> Option<std::time::Duration> {
        self.tries += 1;
        let Error::Transport(error) = error else { return None };
        // A file that is locked answers so; it will not be free in a moment.
        if error.source.kind() == TransportErrorKind::HttpStatus(500) {
            return None;
        }
        self.retry.delay(self.tries, &error.source, true)
    }

    /// Asks for everything from `at` on.
    async fn connect(&mut self) -> Result<()> {
        let end = self.end.unwrap_or(self.wanted);
        let range = match (self.at, end) {
            (0, u64::MAX) => None,
            (start, u64::MAX) => Some(format!("bytes={start}-")),
            (start, end) => Some(format!("bytes={start}-{}", end - 1)),
        };
        let response = self.store.fetch(StreamVerb::Get, &self.path, range.as_deref()).await?;
        let broken = |what: &str| Error::protocol(Call::named("GET /folder"), what);
        let modified = response.header("last-modified").map(str::to_owned);
        let (start, stop, total) = match response.status {
            206 => {
                let range = content_range(&response);
                let (start, stop, total) =
                    range.ok_or_else(|| broken("HTTP status 206 without a usable Content-Range"))?;
                // Of a shorter part nobody could tell whether the file ends there.
                if total.is_none() && stop < end {
                    return Err(broken("a part of the range, and not how long the file is"));
                }
                (start, Some(stop), total)
            }
            200 if self.exactly && range.is_some() => {
                let why = format!("the server sends all of {} instead", self.path);
                return Err(Error::unsupported("GET /folder with a range", why));
            }
            // A server that does not know ranges begins at the beginning.
            200 => (0, None, response.content_length()),
            416 => return Err(Error::invalid_input("range", format!("it begins behind the end of {}", self.path))),
            _ => return Err(refusal(StreamVerb::Get, &self.path, response).await),
        };
        if start > self.at {
            return Err(broken("the range begins behind the byte that was asked for"));
        }
        if total.is_some_and(|total| self.at > total) {
            return Err(Error::invalid_input("range", format!("it begins behind the end of {}", self.path)));
        }
        let seen = Seen { total, modified };
        match &self.seen {
            Some(before) if *before != seen => {
                return Err(broken("the file changed while it was read"));
            }
            Some(_) => {}
            None => {
                self.end = total.or(stop).map(|end| end.min(self.wanted));
                self.seen = Some(seen);
            }
        }
        self.skip = self.at - start;
        self.body = Some(response.body);
        Ok(())
    }
}

/// First byte, the one after the last, and total of `Content-Range: bytes 5-9/100`.
fn content_range(response: &StreamResponse) -> Option<(u64, u64, Option<u64>)> {
    let value = response.header("content-range")?.trim().strip_prefix("bytes")?.trim();
    let (range, total) = value.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let stop = end.checked_add(1)?;
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, stop, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(value: &str) -> Option<(u64, u64, Option<u64>)> {
        let headers = vec![("content-range".to_owned(), value.to_owned())];
        content_range(&StreamResponse::new(206, headers, Box::pin(steps((), |()| Box::pin(async { ((), None) })))))
    }

    #[test]
    fn content_ranges_are_read_or_refused() {
        assert_eq!(range("bytes 5-9/100"), Some((5, 10, Some(100))));
        assert_eq!(range("bytes 0-0/*"), Some((0, 1, None)));
        for broken in [
            "bytes 0-18446744073709551615/*",
            "bytes 9-5/100",
            "bytes 5-100/100",
            "bytes */100",
            "items 1-2/3",
            "bytes -1-2/3",
            "",
        ] {
            assert_eq!(range(broken), None, "{broken}");
        }
    }
}
