//! A client that sends whatever a test wants: real clients are too well-behaved.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vixdisklib::nbd::{NbdAddress, RunningNbdServer};

pub(super) struct Client {
    pub(super) stream: TcpStream,
}

pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISC: u16 = 2;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const CACHE: u16 = 5;
pub(super) const WRITE_ZEROES: u16 = 6;
pub(super) const BLOCK_STATUS: u16 = 7;

pub(super) const FUA: u16 = 1;
pub(super) const NO_HOLE: u16 = 2;
pub(super) const DF: u16 = 4;
pub(super) const REQ_ONE: u16 = 8;
pub(super) const FAST_ZERO: u16 = 16;

impl Client {
    /// Connects and reads the greeting.
    pub(super) async fn connect(server: &RunningNbdServer) -> Self {
        let NbdAddress::Tcp(address) = server.address() else { panic!("not TCP") };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        Self { stream }
    }

    /// Negotiates as old clients do: no structured replies, no block sizes. The size and flags of the export.
    pub(super) async fn simple(server: &RunningNbdServer, name: &str) -> (Self, u64, u16) {
        let mut client = Self::connect(server).await;
        client.send(&[0, 0, 0, 3]).await;
        client.option(1, name.as_bytes()).await;
        let size = client.stream.read_u64().await.unwrap();
        let flags = client.stream.read_u16().await.unwrap();
        (client, size, flags)
    }

    /// Negotiates structured replies and `base:allocation`. The flags of the export.
    pub(super) async fn structured(server: &RunningNbdServer, name: &str) -> (Self, u16) {
        let mut client = Self::connect(server).await;
        client.send(&[0, 0, 0, 3]).await;
        client.option(8, b"").await;
        assert_eq!(client.answer().await.0, 1);
        let name = [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat();
        client.option(10, &[&name[..], b"\0\0\0\x01\0\0\0\x0fbase:allocation"].concat()).await;
        assert_eq!(client.answer().await.0, 4);
        assert_eq!(client.answer().await.0, 1);
        client.option(7, &[&name[..], &[0, 0]].concat()).await;
        let mut flags = 0;
        loop {
            match client.answer().await {
                (1, _) => return (client, flags),
                (3, data) if data[..2] == [0, 0] => flags = u16::from_be_bytes([data[10], data[11]]),
                (3, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn option(&mut self, number: u32, data: &[u8]) {
        let head = [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes()].concat();
        self.send(&[&head[..], data].concat()).await;
    }

    /// The kind of the next answer to an option, and its data.
    pub(super) async fn answer(&mut self) -> (u32, Vec<u8>) {
        let mut head = [0; 20];
        self.stream.read_exact(&mut head).await.unwrap();
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let mut data = vec![0; word(16) as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        (word(12), data)
    }

    pub(super) async fn request(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u32) {
        let bytes = request(command, flags, cookie, offset, len);
        self.send(&bytes).await;
    }

    /// The error number and cookie of a simple reply.
    pub(super) async fn simple_reply(&mut self) -> (u32, u64) {
        assert_eq!(self.stream.read_u32().await.unwrap(), 0x6744_6698);
        (self.stream.read_u32().await.unwrap(), self.stream.read_u64().await.unwrap())
    }

    /// One request and its error number, without structured replies.
    pub(super) async fn ask(&mut self, command: u16, flags: u16, offset: u64, len: u32) -> u32 {
        self.request(command, flags, 1, offset, len).await;
        self.simple_reply().await.0
    }

    pub(super) async fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        assert_eq!(self.ask(READ, 0, offset, len).await, 0);
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        data
    }

    pub(super) async fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        self.send(&[&request(WRITE, flags, 1, offset, data.len() as u32)[..], data].concat()).await;
        self.simple_reply().await.0
    }

    /// One request and the chunks of its reply: kind and payload.
    pub(super) async fn chunks(&mut self, command: u16, flags: u16, offset: u64, len: u32) -> Vec<(u16, Vec<u8>)> {
        self.request(command, flags, 9, offset, len).await;
        let mut chunks = Vec::new();
        loop {
            assert_eq!(self.stream.read_u32().await.unwrap(), 0x668e_33ef);
            let flags = self.stream.read_u16().await.unwrap();
            let kind = self.stream.read_u16().await.unwrap();
            assert_eq!(self.stream.read_u64().await.unwrap(), 9);
            let mut payload = vec![0; self.stream.read_u32().await.unwrap() as usize];
            self.stream.read_exact(&mut payload).await.unwrap();
            chunks.push((kind, payload));
            if flags & 1 != 0 {
                return chunks;
            }
        }
    }

    /// True when the server hangs up, having sent nothing more.
    pub(super) async fn is_hung_up_on(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is one way of hanging up: data of ours may have been under way.
        let _ = self.stream.read_to_end(&mut rest).await;
        rest.is_empty()
    }
}

pub(super) fn request(command: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut out = 0x2560_9513_u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(command.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}
