//! A repository in an S3 server: moto's, which `scripts/install-peers` installs.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // A list of one area is what is meant.

#[path = "../many/crowd/mod.rs"]
mod crowd;
mod server;
#[allow(dead_code)] // Shared with the other tests, which need all of it.
#[path = "../it/world.rs"]
mod world;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

use vsphere_backup::{
    CancelToken,
    engine::MemoryDisk,
    repository::{
        CreateOptions, Repository, VerifyLevel,
        storage::{
            Key, ObjectStorage, Storage, StorageErrorKind,
            cloud::{HttpOptions, S3Builder, S3Credentials},
            conformance::Conformance,
        },
    },
};
use vsphere_vim::Secret;

use crate::{
    crowd::Crowd,
    server::{BUCKET, Server},
    world::{back_up, content, sample, vm},
};

fn bucket(port: u16) -> S3Builder {
    ObjectStorage::s3(BUCKET)
        .endpoint(format!("http://127.0.0.1:{port}"))
        .credentials(S3Credentials::keys("id", Secret::new(SECRET)))
        .http(HttpOptions::default().plain(true).retries(2, Duration::from_secs(5)))
}

const SECRET: &str = "s3cr3t/with+signs";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_the_contract() {
    let Some(server) = Server::start().unwrap() else { return };
    let open = move || bucket(server.port).prefix("a/b").checksums(true).build().unwrap();
    let suite = Conformance::new().many(1050).races(8, 4).reopen(move || {
        let anew: Arc<dyn Storage> = Arc::new(open());
        async { Ok(anew) }
    });
    let port = server.port;
    let storage = Arc::new(bucket(port).prefix("a/b").build().unwrap());
    let report = suite.run(storage).await.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.kept.len(), 12, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_lives_in_it() {
    let Some(server) = Server::start().unwrap() else { return };
    let open = |prefix: &str| Arc::new(bucket(server.port).prefix(prefix).build().unwrap());
    let options = CreateOptions::default().chunk_size(world::CHUNK as u32);
    let repository = Repository::create(open("site-a"), options).await.unwrap();
    let disk = MemoryDisk::new(sample());
    let (full, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    disk.edit(|bytes| bytes[..10].fill(3));
    let (second, _) = back_up(&repository, &disk, &[0..10], Some(&full)).await.unwrap();

    let again = Repository::open(open("site-a")).await.unwrap();
    assert_eq!(again.points(&vm()).await.unwrap(), [full.id().clone(), second.id().clone()]);
    let point = again.point(second.id()).await.unwrap();
    assert!(content(&point).await.unwrap() == disk.content());
    let report = point.verify(VerifyLevel::Full, &CancelToken::new(), |_, _| {}).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let empty = Repository::open(open("site-b")).await.unwrap_err();
    assert!(matches!(empty, vsphere_backup::Error::NotARepository { .. }), "{empty:?}");
}

fn open_crowded(port: &str) -> Arc<dyn Storage> {
    let http = HttpOptions::default().plain(true).retries(4, Duration::from_secs(20));
    Arc::new(bucket(port.parse().unwrap()).prefix("crowd").http(http).build().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests run it in processes of their own"]
async fn worker() {
    crowd::work(open_crowded).await;
}

async fn crowd_in_a_bucket(length: Duration, pace: u64) {
    let Some(server) = Server::start().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = server.port.to_string();
    Crowd::new(open_crowded, &place, folder.path(), length).pace(pace).run().await.assert_telling(length);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_leave_every_committed_point_whole() {
    crowd_in_a_bucket(Duration::from_secs(8), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute and more"]
async fn for_a_minute_processes_that_are_killed_leave_every_committed_point_whole() {
    crowd_in_a_bucket(Duration::from_secs(60), 3).await;
}

/// Answers every request with one status.
fn answering(status: &'static str) -> u16 {
    answering_by(move |_| (status, ""))
}

/// Answers every request with a status and a body by its method.
fn answering_by(answer: impl Fn(&str) -> (&'static str, &'static str) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let len = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            let (status, body) = answer(request.split(' ').next().unwrap_or_default());
            let len = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}");
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    port
}

#[tokio::test]
async fn what_a_store_refuses_is_told_by_kind_and_without_secrets() {
    let key = Key::parse("packs/x").unwrap();
    // Asked for last: a port that was let go before could be given to one of the servers.
    let refused = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (port, kind) in [
        (answering("503 Slow Down"), StorageErrorKind::Unavailable),
        (answering("429 Too Many Requests"), StorageErrorKind::Unavailable),
        (answering("507 Insufficient Storage"), StorageErrorKind::Full),
        (answering("403 Forbidden"), StorageErrorKind::PermissionDenied),
        (answering("404 Not Found"), StorageErrorKind::NotFound),
        (answering("400 Bad Request"), StorageErrorKind::Other),
        (refused(), StorageErrorKind::Unavailable),
    ] {
        let storage = bucket(port).http(HttpOptions::default().plain(true).retries(1, Duration::from_secs(1)));
        let storage = storage.build().unwrap();
        let error = storage.get(&key, 10).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error:?}");
        let error = storage.put(&key, vec!["x".into()]).await.unwrap_err();
        if kind != StorageErrorKind::NotFound {
            assert_eq!(error.kind, kind, "{error:?}");
        }
        let told = format!("{error:?} {storage:?}");
        assert!(!told.contains(SECRET), "{told}");
    }
}

#[tokio::test]
async fn a_store_that_refuses_to_delete_is_told_as_such() {
    // As Amazon answers one who may write and not delete.
    let answer = |method: &str| match method {
        "DELETE" => ("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
        _ => (
            "200 OK",
            "<DeleteResult><Error><Key>packs/x</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>\
             </DeleteResult>",
        ),
    };
    let storage = bucket(answering_by(answer)).build().unwrap();
    let error = storage.delete(&Key::parse("packs/x").unwrap()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::PermissionDenied, "{error:?}");
}

#[test]
fn options_show_no_secrets_and_bad_ones_are_refused() {
    let builder = bucket(1);
    assert!(!format!("{builder:?}").contains(SECRET), "{builder:?}");
    assert!(bucket(1).prefix("a//b").build().is_err());
    let trust = HttpOptions::default().trust_only("no certificate");
    assert!(bucket(1).http(trust).build().is_err());
}
