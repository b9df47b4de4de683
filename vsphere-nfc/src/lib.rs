//! VMware NFC (network file copy, TCP 902): virtual disks of ESXi over the network.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vsphere_nfc::{Mode, NfcDisk, NfcOptions, Ticket, TicketError};
//!
//! # async fn example(ticket: Ticket) -> vsphere_nfc::Result<()> {
//! // A ticket is good for one connection; a real source asks NfcService for a new one every time.
//! let tickets = Arc::new(move || {
//!     let ticket = ticket.clone();
//!     async move { Ok::<_, TicketError>(ticket) }
//! });
//! let disk = NfcDisk::open(tickets, "[ds1] web/web.vmdk", Mode::ReadOnly, NfcOptions::default());
//! let disk = disk.await?;
//! for range in disk.query_allocated(0..disk.capacity(), 1 << 20).await? {
//!     println!("{} bytes at {}", range.end - range.start, range.start);
//! }
//! let first = disk.read_at(0, 1 << 20).await?;
//! # let _ = first;
//! disk.close().await
//! # }
//! ```
//!
//! # Layers
//! 1. a [`Ticket`], got over SOAP by someone else ([`TicketSource`]): this crate knows no SOAP;
//! 2. the authentication daemon on port 902: banner, TLS, ticket, `PROXY`;
//! 3. the NFC service: a second TLS session on the same TCP stream, or in clear
//!    ([`Channel`]); the 264-byte messages that start a session;
//! 4. the asynchronous layer: [`NfcDisk`] with many requests in flight; or, on a connection of its
//!    own, the classic layer: [`NfcFiles`] for whole files and disks.
//!
//! [`wire`] has the bytes of all of them, without input or output.
//!
//! # What is known
//! The protocol is not documented by VMware. What this crate does follows captures of VDDK 8
//! with ESXi 8 and public sources; it has not been run against a real host. Every doubtful fact is
//! a switch in [`Quirks`].

#![cfg_attr(test, allow(clippy::unwrap_used))] // A failed unwrap is a failed test.

mod aio;
mod authd;
mod classic;
mod dial;
mod disk;
mod error;
mod hosts;
mod ladder;
mod line;
mod options;
mod quirks;
mod retry;
mod start;
#[cfg(test)]
mod tests;
mod ticket;
mod tls;
pub mod trace;
pub mod wire;

pub use classic::{
    Ancestors, ClassicQuirks, DiskReader, DiskSpec, DiskWriter, FileReader, FileWriter, FilesOptions, NfcFiles,
    Provisioning, SynchronousDisk,
};
pub use disk::{Mode, NfcDisk, SessionInfo};
pub use error::{Error, Phase, Result};
pub use hosts::NfcHosts;
pub use ladder::{Ladder, Rung};
pub use options::{Buffers, Channel, CompressionWish, LegacyTls, NfcOptions, Timeouts, UnpinnedTickets};
pub use quirks::{Quirks, ThumbprintSha2};
pub use retry::Retry;
pub use ticket::{BoxFuture, DEFAULT_PORT, ServerVersion, SessionId, Ticket, TicketError, TicketSource};
pub use tls::{ParsePinError, Pin};
pub use wire::disk_stream::Part as DiskPart;
pub use wire::fault::Fault;
pub use wire::file::Geometry;
