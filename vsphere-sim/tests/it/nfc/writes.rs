//! Row 17: writes, and what is known of them when something goes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vsphere_nfc::{Error, Mode};

use super::compression::WISHES;
use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_bytes_are_read_back_and_flushed_at_close() {
    for wish in WISHES {
        let host = Host::writing(MemoryDisk::new(64 * MIB)).await;
        let disk = host.open(Mode::ReadWrite, patient().compression(wish)).await.unwrap();
        let data = Bytes::from([pattern(512, 5 * MIB), vec![7; MIB as usize]].concat());
        disk.write_at(512, data.clone()).await.unwrap();
        assert!(disk.read_at(512, data.len()).await.unwrap() == data);
        assert!(host.disk.bytes(512..512 + 6 * MIB) == data);
        assert_eq!(host.server.counters().file(PATH).written, 6 * MIB);
        // What the server says about allocation may be stale now.
        assert!(matches!(disk.query_allocated(0..MIB, CHUNK).await, Err(Error::InvalidRequest { .. })));
        assert_eq!(host.disk.flushes.load(Ordering::SeqCst), 0);
        disk.close().await.unwrap();
        assert_eq!(host.disk.flushes.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_writes_take_effect_in_the_order_they_were_made() {
    let host = Host::writing(MemoryDisk::new(MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadWrite, patient().buffers(64 * 1024, 8)).await.unwrap());
    for round in 0..20u8 {
        let both = tokio::join!(
            disk.write_at(0, Bytes::from(vec![round; 128 * 1024])),
            disk.write_at(64 * 1024, Bytes::from(vec![round + 100; 128 * 1024])),
        );
        both.0.unwrap();
        both.1.unwrap();
        let read = disk.read_at(0, 192 * 1024).await.unwrap();
        assert!(read[..64 * 1024].iter().all(|byte| *byte == round));
        assert!(read[64 * 1024..].iter().all(|byte| *byte == round + 100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_write_is_never_reported_as_done_and_names_the_range() {
    let host = Host::writing(MemoryDisk::new(8 * MIB)).await;
    let disk = host.open(Mode::ReadWrite, patient()).await.unwrap();
    *host.disk.fail_writes_at.lock().unwrap() = Some(2 * MIB..2 * MIB + 1);
    let error = disk.write_at(0, Bytes::from(vec![1; 4 << 20])).await.unwrap_err();
    let Error::WriteInDoubt { range, source, .. } = &error else { panic!("{error}") };
    assert!(range.start <= 2 * MIB && range.end == 4 * MIB, "{range:?}");
    assert!(matches!(**source, Error::Server { .. } | Error::Disconnected { .. }), "{source}");
    // No silent new connection on a handle for writing.
    let error = disk.write_at(0, Bytes::from(vec![1; 512])).await.unwrap_err();
    assert!(matches!(error, Error::WriteInDoubt { .. } | Error::Disconnected { .. }), "{error}");
    assert_eq!(host.server.counters().connections_total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full_in_the_middle_of_many_writes_leaves_none_of_them_reported_as_done() {
    let host = Host::writing(MemoryDisk::new(64 * MIB)).await;
    *host.disk.fail_writes_at.lock().unwrap() = Some(5 * MIB..5 * MIB + 1);
    let disk = Arc::new(host.open(Mode::ReadWrite, patient().buffers(64 * 1024, 4)).await.unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for at in 0..16 {
        let disk = Arc::clone(&disk);
        writers.spawn(async move { (at, disk.write_at(at * MIB, Bytes::from(pattern(at * MIB, MIB))).await) });
    }
    let mut failed = 0;
    while let Some(done) = writers.join_next().await {
        let (at, result) = done.unwrap();
        match result {
            // A success is a promise.
            Ok(()) => assert!(host.disk.bytes(at * MIB..(at + 1) * MIB) == pattern(at * MIB, MIB), "{at}"),
            Err(Error::WriteInDoubt { range, .. }) => {
                assert!(range.start >= at * MIB && range.end == (at + 1) * MIB, "{at}: {range:?}");
                failed += 1;
            }
            // Nothing of it was sent.
            Err(Error::Disconnected { .. }) => failed += 1,
            Err(other) => panic!("{at}: {other:?}"),
        }
    }
    assert!(failed > 0);
    assert!(matches!(Arc::into_inner(disk).unwrap().close().await, Err(Error::Disconnected { .. })));
    assert_eq!(host.server.counters().connections_total(), 1);
    host.assert_no_connections().await;
}
