//! The way to vCenter's SDK tunnel: an HTTP proxy that knows one name.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Asks the proxy at the other end of `stream` for the tunnel; afterwards the stream leads into it.
pub(super) async fn open(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(format!("CONNECT {NAME} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).await?;
    // Byte by byte: what follows the head belongs to TLS.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if line.starts_with(b"HTTP/1.") && status.len() == 3 && status.starts_with(b"2") {
        return Ok(());
    }
    Err(io::Error::other(format!("the proxy answered {:?}", String::from_utf8_lossy(line))))
}

/// The name under which vCenter's proxy knows the port that asks for client certificates.
/// <https://kb.vmware.com/s/article/2004305>
const NAME: &str = "sdkTunnel:8089";

const MAX_HEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let (mut client, mut proxy) = tokio::io::duplex(64 * 1024);
        let served = tokio::spawn(async move {
            let mut head = vec![0; 57];
            proxy.read_exact(&mut head).await?;
            assert_eq!(head, b"CONNECT sdkTunnel:8089 HTTP/1.1\r\nHost: sdkTunnel:8089\r\n\r\n"[..]);
            proxy.write_all(answer).await
        });
        let outcome = open(&mut client).await;
        let _ = served.await;
        outcome?;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    #[tokio::test]
    async fn the_tunnel_begins_right_behind_the_head() {
        let rest = answered(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nTLS").await.unwrap();
        assert_eq!(rest, b"TLS");
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_errors() {
        for answer in
            [&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"]
        {
            assert!(answered(answer).await.is_err());
        }
        let endless: &'static [u8] = Box::leak(vec![b'x'; 2 * MAX_HEAD].into_boxed_slice());
        assert!(answered(endless).await.is_err());
    }
}
