//! Clients that break the rules, stand still or vanish.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use vixdisklib::{
    Access,
    nbd::{NbdLimits, NbdServer, RunningNbdServer},
};

use super::{
    Chain, MIB,
    client::{Client, READ, WRITE, request},
    noise,
};

async fn serve(chain: &Chain, access: Access, limits: NbdLimits) -> RunningNbdServer {
    let disk = chain.open(access).await;
    NbdServer::bind("127.0.0.1:0").export("top", disk).limits(limits).serve().await.unwrap()
}

/// The server still serves others.
async fn assert_alive(server: &RunningNbdServer, chain: &Chain) {
    let (mut client, ..) = Client::simple(server, "top").await;
    assert_eq!(client.read(MIB, 512).await, chain.content[MIB as usize..][..512]);
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let chain = Chain::new();
    let server = serve(&chain, Access::ReadOnly, NbdLimits::default()).await;
    let long_option = [&[0, 0, 0, 3][..], b"IHAVEOPT\0\0\0\x07", &[0xff; 4]].concat();
    for nonsense in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 0xff], &[&[0, 0, 0, 3][..], &[7; 16]].concat(), &long_option]
    {
        let mut client = Client::connect(&server).await;
        client.send(nonsense).await;
        assert!(client.is_hung_up_on().await);
    }
    let (mut client, ..) = Client::simple(&server, "top").await;
    client.send(&[0x42; 28]).await;
    assert!(client.is_hung_up_on().await);
    assert_alive(&server, &chain).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_negotiates_is_hung_up_on() {
    let chain = Chain::new();
    let limits = NbdLimits::default().handshake(Duration::from_millis(200)).connections(1);
    let server = serve(&chain, Access::ReadOnly, limits).await;
    let mut slow = Client::connect(&server).await;
    slow.send(&[0, 0]).await;
    // There is one place, and this client waits for it.
    assert_alive(&server, &chain).await;
    assert!(slow.is_hung_up_on().await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn half_a_write_is_no_write() {
    let chain = Chain::new();
    let server = serve(&chain, Access::ReadWrite, NbdLimits::default()).await;
    let (mut client, ..) = Client::simple(&server, "top").await;
    client.send(&request(WRITE, 0, 1, MIB, 100_000)).await;
    client.send(&noise(60_000, 7)).await;
    drop(client);
    let (mut client, ..) = Client::simple(&server, "top").await;
    assert_eq!(client.read(MIB, 100_000).await, chain.content[MIB as usize..][..100_000]);
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_listen_stops_itself_and_nobody_else() {
    let chain = Chain::new();
    let limits = NbdLimits::default().memory(1 << 20, 2 << 20).stop(Duration::from_millis(200));
    let server = serve(&chain, Access::ReadOnly, limits).await;
    let (mut deaf, ..) = Client::simple(&server, "top").await;
    // 20 GiB of replies, of which not one is read. They are data: holes would not fill anything here either.
    for n in 0..20 {
        let requests: Vec<u8> = (0..1000).flat_map(|m| request(READ, 0, n * 1000 + m, 15 * MIB, 1 << 20)).collect();
        if tokio::time::timeout(Duration::from_millis(100), deaf.send(&requests)).await.is_err() {
            break;
        }
    }
    assert_alive(&server, &chain).await;
    let begun = std::time::Instant::now();
    server.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "cut off after its time");
}

#[tokio::test]
async fn a_client_that_stops_sending_and_never_listens_loses_its_place() {
    let chain = Chain::new();
    let limits = NbdLimits::default().connections(1).stop(Duration::from_millis(200));
    let server = serve(&chain, Access::ReadOnly, limits).await;
    let (mut deaf, ..) = Client::simple(&server, "top").await;
    // More than any socket buffers.
    for n in 0..48 {
        deaf.send(&request(READ, 0, n, 15 * MIB, 1 << 20)).await;
    }
    deaf.stream.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), assert_alive(&server, &chain)).await.unwrap();
    drop(deaf);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_before_listening() {
    let chain = Chain::new();
    let disk = chain.open(Access::ReadOnly).await;
    let bind = || NbdServer::bind("127.0.0.1:0");
    let long = "x".repeat(5000);
    for (server, problem) in [
        (bind(), "nothing to serve"),
        (bind().export("a", disk.clone()).export("a", disk.clone()), "same name"),
        (bind().export(long, disk.clone()), "4096"),
        (bind().export("a", disk.clone()).limits(NbdLimits::default().requests(0)), "one request"),
        (NbdServer::bind("127.0.0.1:99999").export("a", disk.clone()), ""),
    ] {
        let error = server.serve().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(problem), "{error}: {cause}");
    }
}
