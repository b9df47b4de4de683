//! Rows 18 and 19: allocation queries and the disk database.

use vsphere_nfc::{Error, Mode, Phase};
use vsphere_sim::nfc::{AllocationAnswers, NfcFile, NfcServerConfig};

use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allocation_is_merged_clipped_and_paged_and_the_tail_counts_as_allocated() {
    let tail = 4 * CHUNK + 512;
    let host = Host::reading(MemoryDisk::new(MIB * 64 + tail)).await;
    for at in [0, 1, 5, 1023] {
        host.disk.write_at(at * CHUNK, b"x").unwrap();
    }
    let mut options = patient();
    options.allocation_page = 100;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    let capacity = disk.capacity();
    let end = 64 * MIB + 4 * CHUNK;
    assert_eq!(
        disk.query_allocated(0..capacity, CHUNK).await.unwrap(),
        [0..2 * CHUNK, 5 * CHUNK..6 * CHUNK, 1023 * CHUNK..1024 * CHUNK, end..end + 512]
    );
    assert_eq!(
        disk.query_allocated(512..5 * CHUNK + 1, CHUNK).await.unwrap(),
        [512..2 * CHUNK, 5 * CHUNK..5 * CHUNK + 1]
    );
    // A larger grid: every chunk that has something in it, and a longer tail.
    assert_eq!(disk.query_allocated(0..capacity, MIB).await.unwrap(), [0..MIB, 63 * MIB..capacity]);
    assert_eq!(disk.query_allocated(7 * MIB..8 * MIB, MIB).await.unwrap(), []);
    for (range, chunk) in [(0..capacity + 1, CHUNK), (0..512, 512), (0..512, CHUNK + 1)] {
        assert!(matches!(disk.query_allocated(range, chunk).await, Err(Error::InvalidRequest { .. })));
    }
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_found_or_none() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.metadata("adapterType").await.unwrap().as_deref(), Some("lsilogic"));
    assert_eq!(disk.metadata("comment").await.unwrap().unwrap().len(), 4096);
    assert_eq!(disk.metadata("uuid").await.unwrap(), None);
    assert!(matches!(disk.metadata("").await, Err(Error::InvalidRequest { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_allocation_query_does_not_stop_later_reads() {
    let mut config = NfcServerConfig::default();
    config.allocation = AllocationAnswers::Refused;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let error = disk.query_allocated(0..MIB, CHUNK).await.unwrap_err();
    assert!(matches!(error, Error::Server { phase: Phase::QueryAllocated, .. }), "{error}");
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_text_whatever_bytes_they_have_and_missing_keys_are_none() {
    let mut disk = MemoryDisk::new(MIB);
    for (key, value) in [("uuid", "60 00 C2 9a"), ("größe", "\u{1F4BE} disk"), ("long", &*"v".repeat(4096))] {
        disk.ddb.insert(key.to_owned(), value.to_owned());
    }
    let host = Host::reading(disk).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.metadata("größe").await.unwrap().as_deref(), Some("\u{1F4BE} disk"));
    assert_eq!(disk.metadata("long").await.unwrap().unwrap().len(), 4096);
    let absent = tokio::join!(disk.metadata("sidecars"), disk.metadata("UUID"), disk.metadata("uuid "));
    assert_eq!((absent.0.unwrap(), absent.1.unwrap(), absent.2.unwrap()), (None, None, None));
    disk.close().await.unwrap();
}
