//! Every command and flag, as the protocol says.

use vixdisklib::{
    Access,
    nbd::{Export, NbdLimits, NbdServer},
};

use super::{
    Chain, MIB,
    client::{
        BLOCK_STATUS, CACHE, Client, DF, DISC, FAST_ZERO, FLUSH, FUA, NO_HOLE, READ, REQ_ONE, TRIM, WRITE,
        WRITE_ZEROES, request,
    },
    noise,
};

const INVALID: u32 = 22;

#[tokio::test]
async fn old_clients_read_and_write_with_simple_replies() {
    let chain = Chain::new();
    let server = chain.serve(Access::ReadWrite).await;
    let (mut client, size, flags) = Client::simple(&server, "top").await;
    // Flags, flush, FUA, trim, zeros, several connections, cache, fast zeros; no DF without structured replies.
    assert_eq!((size, flags), (16 * MIB, 0b1101_0110_1101));
    assert_eq!(client.read(MIB - 10, 100_000).await, chain.content[MIB as usize - 10..][..100_000]);
    assert_eq!(client.write(FUA, 77, b"odd").await, 0);
    assert_eq!(client.read(76, 5).await, b"\0odd\0");
    assert_eq!(client.ask(TRIM, FUA, 0, 65536).await, 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0).await, 0);
    assert_eq!(client.ask(CACHE, 0, 0, 1 << 20).await, 0);
    assert_eq!(client.ask(WRITE_ZEROES, NO_HOLE | FUA, MIB + 1, 9).await, 0);
    assert_eq!(
        client.read(MIB, 11).await[..],
        [&chain.content[MIB as usize..][..1], &[0; 9], &chain.content[MIB as usize + 10..][..1]].concat()
    );
    assert_eq!(client.ask(WRITE_ZEROES, FAST_ZERO, 0, 512).await, 0);
    assert_eq!(client.ask(WRITE_ZEROES, FAST_ZERO | NO_HOLE, 0, 512).await, 95);
    assert_eq!(client.ask(BLOCK_STATUS, 0, 0, 512).await, INVALID, "no context was chosen");
    assert_eq!(client.ask(READ, DF, 0, 512).await, INVALID, "not offered");
    client.request(DISC, 0, 0, 0, 0).await;
    assert!(client.is_hung_up_on().await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn holes_travel_as_holes() {
    let chain = Chain::new();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let server = chain.serve(access).await;
        let (mut client, _) = Client::structured(&server, "top").await;
        let chunks = client.chunks(READ, 0, 0, 2 << 20).await;
        let mut read = vec![9; 2 << 20];
        for (kind, payload) in &chunks {
            let at = u64::from_be_bytes(payload[..8].try_into().unwrap()) as usize;
            match kind {
                1 => read[at..at + payload.len() - 8].copy_from_slice(&payload[8..]),
                2 => read[at..at + u32::from_be_bytes(payload[8..].try_into().unwrap()) as usize].fill(0),
                other => panic!("{other}"),
            }
        }
        assert!(read == chain.content[..2 << 20], "{access:?}");
        let sent: usize = chunks.iter().map(|(_, payload)| payload.len()).sum();
        assert!(sent < 800_000, "{access:?}: {sent} bytes for 634464 of data");
        let whole = client.chunks(READ, DF, MIB, 200_000).await;
        assert_eq!(whole.len(), 1);
        assert!(whole[0].1[8..] == chain.content[MIB as usize..][..200_000]);
        assert_eq!(client.chunks(READ, 0, 4096, 0).await, [(0, Vec::new())]);
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_read_only_export_shows_what_is_written_through_another_one() {
    let chain = Chain::new();
    let disk = chain.open(Access::ReadWrite).await;
    let look = Export::new("look", disk.clone()).read_only();
    let server = NbdServer::bind("127.0.0.1:0").export("top", disk).export_as(look).serve().await.unwrap();
    let (mut looking, _) = Client::structured(&server, "look").await;
    // A hole, which is nothing to remember here.
    assert_eq!(looking.chunks(BLOCK_STATUS, 0, 8 * MIB, 65536).await[0].1[8..], [0, 0, 0, 3]);
    let (mut writing, ..) = Client::simple(&server, "top").await;
    let written = noise(65536, 5);
    assert_eq!(writing.write(0, 8 * MIB, &written).await, 0);
    assert!(looking.chunks(READ, DF, 8 * MIB, 65536).await[0].1[8..] == written);
    assert_eq!(looking.chunks(BLOCK_STATUS, 0, 8 * MIB, 65536).await[0].1[8..], [0, 0, 0, 0]);
    drop((looking, writing));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn extents_begin_where_asked_and_one_is_one() {
    let chain = Chain::new();
    let server = chain.serve(Access::ReadWrite).await;
    let (mut client, _) = Client::structured(&server, "top").await;
    let status = client.chunks(BLOCK_STATUS, 0, MIB - 5, 10).await;
    assert_eq!(status, [(5, [1_u32, 5, 3, 5, 0].map(u32::to_be_bytes).concat())]);
    let one = client.chunks(BLOCK_STATUS, REQ_ONE, 0, 16 << 20).await;
    assert_eq!(one, [(5, [1_u32, 1 << 20, 3].map(u32::to_be_bytes).concat())]);
    // What is written shows at once.
    client.send(&[&request(WRITE, 0, 9, 0, 3)[..], b"abc"].concat()).await;
    assert_eq!(client.chunks(BLOCK_STATUS, REQ_ONE, 0, 16 << 20).await[0].0, 0, "the write's own reply");
    let mut reply = [0; 20 + 12];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut reply).await.unwrap();
    assert_eq!(reply[24..], [65536_u32, 0].map(u32::to_be_bytes).concat());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn mistakes_are_told_with_number_and_reason_and_the_connection_lives_on() {
    let chain = Chain::new();
    let limits = NbdLimits::default().memory(1 << 20, 2 << 20);
    let disk = chain.open(Access::ReadWrite).await;
    let server = NbdServer::bind("127.0.0.1:0").export("top", disk).limits(limits).serve().await.unwrap();
    let (mut client, _) = Client::structured(&server, "top").await;
    let end = 16 * MIB;
    for (command, flags, offset, len, errno) in [
        (READ, 0, end, 1, 22),
        (READ, 0, u64::MAX, u32::MAX, 22),
        (READ, 0, 0, (1 << 20) + 1, 22),
        (READ, DF, 0, (1 << 20) + 1, 75),
        (READ, NO_HOLE, 0, 512, 22),
        (TRIM, 0, end - 1, 2, 28),
        (WRITE_ZEROES, REQ_ONE, 0, 512, 22),
        (WRITE_ZEROES, 0, end, 1, 28),
        (BLOCK_STATUS, 0, 0, 0, 22),
        (FLUSH, 0, 5, 0, 22),
        (4711, 0, 0, 0, 22),
    ] {
        let chunks = client.chunks(command, flags, offset, len).await;
        assert_eq!(chunks[0].0, 0x8001, "{command} {flags} {offset} {len}");
        assert_eq!(chunks[0].1[..4], u32::to_be_bytes(errno), "{command} {flags} {offset} {len}");
        assert!(chunks[0].1.len() > 16, "there is a reason");
    }
    // The data of writes that are refused is read past.
    for (offset, len, errno) in [(end - 1, 2, 28_u32), (0, 3 << 20, 22)] {
        client.send(&request(WRITE, 0, 9, offset, len)).await;
        client.send(&vec![7; len as usize]).await;
        assert_eq!(client.chunks(READ, 0, 0, 0).await[0].1[..4], errno.to_be_bytes());
        let mut done = [0; 20];
        tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut done).await.unwrap();
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_served_side_by_side_and_replies_carry_their_cookies() {
    let chain = Chain::new();
    let server = chain.serve(Access::ReadOnly).await;
    let (mut client, ..) = Client::simple(&server, "top").await;
    let all: Vec<u8> = (0..500).flat_map(|n| request(READ, 0, n, (n % 16) * MIB, 1000)).collect();
    client.send(&all).await;
    let mut seen = vec![false; 500];
    for _ in 0..500 {
        let (errno, cookie) = client.simple_reply().await;
        assert_eq!(errno, 0);
        let mut data = [0; 1000];
        tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut data).await.unwrap();
        assert!(data[..] == chain.content[((cookie % 16) * MIB) as usize..][..1000]);
        assert!(!std::mem::replace(&mut seen[cookie as usize], true));
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_flushed_write_is_there_when_the_server_is_gone_without_a_word() {
    let chain = Chain::new();
    let server = chain.serve(Access::ReadWrite).await;
    let (mut client, ..) = Client::simple(&server, "top").await;
    let data = noise(100_000, 8);
    assert_eq!(client.write(0, 7 * MIB, &data).await, 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0).await, 0);
    // Neither stopped nor closed: what a crash leaves, as far as one process can tell.
    let copy = tempfile::tempdir().unwrap();
    for name in ["base.vmdk", "child.vmdk", "top.vmdk"] {
        std::fs::copy(chain.path(name), copy.path().join(name)).unwrap();
    }
    let disk = vmdk::Disk::open(copy.path().join("top.vmdk"), &vmdk::OpenOptions::new()).unwrap();
    let mut read = vec![0; data.len()];
    disk.read_at(7 * MIB, &mut read).unwrap();
    assert!(read == data);
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way_and_closes_only_what_nobody_else_has() {
    let chain = Chain::new();
    let disk = chain.open(Access::ReadWrite).await;
    let server = NbdServer::bind("127.0.0.1:0").export("top", disk.clone()).serve().await.unwrap();
    let (mut client, ..) = Client::simple(&server, "top").await;
    let data = noise(2 << 20, 4);
    assert_eq!(client.write(0, 2 * MIB, &data).await, 0);
    assert_eq!(server.connections(), 1);
    server.stop().await.unwrap();
    assert!(client.is_hung_up_on().await);
    assert!(disk.read_at(2 * MIB, data.len()).await.unwrap() == data, "still open here");
    std::sync::Arc::into_inner(disk).unwrap().close().await.unwrap();
}
