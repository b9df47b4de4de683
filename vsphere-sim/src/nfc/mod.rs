//! A server for NFC on TCP 902: the authentication daemon, both TLS stages, the asynchronous
//! layer, and the classic one below it.
//!
//! It follows the same sheet of facts as the client, not the client's code; they share only the
//! codec. Everything that is not certain about real hosts is a switch of [`NfcServerConfig`], and
//! [`NfcServer::inject`] makes the next step of any connection fail.
//!
//! Who may open what, and where the bytes are, is decided by an [`NfcBackend`].

mod authd;
mod backend;
mod buffers;
mod classic;
mod config;
mod counters;
mod holding;
mod metered;
mod random_access;
mod replay;
mod requests;
mod server;
mod session;
mod start;
mod transfer;
mod version;

pub use backend::{Geometry, Grant, NewDisk, NfcBackend, NfcFile, OpenRefused, RedeemError};
pub use config::{
    AllocationAnswers, Cut, FaultAction, FragmentOrder, NfcServerConfig, OverLimit, ReplyCompression, Step,
    TicketRefusal,
};
pub use counters::{FileTraffic, NfcCounters};
pub use server::{NfcIdentity, NfcServer};
pub use version::{Gates, HostVersion};
