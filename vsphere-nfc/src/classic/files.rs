//! The connection for whole files and disks.

use std::fmt;

use bytes::Bytes;

use super::disk::{DiskReader, DiskSpec, DiskWriter};
use super::file::{FileReader, FileWriter};
use super::link::Link;
use super::options::{ClassicQuirks, FilesOptions};
use crate::error::{Error, Phase, Result};
use crate::ladder::Found;
use crate::options::{NfcOptions, Timeouts};
use crate::ticket::{Ticket, TicketSource};
use crate::wire::WireError;
use crate::wire::classic_file::{FileGet, FileMessage, FilePut, FileType, PathOperation, path_text};
use crate::wire::disk_stream::Reader;
use crate::wire::frames::Incoming;

/// A connection on which whole files and whole disks are fetched and stored, and directories made.
///
/// The ticket says what is allowed: one for `NfcFileManagement` of a datastore, or for
/// `NfcGetVmFiles` and `NfcPutVmFiles` of a machine. One operation follows the other, so all of them
/// take `&mut self`. After one that failed, or whose future or stream was dropped before its end,
/// the connection is of no further use and every call says so: make a new one.
///
/// ```no_run
/// # async fn example(tickets: &dyn vsphere_nfc::TicketSource) -> vsphere_nfc::Result<()> {
/// use vsphere_nfc::{Ancestors, FilesOptions, NfcFiles};
///
/// let mut files = NfcFiles::connect(tickets, FilesOptions::default()).await?;
/// files.make_directory("[ds1] restored", Ancestors::Make).await?;
/// let mut upload = files.put_file("[ds1] restored/notes.txt", 5).await?;
/// upload.write("hello".into()).await?;
/// upload.finish().await?;
/// let mut download = files.get_file("[ds1] restored/notes.txt").await?;
/// while let Some(bytes) = download.next().await? {
///     println!("{} bytes", bytes.len());
/// }
/// files.close().await
/// # }
/// ```
pub struct NfcFiles {
    pub(super) link: Link,
    pub(super) timeouts: Timeouts,
    pub(super) quirks: ClassicQuirks,
}

/// Whether a directory is made with those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ancestors {
    /// They are made too.
    #[default]
    Make,
    /// They have to be there.
    Expect,
}

impl NfcFiles {
    /// Connects with a ticket from `tickets`.
    ///
    /// # Errors
    /// Those of getting a ticket and of connecting.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection. A ticket may have been used up.
    pub async fn connect(tickets: &dyn TicketSource, options: FilesOptions) -> Result<Self> {
        let ticket = tickets.ticket().await.map_err(Error::Ticket)?;
        Self::over(&ticket, &options.connection, options.quirks, &mut Found::default()).await
    }

    /// Connects with `ticket`. `found` tells how far it got.
    pub(crate) async fn over(
        ticket: &Ticket,
        connection: &NfcOptions,
        quirks: ClassicQuirks,
        found: &mut Found,
    ) -> Result<Self> {
        let link = Link::open(ticket, connection, quirks.max_noise, found).await?;
        tracing::debug!(
            endpoint = %link.blame().endpoint,
            tls = link.tls_version().unwrap_or("none"),
            ?quirks,
            "NFC connection for files open"
        );
        Ok(Self { link, timeouts: connection.timeouts, quirks })
    }

    /// A connection that `stream` is.
    #[cfg(test)]
    pub(crate) fn on(stream: crate::dial::Dialled, connection: &NfcOptions) -> Self {
        let quirks = ClassicQuirks::default();
        let blame = crate::error::Blame::new("esx", 902, &"".into());
        Self { link: Link::new(blame, stream, quirks.max_noise), timeouts: connection.timeouts, quirks }
    }

    /// Host and port.
    pub fn endpoint(&self) -> &str {
        &self.link.blame().endpoint
    }

    /// The version of the TLS session that data travels in; `None` when it travels in clear.
    pub fn tls_version(&self) -> Option<&str> {
        self.link.tls_version()
    }

