//! A healthy session: whole disks, many callers, cancellation.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use vsphere_nfc::{Buffers, Channel, Mode};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_disk_reads_back_over_tls_and_in_clear() {
    let host = Host::reading(MemoryDisk::filled(9 * MIB + 512, 9 * MIB)).await;
    for channel in [Channel::Tls, Channel::Clear] {
        let disk = host.open(Mode::ReadOnly, patient().channel(channel)).await.unwrap();
        assert_eq!(disk.capacity(), 9 * MIB + 512);
        assert_eq!(disk.sector_size(), 512);
        assert_eq!(disk.geometry().heads, 255);
        let info = disk.session_info();
        assert_eq!(info.server_version, 11);
        assert_eq!(info.buffers, Buffers { size: 1 << 20, count: 4 });
        assert_eq!(info.tls_version.is_some(), channel == Channel::Tls);
        let all = disk.read_at(0, (9 * MIB + 512) as usize).await.unwrap();
        assert!(all == host.disk.bytes(0..9 * MIB + 512));
        disk.close().await.unwrap();
    }
    host.assert_no_connections().await;
    let counters = host.server.counters();
    assert_eq!(counters.connections_total(), 2);
    assert_eq!(counters.file(PATH).read, 2 * (9 * MIB + 512));
    assert!(counters.most_in_flight() > 1, "reads were not pipelined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_reads_neither_disturb_others_nor_leak_budget() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadOnly, patient().buffers(64 * 1024, 2)).await.unwrap());
    host.server.configure(|config| config.delay = Duration::from_millis(1));
    for round in 0..50u64 {
        let waiting = disk.read_at(0, MIB as usize);
        let _ = tokio::time::timeout(Duration::from_micros(round * 100), waiting).await;
        let at = round * 512;
        assert!(disk.read_at(at, 512).await.unwrap() == pattern(at, 512));
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    Arc::into_inner(disk).unwrap().close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffer_of_the_caller_is_used_again() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let buffer = BytesMut::with_capacity(3 << 20);
    let place = buffer.as_ptr();
    let buffer = disk.read_into(0, 3 << 20, buffer).await.unwrap();
    assert_eq!(buffer.as_ptr(), place, "the bytes were moved");
    assert!(buffer == pattern(0, 3 * MIB));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_callers_share_one_connection_within_the_budget() {
    let host = Host::reading(MemoryDisk::filled(16 * MIB, 16 * MIB)).await;
    let disk = Arc::new(host.open(Mode::ReadOnly, patient().buffers(64 * 1024, 4)).await.unwrap());
    let mut readers = tokio::task::JoinSet::new();
    for at in 0..1000u64 {
        let disk = Arc::clone(&disk);
        readers.spawn(async move {
            let offset = at * 16384;
            assert!(disk.read_at(offset, 16384).await.unwrap() == pattern(offset, 16384));
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
    assert_eq!(host.server.counters().connections_total(), 1);
    assert!(host.server.counters().most_in_flight() <= 16);
}
