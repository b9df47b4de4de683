//! Synchronous random access (FSSRVR) from the server's side.

use std::io;
use std::sync::Arc;

use vsphere_nfc::wire::classic::MESSAGE_LEN;
use vsphere_nfc::wire::fault::{CODE_OUT_OF_MEMORY, CODE_READ_ONLY};
use vsphere_nfc::wire::file::flags::READ_ONLY_BIT;
use vsphere_nfc::wire::fssrvr::{DIRECTION_WRITE, Io, Message};

use super::backend::OpenRefused;
use super::classic::Peer;
use super::config::Step;
use super::requests::{OpenDisk, blocking};
use super::server::violation;
use super::session::CODE_INVALID;

/// Bytes that a host takes beside the data of a request.
const OVERHEAD: u32 = 24;

/// The disk that is open, if one is.
#[derive(Default)]
pub(super) struct RandomAccess {
    disk: Option<OpenDisk>,
}

impl RandomAccess {
    /// Answers `message` when it is one of synchronous random access, and returns whether it was.
    pub(super) async fn answer(&mut self, peer: &mut Peer, message: &[u8; MESSAGE_LEN]) -> io::Result<bool> {
        match Message::decode(message).map_err(violation)? {
            Message::Open { path_len, flags, .. } => {
                let path = peer.path(path_len).await?;
                self.open(peer, path, flags & READ_ONLY_BIT == 0).await?;
            }
            Message::Io(io) => self.io(peer, io).await?,
            Message::Close => {
                if peer.struck(Step::CloseFile).await? {
                    return Ok(true);
                }
                let Some(disk) = self.disk.take() else { return refused(peer, "no disk is open").await };
                if disk.writable
                    && let Err(error) = blocking(move || disk.file.flush()).await?
                {
                    return refused(peer, &error.to_string()).await;
                }
                peer.send(&Message::Close.encode()).await?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    async fn open(&mut self, peer: &mut Peer, path: String, writable: bool) -> io::Result<()> {
        if peer.struck(Step::OpenFile).await? {
            return Ok(());
        }
        let (backend, grant, name) = (Arc::clone(&peer.shared.backend), peer.grant.clone(), path.clone());
        match blocking(move || backend.open(&grant, &name, writable)).await? {
            Ok(file) => {
                self.disk = Some(OpenDisk::new(&peer.shared.counters, path, file, writable)?);
                peer.send(&Message::DiskGeometry.encode()).await
            }
            Err(refused) => peer.refuse(&refused).await,
        }
    }

    async fn io(&mut self, peer: &mut Peer, io: Io) -> io::Result<()> {
        let is_write = io.direction == DIRECTION_WRITE;
        let most = peer.config.max_synchronous_request;
        if io.len > most {
            let text = format!("Failed to allocate the requested {} bytes", u64::from(io.len) + u64::from(OVERHEAD));
            peer.refuse(&OpenRefused::new(CODE_OUT_OF_MEMORY, text)).await?;
            return Err(violation("a request of synchronous access is too large"));
        }
        let len = io.len as usize;
        let data = if is_write { peer.extra(len).await? } else { Default::default() };
        if peer.struck(if is_write { Step::Write } else { Step::Read }).await? {
            return Ok(());
        }
        let Some(disk) = self.disk.clone() else { return refused(peer, "no disk is open").await.map(drop) };
        let end = io.offset.checked_add(io.len.into());
        let aligned = io.offset.is_multiple_of(512) && io.len.is_multiple_of(512);
        if !aligned || end.is_none_or(|end| end > disk.file.capacity()) {
            return refused(peer, "the range is misaligned or out of bounds").await.map(drop);
        }
        if is_write && !disk.writable {
            return peer.refuse(&OpenRefused::new(CODE_READ_ONLY, "The file is read-only")).await;
        }
        if !is_write && io.direction != peer.config.synchronous_read_direction {
            return refused(peer, "the direction is not known").await.map(drop);
        }
        let (path, file) = (disk.path, disk.file);
        let done = blocking(move || {
            let mut buffer = Vec::new();
            if is_write {
                file.write_at(io.offset, &data)?;
            } else {
                buffer.resize(len, 0);
                file.read_at(io.offset, &mut buffer)?;
            }
            io::Result::Ok(buffer)
        });
        let buffer = match done.await? {
            Ok(buffer) => buffer,
            Err(error) => return refused(peer, &error.to_string()).await.map(drop),
        };
        peer.shared.counters.count(&path, |traffic| match is_write {
            true => traffic.written += u64::from(io.len),
            false => traffic.read += u64::from(io.len),
        });
        peer.send(&Message::Io(io).encode()).await?;
        peer.send(&buffer).await
    }
}

/// Refuses a message of synchronous random access.
async fn refused(peer: &mut Peer, text: &str) -> io::Result<bool> {
    peer.refuse(&OpenRefused::new(CODE_INVALID, text)).await?;
    Ok(true)
}
