//! A connection on which one operation follows the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dial::{self, Dialled};
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Rung};
use crate::options::NfcOptions;
use crate::ticket::Ticket;
use crate::wire::classic_file::FileMessage;
use crate::wire::fault::{self, Fault};
use crate::wire::frames::{Decoder, Incoming};

/// What is read at once, at most.
const READ: usize = 64 * 1024;

/// A connection that the NFC service listens on, in the classic layer.
///
/// Every await may be the last one: what was received stays in `received`, and an operation that
/// did not come to its end stays noted in `unfinished`.
pub(super) struct Link {
    stream: Dialled,
    blame: Blame,
    received: BytesMut,
    decoder: Decoder,
    /// What is going on, or was when something went wrong.
    unfinished: Option<Phase>,
    max_noise: u32,
    noise: u32,
    /// A fetched disk may be followed by an empty frame, which means nothing.
    pub(super) empty_frame_may_follow: bool,
}

impl Link {
    /// Connects. The classic layer needs no messages of its own before the first operation.
    pub(super) async fn open(ticket: &Ticket, options: &NfcOptions, max_noise: u32, found: &mut Found) -> Result<Self> {
        let blame = Blame::new(&ticket.host, ticket.port, &Arc::from(""));
        // What follows THUMBPRINT_SHA2 is message 43, which belongs to another session start.
        let stream = dial::dial(&blame, ticket, options, Rung::WithoutClientRandom, found).await?;
        Ok(Self::new(blame, stream, max_noise))
    }

    pub(super) fn new(blame: Blame, stream: Dialled, max_noise: u32) -> Self {
        Self {
            stream,
            blame,
            received: BytesMut::new(),
            decoder: Decoder::default(),
            unfinished: None,
            max_noise,
            noise: max_noise,
            empty_frame_may_follow: false,
        }
    }

    /// Whom to blame, for what.
    pub(super) fn blame(&self) -> &Blame {
        &self.blame
    }

    /// The version of the TLS session that data travels in.
    pub(super) fn tls_version(&self) -> Option<&str> {
        self.stream.tls_version.as_deref()
    }

    /// Begins an operation on `path`.
    pub(super) fn begin(&mut self, path: &str, phase: Phase) -> Result<()> {
        if let Some(earlier) = self.unfinished {
            return Err(self.blame.lost(phase, format!("{earlier} before did not come to its end")));
        }
        self.blame.path = path.into();
        self.unfinished = Some(phase);
        self.noise = self.max_noise;
        Ok(())
    }

    /// The operation is over, and the next one may begin.
    pub(super) fn end(&mut self) {
        self.unfinished = None;
    }

