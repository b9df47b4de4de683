//! The classic layer from the server's side: whole files and disks, directories, and disks opened
//! for synchronous random access, one operation after the other.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vsphere_nfc::wire::classic::MESSAGE_LEN;
use vsphere_nfc::wire::classic_file::{
    FileGet, FileMessage, FilePut, FileType, PathOperation, conversion, operation, path_text,
};
use vsphere_nfc::wire::disk_stream::{Part, Reader, Writer, metadata_frame};
use vsphere_nfc::wire::frames::{self, Decoder, Incoming, MAX_LEN};
use vsphere_nfc::wire::fssrvr;

use super::authd::{self, ReadHalf, WriteHalf};
use super::backend::{Grant, NewDisk, NfcFile, OpenRefused};
use super::config::{FaultAction, NfcServerConfig, Step};
use super::random_access::RandomAccess;
use super::requests::blocking;
use super::server::{Shared, ended, violation};
use super::session::CODE_INVALID;

/// The type of classic errors; real values are not known.
const ERROR_KIND: u32 = 1;
/// The largest plain file that is taken: it is kept in memory.
const MAX_FILE: u64 = 1 << 30;
/// What is read of a disk at once.
const PIECE: u64 = 1 << 20;

/// Serves operations until the client says goodbye. `first` is the first message.
pub(super) async fn serve(
    first: &[u8; MESSAGE_LEN],
    reader: ReadHalf,
    writer: WriteHalf,
    shared: &Arc<Shared>,
    config: &Arc<NfcServerConfig>,
    grant: Grant,
) -> io::Result<()> {
    let mut peer = Peer {
        reader,
        writer,
        received: BytesMut::from(first.as_slice()),
        shared: Arc::clone(shared),
        config: Arc::clone(config),
        grant,
    };
    let mut random = RandomAccess::default();
    loop {
        let bytes = peer.message().await?;
        if random.answer(&mut peer, &bytes).await? {
            continue;
        }
        match FileMessage::decode(&bytes).map_err(violation)? {
            FileMessage::Put(put) => peer.put(put).await?,
            FileMessage::Get(get) => peer.get(get).await?,
            FileMessage::CreateDirectory(operation) => peer.operate(operation, true).await?,
            FileMessage::Delete(operation) => peer.operate(operation, false).await?,
            FileMessage::Ping | FileMessage::RateControl => {}
            FileMessage::SessionComplete => {
                if config.answer_session_complete {
                    // A client need not wait for it, and may be gone.
                    let _ = peer.say(&FileMessage::SessionComplete).await;
                }
                let _ = peer.writer.shutdown().await;
                return Ok(());
            }
            other => {
                peer.refuse(&OpenRefused::new(CODE_INVALID, "unexpected message")).await?;
                return Err(violation(format!("an unexpected classic message {}", other.number())));
            }
        }
    }
}

/// Whether a message with this number begins an operation of the classic layer.
pub(super) fn is_operation(number: u32) -> bool {
    use vsphere_nfc::wire::classic_file::number::{FILE_CREATEDIR, FILE_DELETE, FILE_GET, FILE_PUT};
    [FILE_PUT, FILE_GET, FILE_CREATEDIR, FILE_DELETE, fssrvr::number::OPEN].contains(&number)
}

/// The client at the other end.
pub(super) struct Peer {
    reader: ReadHalf,
    pub(super) writer: WriteHalf,
    /// What was read and not yet looked at.
    received: BytesMut,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<NfcServerConfig>,
    pub(super) grant: Grant,
}

impl Peer {
    /// The next message.
    async fn message(&mut self) -> io::Result<[u8; MESSAGE_LEN]> {
        let mut bytes = [0; MESSAGE_LEN];
        self.extra(MESSAGE_LEN).await?.copy_to_slice(&mut bytes);
        Ok(bytes)
    }

