//! Our client, with many requests in flight or one.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use vsphere_nfc::{Mode, NfcDisk, NfcOptions, Pin, SessionId, Ticket, TicketError};

use super::peer::{Peer, pattern};
use super::{Amount, BUFFER, BUFFERS, Channel, Rate};
use crate::process;

/// Calls under way: what the session's buffers take, and as many waiting.
pub(super) const DEPTH: u64 = 2 * BUFFERS;

/// An error that may come from another thread.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Read { "read" } else { "write" })
    }
}

/// Opens a disk of the peer.
pub(super) async fn open(peer: &Peer, channel: Channel, way: Way, request: Option<u32>) -> Result<NfcDisk, Failure> {
    let ticket = Ticket {
        host: peer.nfc.ip().to_string(),
        port: peer.nfc.port(),
        pin: Some(Pin::sha256_of(&peer.certificate)),
        service: "nfc".to_owned(),
        session_id: SessionId::new("any"),
    };
    let tickets = Arc::new(move || {
        let ticket = ticket.clone();
        async move { Ok::<_, TicketError>(ticket) }
    });
    let channel = match channel {
        Channel::Tls => vsphere_nfc::Channel::Tls,
        Channel::Clear => vsphere_nfc::Channel::Clear,
    };
    let mode = if way == Way::Read { Mode::ReadOnly } else { Mode::ReadWrite };
    let size = u32::try_from(BUFFER)?;
    let mut options = NfcOptions::default().channel(channel).buffers(size, u32::try_from(BUFFERS)?);
    options.quirks.max_request = request;
    Ok(NfcDisk::open(tickets, "[ds] disk.vmdk", mode, options).await?)
}

/// Moves a part of the disk from its start on, in calls of a buffer each, `depth` of them at a time.
pub(super) async fn run(
    peer: Arc<Peer>,
    channel: Channel,
    way: Way,
    depth: u64,
    amount: Amount,
) -> Result<Rate, Failure> {
    let disk = open(&peer, channel, way, amount.request).await?;
    let (begun, before) = (Instant::now(), process::own_time()?);
    let bytes = match way {
        Way::Read => read(&disk, depth, amount, begun).await?,
        Way::Write => write(&disk, depth, amount, begun).await?,
    };
    let rate = Rate { bytes, wall: begun.elapsed(), cpu: process::own_time()?.saturating_sub(before) };
    disk.close().await?;
    Ok(rate)
}

async fn read(disk: &NfcDisk, depth: u64, amount: Amount, begun: Instant) -> Result<u64, Failure> {
    let len = usize::try_from(BUFFER)?;
    let mut calls = FuturesUnordered::new();
    let mut next = 0;
    for _ in 0..depth {
        calls.push(disk.read_into(next, len, BytesMut::new()));
        next += BUFFER;
    }
    while let Some(read) = calls.next().await {
        let buffer = read?;
        if buffer.first() != pattern().first() || buffer.len() != len {
            return Err("wrong bytes".into());
        }
        if next < amount.bytes && begun.elapsed() < amount.patience {
            calls.push(disk.read_into(next, len, buffer));
            next += BUFFER;
        }
    }
    Ok(next)
}

async fn write(disk: &NfcDisk, depth: u64, amount: Amount, begun: Instant) -> Result<u64, Failure> {
    let data = Bytes::from_static(pattern());
    let mut calls = FuturesUnordered::new();
    let mut next = 0;
    for _ in 0..depth {
        calls.push(disk.write_at(next, data.clone()));
        next += BUFFER;
    }
    while let Some(written) = calls.next().await {
        written?;
        if next < amount.bytes && begun.elapsed() < amount.patience {
            calls.push(disk.write_at(next, data.clone()));
            next += BUFFER;
        }
    }
    Ok(next)
}