    /// Fetches the file `path` as it is, as a stream.
    ///
    /// # Errors
    /// [`Error::Server`] when the host refuses, [`Error::InvalidRequest`] for a path that cannot be.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    pub async fn get_file(&mut self, path: &str) -> Result<FileReader<'_>> {
        let put = self.get(path, FileType::Raw).await?;
        if !matches!(put.file_type, FileType::Raw | FileType::Text) {
            let what = format!("the server sends a file of type {}", put.file_type.number());
            return Err(self.link.blame().protocol(Phase::GetFile, what));
        }
        Ok(FileReader::new(self, put.size))
    }

    /// Stores `len` bytes as the file `path`; a file that exists is overwritten.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a path that cannot be; what the host thinks of it is heard at
    /// any later call.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    pub async fn put_file(&mut self, path: &str, len: u64) -> Result<FileWriter<'_>> {
        self.put(path, FileType::Raw, self.quirks.file_conversion, len).await?;
        Ok(FileWriter::new(self, len))
    }

    /// Fetches the disk `path` as a stream: its disk database, data, zeros.
    ///
    /// The whole chain below a snapshot's file comes as one disk, as far as is known.
    ///
    /// # Errors
    /// As [`get_file`](Self::get_file). [`Error::Protocol`] when the host sends only what a child
    /// disk has of its own, unless [`ClassicQuirks::take_delta_disk`] is set.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    pub async fn get_disk(&mut self, path: &str) -> Result<DiskReader<'_>> {
        let put = self.get(path, FileType::Disk).await?;
        match put.file_type {
            FileType::Disk => {}
            FileType::DeltaDisk if self.quirks.take_delta_disk => {
                tracing::warn!(path, "taking a child disk for a whole one, zeros for zeros");
            }
            other => {
                let what = format!("the server sends a file of type {} for a disk", other.number());
                return Err(self.link.blame().protocol(Phase::GetFile, what));
            }
        }
        let stream = Reader::new(put.size).map_err(|error| self.link.blame().wire(Phase::GetFile, &error))?;
        Ok(DiskReader::new(self, stream, put.size))
    }

    /// Stores a disk as `path`: its disk database, and then all of its content, from the first byte
    /// to the last.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a path that cannot be, a capacity that is not in sectors, or a
    /// disk database that does not fit into a frame; what the host thinks of it is heard at any
    /// later call.
    ///
    /// # Cancel safety
    /// A dropped future makes the connection useless.
    pub async fn put_disk(&mut self, path: &str, spec: &DiskSpec) -> Result<DiskWriter<'_>> {
        let metadata = spec
            .metadata_frame()
            .map_err(|error| Error::InvalidRequest { path: path.into(), what: error.to_string() })?;
        let conversion = self.quirks.disk_conversion | spec.conversion();
        self.put(path, FileType::Disk, conversion, spec.capacity).await?;
        if let Some(metadata) = metadata {
            self.link.send(Phase::PutFile, self.timeouts.write, metadata).await?;
        }
        Ok(DiskWriter::new(self, spec.capacity))
    }

    /// Makes the directory `path`.
    ///
    /// # Errors
    /// [`Error::Server`] when the host refuses.
    ///
    /// # Cancel safety
    /// The directory may have been made; the connection is useless.
    pub async fn make_directory(&mut self, path: &str, ancestors: Ancestors) -> Result<()> {
        let flags = match ancestors {
            Ancestors::Make => self.quirks.directory_flags,
            Ancestors::Expect => 0,
        };
        let operation = |path_len| FileMessage::CreateDirectory(PathOperation { path_len, flags, count: 1 });
        self.operate(path, operation).await
    }

    /// Deletes the file `path`. A disk's descriptor goes alone: hosts are not known to follow it.
    ///
    /// # Errors
    /// [`Error::Server`] when the host refuses.
    ///
    /// # Cancel safety
    /// The file may be gone; the connection is useless.
    pub async fn delete(&mut self, path: &str) -> Result<()> {
        let flags = self.quirks.delete_flags;
        let operation = |path_len| FileMessage::Delete(PathOperation { path_len, flags, count: 1 });
        self.operate(path, operation).await
    }

    /// Ends the session, and the connection with it.
    ///
    /// # Errors
    /// When an operation did not come to its end, or the host does not take its leave.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn close(self) -> Result<()> {
        self.link.close(self.timeouts.close).await
    }

    /// Asks for a file, and returns what the host says of it.
    async fn get(&mut self, path: &str, file_type: FileType) -> Result<FilePut> {
        let get = |path_len| FileMessage::Get(FileGet { file_type, path_len, conversion: 0 });
        self.ask(path, Phase::GetFile, get).await?;
        let limit = self.timeouts.read;
        match self.link.receive(Phase::GetFile, limit).await? {
            Incoming::Message(FileMessage::Put(put)) => {
                let name = self.link.extra(Phase::GetFile, limit, put.path_len).await?;
                tracing::debug!(path, name = ?path_text(&name), size = put.size, "NFC file on its way");
                Ok(put)
            }
            other => Err(self.link.unexpected(Phase::GetFile, &other)),
        }
    }

    /// Announces a file.
    async fn put(&mut self, path: &str, file_type: FileType, conversion: u32, size: u64) -> Result<()> {
        let put = |path_len| FileMessage::Put(FilePut { file_type, conversion, path_len, size, space: size });
        self.ask(path, Phase::PutFile, put).await
    }

    /// Sends a request about `path`.
    async fn ask(&mut self, path: &str, phase: Phase, message: impl FnOnce(u32) -> FileMessage) -> Result<()> {
        let invalid = |error: WireError| Error::InvalidRequest { path: path.into(), what: error.to_string() };
        let bytes = FileMessage::with_path(path, message).map_err(invalid)?;
        self.link.begin(path, phase)?;
        self.link.send(phase, self.timeouts.query, bytes.into()).await
    }

    /// Does something to a path, and waits for the outcome.
    async fn operate(&mut self, path: &str, message: impl FnOnce(u32) -> FileMessage) -> Result<()> {
        const PHASE: Phase = Phase::FileOperation;
        self.ask(path, PHASE, message).await?;
        match self.link.receive(PHASE, self.timeouts.query).await? {
            Incoming::Message(FileMessage::Status { error: 0 }) => {
                self.link.end();
                Ok(())
            }
            // What follows is not known, so the connection cannot go on.
            Incoming::Message(FileMessage::Status { error }) => {
                let text = format!("the status of the operation speaks of an error of {error} bytes");
                Err(self.link.blame().server(PHASE, crate::Fault { text, ..Default::default() }))
            }
            other => Err(self.link.unexpected(PHASE, &other)),
        }
    }

    /// Ends what is being stored, and waits until it is.
    pub(super) async fn finish_put(&mut self) -> Result<()> {
        const PHASE: Phase = Phase::PutFile;
        let limit = self.timeouts.write;
        self.link.send(PHASE, limit, Bytes::copy_from_slice(&crate::wire::frames::head(0))).await?;
        match self.link.receive(PHASE, limit).await? {
            Incoming::Message(FileMessage::PutDone) => {
                self.link.end();
                Ok(())
            }
            other => Err(self.link.unexpected(PHASE, &other)),
        }
    }
}

impl fmt::Debug for NfcFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NfcFiles").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}
