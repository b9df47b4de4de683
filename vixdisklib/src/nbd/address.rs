//! Where a server listens, and how clients write that.

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

/// Where a server listens.
///
/// From a text: `/run/web.sock` (with a slash) is a Unix socket, `127.0.0.1:10809` is TCP; port 0 lets the system
/// choose. 10809 is the port of NBD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdAddress {
    /// TCP, as `host:port`. Whoever can connect can read, and write what is writable, and nothing is encrypted: stay on
    /// 127.0.0.1, and let clients of other machines come through a tunnel.
    Tcp(String),
    /// A Unix socket, open to this user only. The file must not exist; it is removed in the end.
    Unix(PathBuf),
}

impl From<&str> for NbdAddress {
    fn from(text: &str) -> Self {
        if text.contains('/') { Self::Unix(text.into()) } else { Self::Tcp(text.to_owned()) }
    }
}

impl From<&Path> for NbdAddress {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl From<SocketAddr> for NbdAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl NbdAddress {
    /// The URI of an export, as NBD clients take it.
    pub(super) fn uri(&self, export: &str, tls: bool) -> String {
        let scheme = if tls { "nbds" } else { "nbd" };
        let export = escaped(export.as_bytes(), b"");
        match self {
            Self::Tcp(address) => format!("{scheme}://{address}/{export}"),
            Self::Unix(path) => {
                let path = escaped(path.as_os_str().as_encoded_bytes(), b"/");
                format!("{scheme}+unix:///{export}?socket={path}")
            }
        }
    }
}

/// A socket that connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed with it.
pub(super) struct SocketFile(PathBuf);

/// A connection of whatever kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    pub(super) async fn bind(address: &NbdAddress) -> io::Result<Self> {
        match address {
            NbdAddress::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            NbdAddress::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let file = SocketFile(path.clone());
                // Nobody can connect before `listen`, so nobody can who may not.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket.into())?, file))
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    pub(super) fn address(&self) -> io::Result<NbdAddress> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.into()),
            Self::Unix(_, file) => Ok(NbdAddress::Unix(file.0.clone())),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A client whose machine is gone must not keep its place for ever.
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket's file was not removed");
        }
    }
}

fn escaped(bytes: &[u8], also: &[u8]) -> String {
    let mut out = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

const BACKLOG: i32 = 128;

const KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_of_nbd_clients() {
        let tcp = NbdAddress::from("127.0.0.1:10809");
        assert_eq!(tcp.uri("web", false), "nbd://127.0.0.1:10809/web");
        assert_eq!(tcp.uri("[ds1] a/b.vmdk", true), "nbds://127.0.0.1:10809/%5Bds1%5D%20a%2Fb.vmdk");
        assert_eq!(NbdAddress::from("/run/a b.sock").uri("", false), "nbd+unix:///?socket=/run/a%20b.sock");
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nbd.sock");
        let address = NbdAddress::from(path.as_path());
        let listener = Listener::bind(&address).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&address).await.is_err(), "somebody's socket is not taken away");
        drop(listener);
        assert!(!path.exists());
    }
}
