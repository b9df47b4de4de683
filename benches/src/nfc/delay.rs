//! A line with a delay: bytes come out as they went in, later.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// Bytes on the way in one direction: more than any line here holds at any delay here.
const CAPACITY: usize = 64 << 20;
/// Bytes that are moved at once.
const PIECE: usize = 256 << 10;

/// Passes every connection on to `to`, each direction `delay` later; gives the address to connect to.
pub(super) async fn in_front_of(to: SocketAddr, delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(line(near_in, far_out, delay));
                tokio::spawn(line(far_in, near_out, delay));
                io::Result::Ok(())
            });
        }
    });
    Ok(address)
}

/// Pieces with the time at which they are due.
struct Line {
    pieces: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    arrived: Notify,
    room: Semaphore,
}

async fn line(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let line = Arc::new(Line { pieces: Mutex::default(), arrived: Notify::new(), room: Semaphore::new(CAPACITY) });
    let entrance = Arc::clone(&line);
    tokio::spawn(async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = from.read_buf(&mut piece).await.unwrap_or(0);
            let taken = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            if let Ok(permit) = entrance.room.acquire_many(taken).await {
                permit.forget();
            }
            // An empty piece is the end.
            entrance.lock().push_back((Instant::now() + delay, piece));
            entrance.arrived.notify_one();
            if read == 0 {
                break;
            }
        }
    });
    loop {
        let next = line.lock().pop_front();
        let Some((due, piece)) = next else {
            line.arrived.notified().await;
            continue;
        };
        sleep_until(due).await;
        if piece.is_empty() || to.write_all(&piece).await.is_err() {
            break;
        }
        line.room.add_permits(piece.len());
    }
    let _ = to.shutdown().await;
}

/// The runtime's timers are a millisecond coarse, which would be all of the shortest delay; the rest is yielded away.
async fn sleep_until(due: Instant) {
    let coarse = Duration::from_millis(2);
    if due > Instant::now() + coarse {
        tokio::time::sleep_until(due - coarse).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, Vec<u8>)>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