    /// The next `len` bytes.
    pub(super) async fn extra(&mut self, len: usize) -> io::Result<Bytes> {
        while self.received.len() < len {
            self.fill().await?;
        }
        Ok(self.received.split_to(len).freeze())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.reader.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The path behind a message; its length was checked.
    pub(super) async fn path(&mut self, len: u32) -> io::Result<String> {
        Ok(path_text(&self.extra(len as usize).await?))
    }

    /// Sends an answer, behind the messages that are to come in between.
    async fn say(&mut self, message: &FileMessage) -> io::Result<()> {
        for number in self.config.interjections.clone() {
            self.send(&FileMessage::Other(number).encode()).await?;
        }
        self.send(&message.encode()).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Sends an error.
    pub(super) async fn refuse(&mut self, why: &OpenRefused) -> io::Result<()> {
        let text = if why.text.is_empty() { Vec::new() } else { [why.text.as_bytes(), b"\0"].concat() };
        let text_len = u32::try_from(text.len()).map_err(violation)?;
        self.say(&FileMessage::Error { kind: ERROR_KIND, code: why.code, text_len }).await?;
        self.send(&text).await
    }

    /// Does the fault that waits for `step`, and returns whether there was one.
    pub(super) async fn struck(&mut self, step: Step) -> io::Result<bool> {
        match self.shared.injected.take(step) {
            None => return Ok(false),
            Some(FaultAction::Error { code, text }) => self.refuse(&OpenRefused::new(code, text)).await?,
            Some(FaultAction::Bytes(bytes)) => self.send(&bytes).await?,
            Some(FaultAction::Complete) => {
                self.say(&FileMessage::SessionComplete).await?;
                return Err(ended("ended by an injected fault"));
            }
            Some(FaultAction::Close) => return Err(ended("closed by an injected fault")),
            Some(FaultAction::Stall) => authd::stall(&mut self.reader).await?,
        }
        Ok(true)
    }

    async fn get(&mut self, get: FileGet) -> io::Result<()> {
        let path = self.path(get.path_len).await?;
        if self.struck(Step::GetFile).await? {
            return Ok(());
        }
        match get.file_type {
            FileType::Disk => self.get_disk(get, path).await,
            _ => self.get_file(get, path).await,
        }
    }

    async fn get_file(&mut self, get: FileGet, path: String) -> io::Result<()> {
        let (backend, grant, name) = (Arc::clone(&self.shared.backend), self.grant.clone(), path.clone());
        let content = match blocking(move || backend.read_file(&grant, &name)).await? {
            Ok(content) => content,
            Err(refused) => return self.refuse(&refused).await,
        };
        self.announce(get.file_type, &path, content.len() as u64).await?;
        for part in content.chunks(MAX_LEN) {
            if self.struck(Step::GetData).await? {
                return Ok(());
            }
            // At most 256 KiB.
            self.send(&frames::head(part.len() as u32)).await?;
            self.send(part).await?;
            self.shared.counters.count(&path, |traffic| traffic.read += part.len() as u64);
        }
        self.send(&frames::head(0)).await
    }

    async fn get_disk(&mut self, get: FileGet, path: String) -> io::Result<()> {
        let (backend, grant, name) = (Arc::clone(&self.shared.backend), self.grant.clone(), path.clone());
        let disk = match blocking(move || backend.open(&grant, &name, false)).await? {
            Ok(disk) => disk,
            Err(refused) => return self.refuse(&refused).await,
        };
        self.shared.counters.count(&path, |traffic| traffic.opens += 1);
        let file_type = if self.config.answers_delta_disk { FileType::DeltaDisk } else { get.file_type };
        self.announce(file_type, &path, disk.capacity()).await?;
        let entries = disk.ddb_entries();
        let groups = entries.len().div_ceil(self.config.metadata_frames.max(1) as usize).max(1);
        for group in entries.chunks(groups) {
            self.send(&metadata_frame(group).map_err(violation)?).await?;
        }
        let mut stream = Writer::new(self.config.run_sectors);
        let mut at = 0;
        while at < disk.capacity() {
            let end = disk.capacity().min(at + PIECE);
            let file = Arc::clone(&disk);
            let (mut data, mut zeros) = match blocking(move || piece(&*file, at, end)).await? {
                Ok(Some(data)) => (data, 0),
                Ok(None) => (Bytes::new(), end - at),
                Err(error) => return self.refuse(&OpenRefused::new(CODE_INVALID, error.to_string())).await,
            };
            self.shared.counters.count(&path, |traffic| traffic.read += data.len() as u64);
            while let Some(frame) = stream.data(&mut data).or_else(|| stream.zeros(&mut zeros)) {
                if self.struck(Step::GetData).await? {
                    return Ok(());
                }
                self.send(&frame).await?;
            }
            at = end;
        }
        if self.struck(Step::GetData).await? {
            return Ok(());
        }
        if let Some(frame) = stream.finish() {
            self.send(&frame).await?;
        }
        if self.config.empty_frame_after_disk {
            self.send(&frames::head(0)).await?;
        }
        Ok(())
    }

    async fn announce(&mut self, file_type: FileType, path: &str, size: u64) -> io::Result<()> {
        for number in self.config.interjections.clone() {
            self.send(&FileMessage::Other(number).encode()).await?;
        }
        let put = |path_len| FileMessage::Put(FilePut { file_type, conversion: 0, path_len, size, space: size });
        self.send(&FileMessage::with_path(path, put).map_err(violation)?).await
    }

    async fn put(&mut self, put: FilePut) -> io::Result<()> {
        let path = self.path(put.path_len).await?;
        if self.struck(Step::PutFile).await? {
            return Ok(());
        }
        match put.file_type {
            FileType::Disk => self.put_disk(put, path).await,
            _ => self.put_file(put, path).await,
        }
    }

    async fn put_file(&mut self, put: FilePut, path: String) -> io::Result<()> {
        let mut content = Vec::new();
        if put.size > MAX_FILE {
            return self.refuse(&OpenRefused::new(CODE_INVALID, "the file is too large")).await;
        }
        while let Some(frame) = self.frame().await? {
            if self.struck(Step::PutData).await? {
                return Ok(());
            }
            content.extend_from_slice(&frame);
            if content.len() as u64 > put.size {
                return self.refuse(&OpenRefused::new(CODE_INVALID, "more bytes than announced")).await;
            }
        }
        self.shared.counters.count(&path, |traffic| traffic.written += content.len() as u64);
        let (backend, grant) = (Arc::clone(&self.shared.backend), self.grant.clone());
        let stored = blocking(move || backend.write_file(&grant, &path, content)).await?;
        self.stored(stored).await
    }

    async fn put_disk(&mut self, put: FilePut, path: String) -> io::Result<()> {
        let new = NewDisk {
            capacity: put.size,
            thin: put.conversion & conversion::THIN != 0,
            adapter: match put.conversion {
                flags if flags & conversion::LSILOGIC != 0 => Some("lsilogic"),
                flags if flags & conversion::IDE != 0 => Some("ide"),
                _ => None,
            },
            overwrite: put.conversion & conversion::CREATE_OVERWRITE != 0,
        };
        let mut stream = match Reader::new(new.capacity) {
            Ok(stream) => stream,
            Err(error) => return self.refuse(&OpenRefused::new(CODE_INVALID, error.to_string())).await,
        };
        let (backend, grant, name) = (Arc::clone(&self.shared.backend), self.grant.clone(), path.clone());
        let disk = match blocking(move || backend.create_disk(&grant, &name, &new)).await? {
            Ok(disk) => disk,
            Err(refused) => return self.refuse(&refused).await,
        };
        self.shared.counters.count(&path, |traffic| traffic.opens += 1);
        while let Some(frame) = self.frame().await? {
            if self.struck(Step::PutData).await? {
                return Ok(());
            }
            let parts = match stream.frame(frame) {
                Ok(parts) => parts,
                Err(error) => return self.refuse(&OpenRefused::new(CODE_INVALID, error.to_string())).await,
            };
            for part in parts {
                let file = Arc::clone(&disk);
                let written = match part {
                    // The disk is new: its zeros are there.
                    Part::Zeros(_) => continue,
                    Part::Metadata(entries) => blocking(move || file.set_ddb(&entries)).await?,
                    Part::Data { offset, bytes } => {
                        self.shared.counters.count(&path, |traffic| traffic.written += bytes.len() as u64);
                        blocking(move || file.write_at(offset, &bytes)).await?
                    }
                };
                if let Err(error) = written {
                    return self.refuse(&OpenRefused::new(CODE_INVALID, error.to_string())).await;
                }
            }
        }
        if !stream.is_complete() {
            let text = format!("the disk ended after {} bytes", stream.position());
            return self.refuse(&OpenRefused::new(CODE_INVALID, text)).await;
        }
        let flushed = blocking(move || disk.flush()).await?;
        self.stored(flushed.map_err(|error| OpenRefused::new(CODE_INVALID, error.to_string()))).await
    }

    /// Tells the outcome of a PUT.
    async fn stored(&mut self, outcome: Result<(), OpenRefused>) -> io::Result<()> {
        if self.struck(Step::PutDone).await? {
            return Ok(());
        }
        match outcome {
            Ok(()) => self.say(&FileMessage::PutDone).await,
            Err(refused) => self.refuse(&refused).await,
        }
    }

    /// The next frame of a PUT; `None` behind the last one.
    async fn frame(&mut self) -> io::Result<Option<Bytes>> {
        let mut decoder = Decoder::default();
        loop {
            match decoder.next(&mut self.received).map_err(violation)? {
                None => self.fill().await?,
                Some(Incoming::Frame(frame)) => return Ok(Some(frame)),
                Some(Incoming::End) => return Ok(None),
                Some(Incoming::Message(FileMessage::Ping | FileMessage::RateControl)) => {}
                Some(Incoming::Message(other)) => {
                    return Err(violation(format!("a classic message {} within a file", other.number())));
                }
            }
        }
    }

    /// Makes a directory or deletes a file.
    async fn operate(&mut self, operation: PathOperation, make: bool) -> io::Result<()> {
        let path = self.path(operation.path_len).await?;
        if self.struck(Step::FileOperation).await? {
            return Ok(());
        }
        let (backend, grant) = (Arc::clone(&self.shared.backend), self.grant.clone());
        let ancestors = operation.flags & operation::CREATE_HIERARCHY != 0;
        let done = blocking(move || match make {
            true => backend.make_directory(&grant, &path, ancestors),
            false => backend.delete(&grant, &path),
        });
        match done.await? {
            Ok(()) => self.say(&FileMessage::Status { error: 0 }).await,
            Err(refused) => self.refuse(&refused).await,
        }
    }
}

/// The bytes of a piece of a disk; `None` where nothing is allocated.
fn piece(file: &dyn NfcFile, start: u64, end: u64) -> io::Result<Option<Bytes>> {
    if file.allocated(start..end)?.is_empty() {
        return Ok(None);
    }
    // At most a mebibyte.
    let mut data = vec![0; (end - start) as usize];
    file.read_at(start, &mut data)?;
    Ok(Some(data.into()))
}
