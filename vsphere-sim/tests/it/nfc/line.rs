//! A line between client and host that cuts what passes into single bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Listens, and passes the bytes of one connection to and from `host`, each in a packet of its own.
pub(super) async fn byte_by_byte(host: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(host).await.unwrap();
        for side in [&near, &far] {
            side.set_nodelay(true).unwrap();
        }
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(pass(near_in, far_out), pass(far_in, near_out));
    });
    address
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        for byte in &bytes[..read] {
            if to.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    }
}
