//! Plain files as streams of bytes.

use bytes::Bytes;

use super::files::NfcFiles;
use super::link::Sent;
use crate::error::{Phase, Result};
use crate::wire::frames::{Incoming, MAX_LEN, head};

/// A file that is being fetched.
///
/// Dropped before its end, it makes the connection useless.
#[derive(Debug)]
pub struct FileReader<'a> {
    files: &'a mut NfcFiles,
    len: u64,
    received: u64,
    is_over: bool,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(files: &'a mut NfcFiles, len: u64) -> Self {
        Self { files, len, received: 0, is_over: false }
    }

    /// The file's size in bytes, as the host told it before.
    pub fn announced_len(&self) -> u64 {
        self.len
    }

    /// The next bytes, at most 256 KiB; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when reading fails on the host;
    /// [`Error::Protocol`](crate::Error::Protocol) also for a file that ends before its announced
    /// size.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.is_over {
            return Ok(None);
        }
        let link = &mut self.files.link;
        match link.receive(Phase::GetFile, self.files.timeouts.read).await? {
            Incoming::Frame(bytes) => {
                self.received += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Incoming::End if self.received < self.len && !self.files.quirks.take_short_files => {
                let what = format!("the file ended after {} of {} bytes", self.received, self.len);
                Err(link.blame().protocol(Phase::GetFile, what))
            }
            Incoming::End => {
                link.end();
                self.is_over = true;
                Ok(None)
            }
            other => Err(link.unexpected(Phase::GetFile, &other)),
        }
    }
}

/// A file that is being stored.
///
/// Dropped before [`finish`](Self::finish), it leaves an unfinished file and makes the connection
/// useless.
#[derive(Debug)]
pub struct FileWriter<'a> {
    files: &'a mut NfcFiles,
    len: u64,
    sent: u64,
    parts: Sent,
}

impl<'a> FileWriter<'a> {
    pub(super) fn new(files: &'a mut NfcFiles, len: u64) -> Self {
        Self { files, len, sent: 0, parts: Sent::default() }
    }

    /// Sends the next bytes.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) for more bytes than were announced;
    /// whatever the host says.
    ///
    /// # Cancel safety
    /// A dropped future, and an error of the connection, make writer and connection useless: what follows is refused.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        if bytes.len() as u64 > self.len - self.sent {
            return Err(self.files.link.blame().invalid(format!("more than the announced {} bytes", self.len)));
        }
        self.files.link.begin_part(&mut self.parts, Phase::PutFile)?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_LEN));
            // At most 256 KiB.
            let head = head(part.len() as u32);
            let (phase, limit) = (Phase::PutFile, self.files.timeouts.write);
            self.files.link.send(phase, limit, Bytes::copy_from_slice(&head)).await?;
            self.sent += part.len() as u64;
            self.files.link.send(phase, limit, part).await?;
        }
        self.parts.end();
        Ok(())
    }

    /// Ends the file, and waits until the host has stored it.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) when bytes are missing; whatever the
    /// host says.
    ///
    /// # Cancel safety
    /// The file may have been stored; the connection is useless.
    pub async fn finish(mut self) -> Result<()> {
        self.files.link.begin_part(&mut self.parts, Phase::PutFile)?;
        if self.sent != self.len {
            let what = format!("{} of the announced {} bytes were sent", self.sent, self.len);
            return Err(self.files.link.blame().invalid(what));
        }
        self.files.finish_put().await
    }
}
