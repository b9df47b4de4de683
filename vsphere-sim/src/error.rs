//! Why a simulator cannot start or an operation on its handle fails.

/// A failure of the simulator itself; faults that clients see are not errors of this type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A disk or the datastore cannot be used.
    #[error("storage")]
    Storage(#[from] crate::storage::Error),
    /// The certificate could not be made. Ours to fix.
    #[error("make the simulator's certificate: {0}")]
    Certificate(String),
    /// A port could not be opened. Another process may hold it.
    #[error("listen on {address}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the host said.
        source: std::io::Error,
    },
    /// The 902 server could not be started.
    #[error("start the 902 server: {0}")]
    Nfc(String),
    /// The handle names a VM, disk or snapshot that does not exist. The caller's fault.
    #[error("the simulator has no {what} {name}")]
    NoSuch {
        /// `VM`, `disk`.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A blocking job of the simulator was cut off, by a panic in it or by the runtime's end.
    #[error("{0} did not finish")]
    Interrupted(&'static str),
}

/// A result of the simulator's own interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the same call may work later with nothing else changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Storage(error) => error.is_retryable(),
            Error::Listen { .. } => true,
            _ => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Listen { .. } => Some("use port 0 to let the system choose a free port"),
            _ => None,
        }
    }
}
