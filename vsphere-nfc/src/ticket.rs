//! Tickets: plain data that a SOAP client got from `NfcService`. This crate knows no SOAP.
//!
//! A ticket is good for one connection, so a disk is opened with a [`TicketSource`] that can make
//! another one when a session has to be tried again with smaller buffers, or opened anew.

use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::tls::Pin;

/// The port of a ticket that names none.
pub const DEFAULT_PORT: u16 = 902;

/// A boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = StdPin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The right to open one connection.
#[doc(alias = "HostServiceTicket")]
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The ESXi host. A ticket without a host means the host that the SOAP session is with.
    pub host: String,
    /// The port, usually [`DEFAULT_PORT`].
    pub port: u16,
    /// The certificate to trust. `None` is refused unless the options allow it.
    pub pin: Option<Pin>,
    /// `vpxa-nfc` (from vCenter) or `nfc` (from ESXi).
    pub service: String,
    /// The secret.
    pub session_id: SessionId,
}

/// The secret of a ticket: never shown, overwritten when dropped.
#[derive(Clone)]
pub struct SessionId(Zeroizing<String>);

impl SessionId {
    /// Wraps the secret.
    pub fn new(id: impl Into<String>) -> Self {
        Self(Zeroizing::new(id.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(redacted)")
    }
}

/// Makes tickets, one for every connection.
#[doc(alias = "NfcRandomAccessOpenReadonly")]
#[doc(alias = "NfcRandomAccessOpenDisk")]
pub trait TicketSource: Send + Sync {
    /// Gets a fresh ticket for the disk. Fetched just before dialling: its lifetime is unknown.
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>>;

    /// The disk's size in bytes, where it is known: SOAP tells it. The synchronous layer of hosts before
    /// ESXi 6.7 does not, so without it disks of such hosts are not opened. Others tell it themselves.
    fn capacity(&self) -> Option<u64> {
        None
    }

    /// Asks for the NFC library version of the host that the latest ticket is for. Asked once for a
    /// host, and only to choose how to start a session; [`ServerVersion::Unknown`], the default, is
    /// a good answer to every failure.
    #[doc(alias = "NfcGetServerNfcLibVersion")]
    fn server_version(&self) -> BoxFuture<'_, ServerVersion> {
        Box::pin(std::future::ready(ServerVersion::Unknown))
    }
}

/// What is known of a host's NFC library before connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ServerVersion {
    /// Nothing; the daemon's first line and the session start tell.
    #[default]
    Unknown,
    /// The host has no such method: it is older than 6.5.
    Missing,
    /// The version: 11 on ESXi 8, 7 on 7.0, 2 on 6.7, 0 on 6.5.
    Known(u32),
}

impl<F, Fut> TicketSource for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<Ticket, TicketError>> + Send + 'static,
{
    fn ticket(&self) -> BoxFuture<'_, Result<Ticket, TicketError>> {
        Box::pin(self())
    }
}

/// Why a ticket source gave no ticket.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TicketError {
    message: String,
    retryable: bool,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl TicketError {
    /// A failure with a message of its own.
    pub fn new(message: impl Into<String>, retryable: bool) -> Self {
        Self { message: message.into(), retryable, source: None }
    }

    /// A failure caused by another error, which becomes the source.
    pub fn from_error(
        message: impl Into<String>,
        retryable: bool,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { message: message.into(), retryable, source: Some(Arc::new(source)) }
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The cause as it was handed in, to look into.
    pub fn inner(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_ticket_hides_the_secret() {
        let ticket = Ticket {
            host: "esx1".into(),
            port: DEFAULT_PORT,
            pin: None,
            service: "nfc".into(),
            session_id: SessionId::new("52-very-secret"),
        };
        assert!(!format!("{ticket:?}").contains("secret"));
        assert_eq!(ticket.session_id.expose(), "52-very-secret");
    }

    #[test]
    fn a_closure_is_a_ticket_source() {
        let source = || async { Err(TicketError::new("no rights", false)) };
        let source: Arc<dyn TicketSource> = Arc::new(source);
        let error = futures_block(source.ticket()).unwrap_err();
        assert!(!error.is_retryable());
    }

    fn futures_block<T>(future: BoxFuture<'_, T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }
}
