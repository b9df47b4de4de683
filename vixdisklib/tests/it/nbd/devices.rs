//! Devices other than disks: with sectors, slow, failing.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use vixdisklib::nbd::{BlockDevice, DeviceError, DeviceErrorKind, NbdServer, RunningNbdServer};

use super::client::{Client, FLUSH, FUA, READ, TRIM, WRITE, WRITE_ZEROES, request};

/// Memory in sectors of 512 bytes, which checks that the server keeps to them.
#[derive(Default)]
struct Sectors {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicUsize,
    closes: Arc<AtomicUsize>,
    delay: Duration,
    broken: bool,
}

impl Sectors {
    fn new(sectors: usize) -> Self {
        Self { bytes: Mutex::new(vec![0; sectors * 512]), ..Self::default() }
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        assert!(offset.is_multiple_of(512) && len.is_multiple_of(512) && len > 0, "{offset} {len}");
        assert!(offset + len <= self.capacity());
        if self.broken {
            return Err(DeviceError::new(DeviceErrorKind::Io, "head crash: the surface is gone"));
        }
        Ok(())
    }
}

impl BlockDevice for Sectors {
    fn capacity(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn alignment(&self) -> u32 {
        512
    }

    fn is_writable(&self) -> bool {
        true
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, DeviceError> {
        self.check(offset, len as u64)?;
        let bytes = self.bytes.lock().unwrap()[offset as usize..][..len].to_vec();
        tokio::time::sleep(self.delay).await;
        Ok(bytes.into())
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), DeviceError> {
        self.check(offset, data.len() as u64)?;
        tokio::time::sleep(self.delay).await;
        self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(&data);
        Ok(())
    }

    async fn zero_range(&self, range: Range<u64>) -> Result<(), DeviceError> {
        self.check(range.start, range.end - range.start)?;
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn close(self) -> Result<(), DeviceError> {
        self.closes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn serve(device: &Arc<Sectors>) -> RunningNbdServer {
    NbdServer::bind("127.0.0.1:0").export("d", device.clone()).serve().await.unwrap()
}

#[tokio::test]
async fn parts_of_sectors_are_read_and_written_without_touching_their_neighbours() {
    let device = Arc::new(Sectors::new(16));
    let server = serve(&device).await;
    let (mut client, size, flags) = Client::simple(&server, "d").await;
    assert_eq!((size, flags & (1 << 5)), (8192, 0), "no trim where it would write zeros");
    let mut model = vec![0; 8192];
    let mut write = |offset: usize, byte: u8, len: usize| {
        model[offset..offset + len].fill(byte);
        (offset as u64, vec![byte; len], model.clone())
    };
    for (offset, byte, len) in [(0, 1, 8192), (1, 2, 1), (510, 3, 4), (1024, 4, 512), (1500, 5, 3000), (8191, 6, 1)] {
        let (offset, data, expected) = write(offset, byte, len);
        assert_eq!(client.write(0, offset, &data).await, 0);
        assert!(client.read(0, 8192).await == expected);
        assert!(client.read(offset, data.len() as u32).await == data);
    }
    for (offset, len) in [(3_usize, 5_usize), (500, 600), (2000, 3000), (4096, 512)] {
        let (.., expected) = write(offset, 0, len);
        assert_eq!(client.ask(WRITE_ZEROES, 0, offset as u64, len as u32).await, 0);
        assert!(client.read(0, 8192).await == expected, "{offset} {len}");
    }
    assert_eq!(client.ask(TRIM, 0, 0, 512).await, 22, "not offered");
    assert_eq!(client.ask(WRITE_ZEROES, 16, 0, 512).await, 95, "not fast");
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn writes_of_parts_of_one_sector_at_the_same_time_all_count() {
    let device = Arc::new(Sectors { delay: Duration::from_millis(1), ..Sectors::new(2) });
    let server = serve(&device).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::simple(&server, "d").await.0);
    }
    for n in 0..64_u64 {
        let client = &mut clients[n as usize % 4];
        client.send(&[&request(WRITE, 0, n, n * 16, 16)[..], &[n as u8 + 1; 16]].concat()).await;
    }
    for n in 0..64 {
        assert_eq!(clients[n % 4].simple_reply().await.0, 0);
    }
    let expected: Vec<u8> = (0..1024).map(|at| (at / 16) as u8 + 1).collect();
    assert!(*device.bytes.lock().unwrap() == expected);
    drop(clients);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn fua_and_flush_reach_the_device_and_stopping_flushes_and_closes() {
    let device = Arc::new(Sectors::new(4));
    let closes = Arc::clone(&device.closes);
    let server = serve(&device).await;
    let (mut client, ..) = Client::simple(&server, "d").await;
    let flushes = || device.flushes.load(Ordering::SeqCst);
    assert_eq!((client.write(0, 0, &[1; 512]).await, flushes()), (0, 0));
    assert_eq!((client.write(FUA, 0, &[1; 512]).await, flushes()), (0, 1));
    assert_eq!((client.ask(FLUSH, 0, 0, 0).await, flushes()), (0, 2));
    assert_eq!((client.ask(WRITE_ZEROES, FUA, 0, 512).await, flushes()), (0, 3));
    drop((client, device));
    server.stop().await.unwrap();
    assert_eq!(closes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_error_of_the_device_is_told_with_its_text() {
    let device = Arc::new(Sectors { broken: true, ..Sectors::new(4) });
    let server = serve(&device).await;
    let (mut client, _) = Client::structured(&server, "d").await;
    for (command, len) in [(READ, 512), (WRITE_ZEROES, 1024), (READ, 1)] {
        let chunks = client.chunks(command, 0, 0, len).await;
        assert_eq!(chunks[0].1[..4], [0, 0, 0, 5]);
        assert_eq!(&chunks[0].1[6..], b"head crash: the surface is gone");
    }
    drop(client);
    server.stop().await.unwrap();
}

/// Panics when it is read.
struct Bomb;

impl BlockDevice for Bomb {
    fn capacity(&self) -> u64 {
        1 << 20
    }

    async fn read_at(&self, _: u64, _: usize) -> Result<Bytes, DeviceError> {
        panic!("a bug of the device")
    }

    async fn write_at(&self, _: u64, _: Bytes) -> Result<(), DeviceError> {
        unreachable!("it is read-only")
    }

    async fn zero_range(&self, _: Range<u64>) -> Result<(), DeviceError> {
        unreachable!("it is read-only")
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_device_that_panics_costs_one_request() {
    let server = NbdServer::bind("127.0.0.1:0").export("bomb", Arc::new(Bomb)).serve().await.unwrap();
    let (mut client, ..) = Client::simple(&server, "bomb").await;
    assert_eq!(client.ask(READ, 0, 0, 512).await, 5);
    assert_eq!(client.ask(FLUSH, 0, 0, 0).await, 0);
    assert_eq!(client.ask(WRITE_ZEROES, 0, 0, 512).await, 1, "read-only unless it says otherwise");
    drop(client);
    server.stop().await.unwrap();
}
