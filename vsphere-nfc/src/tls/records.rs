//! A TLS client driven by hand, one record at a time.
//!
//! The daemon's TLS session ends without a close_notify and another one starts on the same TCP
//! stream. A buffering TLS stream could hold bytes of the next stage; this one reads five bytes of
//! record header and then exactly one record, so the TCP stream can be taken back at any line end.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RECORD_HEADER_LEN: usize = 5;
/// 2^14 bytes of content and 2048 of expansion: the limit of TLS 1.2, above that of TLS 1.3.
const MAX_RECORD: usize = 16384 + 2048;

/// A TLS session over a TCP stream that can be abandoned.
pub(crate) struct RecordTls {
    tcp: TcpStream,
    tls: ClientConnection,
    record: Vec<u8>,
}

impl RecordTls {
    /// Shakes hands.
    ///
    /// # Errors
    /// Errors of the TLS library arrive as [`io::ErrorKind::InvalidData`], those of the network as
    /// they are.
    pub(crate) async fn handshake(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut this = Self { tcp, tls, record: Vec::new() };
        while this.tls.is_handshaking() {
            this.send_pending().await?;
            if this.tls.is_handshaking() {
                this.read_record().await?;
            }
        }
        this.send_pending().await?;
        Ok(this)
    }

    /// Sends `data`.
    pub(crate) async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(data)?;
        self.send_pending().await
    }

    /// Waits for data and appends what one record brings, at least a byte.
    pub(crate) async fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let before = into.len();
        loop {
            match self.tls.reader().read_to_end(into) {
                // End of data: the peer said close_notify.
                Ok(_) if into.len() == before => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if into.len() > before => return Ok(()),
                Err(_) => self.read_record().await?,
            }
        }
    }

    /// The TLS protocol version, for the log.
    pub(crate) fn version(&self) -> Option<rustls::ProtocolVersion> {
        self.tls.protocol_version()
    }

    /// Abandons the TLS session and gives the TCP stream back. No close_notify is sent.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    async fn send_pending(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes)?;
        }
        self.tcp.write_all(&bytes).await
    }

    async fn read_record(&mut self) -> io::Result<()> {
        self.record.resize(RECORD_HEADER_LEN, 0);
        self.tcp.read_exact(&mut self.record).await?;
        let len = usize::from(u16::from_be_bytes([self.record[3], self.record[4]]));
        if len > MAX_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS record is too long"));
        }
        self.record.resize(RECORD_HEADER_LEN + len, 0);
        self.tcp.read_exact(&mut self.record[RECORD_HEADER_LEN..]).await?;
        let mut rest = self.record.as_slice();
        while !rest.is_empty() {
            if self.tls.read_tls(&mut rest)? == 0 {
                // After a close_notify nothing is taken any more: the rest would stay for ever.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Err(error) = self.tls.process_new_packets() {
                // Tell the peer why: rustls has an alert ready. The first error is what counts.
                let _ = self.send_pending().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        // Handshake answers, and replies to key updates later on.
        self.send_pending().await
    }
}
