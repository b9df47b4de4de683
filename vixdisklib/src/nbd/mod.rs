//! A server for NBD, the network block device of Linux: any [`Disk`](crate::Disk) for qemu, `nbdcopy` and the kernel.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vixdisklib::{Access, Connection, nbd::NbdServer};
//!
//! # async fn example() -> vixdisklib::Result<()> {
//! let disk = Connection::local(Access::ReadOnly).open("/images/web.vmdk").await?;
//! let server = NbdServer::bind("127.0.0.1:10809").export("web", Arc::new(disk)).serve().await?;
//! println!("{}", server.uri("web")); // nbd://127.0.0.1:10809/web
//! # tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//! server.stop().await
//! # }
//! ```
//!
//! Not to be confused with VMware's transport of the same name, which is NFC over port 902.
//!
//! # What clients get
//! - Fixed newstyle negotiation: `EXPORT_NAME`, `GO`, `INFO`, `LIST`, `ABORT`, `STRUCTURED_REPLY`, metadata contexts.
//! - `READ`, `WRITE`, `FLUSH`, `TRIM`, `CACHE`, `WRITE_ZEROES`, `BLOCK_STATUS`; FUA, DF, `NO_HOLE`, `FAST_ZERO`.
//! - `base:allocation` from [`Disk::allocated`](crate::Disk::allocated). Of a device that is open for reading the answers are
//!   kept, and holes are not read at all; else blocks of zeros are found in what is read. Either way they travel as
//!   holes to clients with structured replies.
//! - Several connections to one export: they share the disk, so a flush on one covers the writes of all.
//! - Any offset and length. Disks with sectors announce them; part of a sector is read, changed and written back.
//! - Errors with the text of the whole chain of causes, for clients with structured replies.
//!
//! # What the server is safe from
//! Every length is bounded before memory is taken ([`NbdLimits`]); a client that stops reading stops being read from;
//! a negotiation that takes too long is cut off. Who may connect is decided by the socket: a Unix socket belongs to its
//! user, and TCP is for everybody who can reach it.
//!
//! # Modules
//! - [`NbdServer`], [`RunningNbdServer`], [`Export`], [`NbdAddress`], [`NbdLimits`]: the server
//! - [`BlockDevice`], [`DeviceError`]: what can be served besides disks
//! - [`wire`]: the protocol's messages as pure functions

mod address;
mod commands;
mod connection;
mod device;
mod export;
mod layout;
mod limits;
mod server;
mod transmission;
mod volume;
pub mod wire;

pub use self::{
    address::NbdAddress,
    device::{BlockDevice, DeviceError, DeviceErrorKind},
    export::Export,
    limits::NbdLimits,
    server::{NbdServer, RunningNbdServer},
};
