//! Row 13: disks of odd and huge sizes.

use bytes::Bytes;
use vsphere_nfc::{Error, Mode};
use vsphere_sim::nfc::NfcFile;

use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::{Host, PATH, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_of_62_tib_has_64_bit_offsets_everywhere() {
    let capacity = 68_169_720_922_112;
    let host = Host::reading(MemoryDisk::new(capacity)).await;
    let last = capacity - MIB;
    host.disk.write_at(last, &pattern(last, MIB)).unwrap();
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.capacity(), capacity);
    assert!(disk.read_at(last, MIB as usize).await.unwrap() == pattern(last, MIB));
    let allocated = disk.query_allocated(last - MIB..capacity, CHUNK).await.unwrap();
    assert_eq!(allocated, vec![last..capacity; 1]);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_disk_and_sector_sizes_0_and_4096_work() {
    let host = Host::reading(MemoryDisk::new(0)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert!(disk.read_at(0, 0).await.unwrap().is_empty());
    assert_eq!(disk.query_allocated(0..0, CHUNK).await.unwrap(), []);
    disk.close().await.unwrap();
    for (told, meant) in [(0, 512), (4096, 4096)] {
        let host = Host::reading(MemoryDisk { sector_size: told, ..MemoryDisk::filled(MIB, MIB) }).await;
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        assert_eq!(disk.sector_size(), meant);
        assert!(disk.read_at(4096, 4096).await.unwrap() == pattern(4096, 4096));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misaligned_and_out_of_range_requests_are_refused_before_sending() {
    let host = Host::writing(MemoryDisk::new(MIB)).await;
    let disk = host.open(Mode::ReadWrite, patient()).await.unwrap();
    for (offset, len) in [(1, 512), (0, 511), (MIB, 512), (u64::MAX - 511, 512), (u64::MAX - 511, 1024)] {
        assert!(matches!(disk.read_at(offset, len).await, Err(Error::InvalidRequest { .. })), "{offset}+{len}");
        let data = Bytes::from(vec![0; len]);
        assert!(matches!(disk.write_at(offset, data).await, Err(Error::InvalidRequest { .. })));
    }
    assert_eq!(host.server.counters().file(PATH).read, 0);
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_of_a_sector_a_tail_and_two_tebibytes_are_read_to_their_last_sector() {
    for capacity in [512, CHUNK + 512, 3 * MIB - 512, 2 << 40, (2 << 40) + 512] {
        let host = Host::writing(MemoryDisk::new(capacity)).await;
        let disk = host.open(Mode::ReadWrite, patient()).await.unwrap();
        assert_eq!(disk.capacity(), capacity);
        let last = capacity - 512;
        disk.write_at(last, Bytes::from(pattern(last, 512))).await.unwrap();
        assert!(disk.read_at(last, 512).await.unwrap() == pattern(last, 512));
        assert!(matches!(disk.read_at(last, 1024).await, Err(Error::InvalidRequest { .. })));
        disk.close().await.unwrap();
        let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
        let tail = last.saturating_sub(CHUNK) / CHUNK * CHUNK;
        let allocated = disk.query_allocated(tail..capacity, CHUNK).await.unwrap();
        assert_eq!(allocated.last().unwrap().end, capacity);
        disk.close().await.unwrap();
    }
}
