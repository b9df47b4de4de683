//! A line with a delay: bytes come out as they went in, later.
//!
//! On threads with blocking sockets: a thread sleeps to some ten microseconds, a runtime's timer to a millisecond, which
//! would be all of the shortest delay.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are moved at once.
const PIECE: usize = 64 << 10;
/// Pieces on the way in one direction: more than any line here holds at any delay here.
const CAPACITY: usize = 1024;

/// Passes every connection on to `to`, each direction `delay` later; gives the address to connect to.
pub(super) fn in_front_of(to: SocketAddr, delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            // A client whose line cannot be made sees its connection end.
            let _ = lines(near, to, delay);
        }
    });
    Ok(address)
}

fn lines(near: TcpStream, to: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let (entrance, exit) = sync_channel(CAPACITY);
        thread::spawn(move || take_in(from, &entrance, delay));
        thread::spawn(move || let_out(to, &exit));
    }
    Ok(())
}

/// Bytes, and when they are due.
type Piece = (Instant, Vec<u8>);

fn take_in(mut from: TcpStream, entrance: &SyncSender<Piece>, delay: Duration) {
    loop {
        let mut piece = vec![0; PIECE];
        match from.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => piece.truncate(read),
        }
        if entrance.send((Instant::now() + delay, piece)).is_err() {
            return;
        }
    }
}

fn let_out(mut to: TcpStream, exit: &Receiver<Piece>) {
    for (due, piece) in exit {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