    /// Sends `bytes`. What the server says meanwhile can only be an error.
    ///
    /// A server that takes nothing for `limit` is a time-out.
    pub(super) async fn send(&mut self, phase: Phase, limit: Duration, mut bytes: Bytes) -> Result<()> {
        while bytes.has_remaining() {
            let Dialled { reader, writer, .. } = &mut self.stream;
            self.received.reserve(READ);
            let step = async {
                tokio::select! {
                    biased;
                    read = reader.read_buf(&mut self.received) => read.map(Some),
                    wrote = writer.write_buf(&mut bytes) => match wrote {
                        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                        wrote => wrote.map(|_| None),
                    },
                }
            };
            match tokio::time::timeout(limit, step).await {
                Err(_) => return Err(self.blame.timeout(phase, limit)),
                Ok(Err(error)) => return Err(self.last_words(phase, &error).await),
                Ok(Ok(Some(0))) => return Err(self.blame.io(phase, &io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(Some(_))) => self.expect_silence(phase).await?,
                Ok(Ok(None)) => {}
            }
        }
        let flushed = tokio::time::timeout(limit, self.stream.writer.flush()).await;
        match flushed {
            Err(_) => Err(self.blame.timeout(phase, limit)),
            Ok(Err(error)) => Err(self.last_words(phase, &error).await),
            Ok(Ok(())) => {
                self.noise = self.max_noise;
                Ok(())
            }
        }
    }

    /// Looks at what came while something was being sent.
    async fn expect_silence(&mut self, phase: Phase) -> Result<()> {
        match self.decode(phase).await? {
            None => Ok(()),
            Some(incoming) => Err(self.unexpected(phase, &incoming)),
        }
    }

    /// The error that the server may have sent before it hung up.
    async fn last_words(&mut self, phase: Phase, error: &io::Error) -> Error {
        let lost = self.blame.io(phase, error);
        match self.receive(phase, fault::TEXT_LIMIT).await {
            Err(said @ (Error::Timeout { .. } | Error::Disconnected { .. } | Error::Protocol { .. })) => {
                tracing::debug!(%said, "no last words");
                lost
            }
            Err(told) => told,
            Ok(_) => lost,
        }
    }

    /// Waits for what comes next. An error message becomes an error.
    pub(super) async fn receive(&mut self, phase: Phase, limit: Duration) -> Result<Incoming> {
        loop {
            if let Some(incoming) = self.decode(phase).await? {
                return Ok(incoming);
            }
            self.fill(phase, limit).await?;
        }
    }

    /// Waits for more bytes.
    async fn fill(&mut self, phase: Phase, limit: Duration) -> Result<()> {
        self.received.reserve(READ);
        match tokio::time::timeout(limit, self.stream.reader.read_buf(&mut self.received)).await {
            Err(_) => Err(self.blame.timeout(phase, limit)),
            Ok(Err(error)) => Err(self.blame.io(phase, &error)),
            Ok(Ok(0)) => Err(self.blame.io(phase, &io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Takes the next thing off what was received, if it is there.
    async fn decode(&mut self, phase: Phase) -> Result<Option<Incoming>> {
        loop {
            let next = self.decoder.next(&mut self.received).map_err(|error| self.blame.wire(phase, &error))?;
            match next {
                Some(Incoming::Message(FileMessage::Ping | FileMessage::RateControl)) if self.noise > 0 => {
                    self.noise -= 1;
                    tracing::debug!(endpoint = %self.blame.endpoint, "passing over a classic message");
                }
                Some(Incoming::Message(FileMessage::Error { kind, code, text_len })) => {
                    let text = self.text(text_len).await;
                    return Err(self.blame.server(phase, Fault::new(kind, code, "").with_text(&text)));
                }
                Some(Incoming::End) if std::mem::take(&mut self.empty_frame_may_follow) => {}
                Some(incoming) => {
                    self.empty_frame_may_follow = false;
                    // A long transfer may have many of them; what counts is how many come in a row.
                    self.noise = self.max_noise;
                    return Ok(Some(incoming));
                }
                None => return Ok(None),
            }
        }
    }

    /// The bytes that belong to an operation's message, behind it: a path.
    pub(super) async fn extra(&mut self, phase: Phase, limit: Duration, len: u32) -> Result<Bytes> {
        // Bounded by the decoder.
        let len = len as usize;
        while self.received.len() < len {
            self.fill(phase, limit).await?;
        }
        Ok(self.received.split_to(len).freeze())
    }

    /// The text of an error; one that is missing or slow does not hide the code.
    async fn text(&mut self, len: u32) -> Bytes {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(fault::MAX_TEXT);
        let reading = async {
            while self.received.len() < len {
                match self.stream.reader.read_buf(&mut self.received).await {
                    Ok(read) if read > 0 => {}
                    _ => break,
                }
            }
        };
        let _ = tokio::time::timeout(fault::TEXT_LIMIT, reading).await;
        let len = len.min(self.received.len());
        self.received.split_to(len).freeze()
    }

    /// What nobody expects here.
    pub(super) fn unexpected(&self, phase: Phase, incoming: &Incoming) -> Error {
        self.blame.protocol(
            phase,
            match incoming {
                Incoming::Frame(_) => "a frame where none belongs".to_owned(),
                Incoming::End => "an empty frame where none belongs".to_owned(),
                Incoming::Message(message) => format!("an unexpected classic message {}", message.number()),
            },
        )
    }

    /// Begins a part of what is being sent; it has to [`end`](Sent::end), or none may follow it: the stream would go on
    /// behind a gap.
    pub(super) fn begin_part(&self, sent: &mut Sent, phase: Phase) -> Result<()> {
        match std::mem::replace(&mut sent.is_cut, true) {
            true => Err(self.blame.lost(phase, "a part before was not sent to its end")),
            false => Ok(()),
        }
    }

    /// Ends the session and the connection.
    pub(super) async fn close(mut self, limit: Duration) -> Result<()> {
        self.begin("", Phase::Close)?;
        self.send(Phase::Close, limit, Bytes::copy_from_slice(&FileMessage::SessionComplete.encode())).await?;
        // What VMware's client does not look at either; that the server is gone is good enough.
        match self.receive(Phase::Close, limit).await {
            Ok(Incoming::Message(_)) | Err(Error::Disconnected { .. }) => {}
            Ok(other) => return Err(self.unexpected(Phase::Close, &other)),
            Err(error) => return Err(error),
        }
        let _ = tokio::time::timeout(limit, self.stream.writer.shutdown()).await;
        Ok(())
    }
}

/// Whether the parts of a stream were sent whole.
#[derive(Debug, Default)]
pub(super) struct Sent {
    is_cut: bool,
}

impl Sent {
    /// The part was sent.
    pub(super) fn end(&mut self) {
        self.is_cut = false;
    }
}
