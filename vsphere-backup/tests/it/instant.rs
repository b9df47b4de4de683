//! Instant access: recovery points as disks, read and written over, served to clients of others.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;
use vixdisklib::nbd::{NbdServer, RunningNbdServer};
use vsphere_backup::{
    CancelToken, Error, FileFormat,
    engine::MemoryDisk,
    instant::{InstantDisk, InstantOptions, Overlay},
    repository::{RecoveryPoint, storage::MemoryStorage},
};

use crate::{
    support::{outcome, peer, run},
    world::{CHUNK, back_up, content, noise, repository, sample},
};

async fn point() -> (Arc<MemoryStorage>, RecoveryPoint) {
    let (storage, repository) = repository().await;
    let disk = MemoryDisk::new(sample());
    let (point, _) = back_up(&repository, &disk, &[0..sample().len() as u64], None).await.unwrap();
    (storage, point)
}

async fn read(disk: &InstantDisk) -> Vec<u8> {
    disk.disk().read_at(0, sample().len()).await.unwrap().to_vec()
}

/// Waits until nobody holds a lease: some are given back in the background.
async fn no_leases(storage: &MemoryStorage) {
    for _ in 0..100 {
        if !storage.keys().iter().any(|key| key.is_below("leases")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a lease stays: {:?}", storage.keys());
}

#[tokio::test]
async fn a_point_reads_as_the_disk_it_was_at_any_place_and_cannot_be_written() {
    let (storage, point) = point().await;
    no_leases(&storage).await;
    let open = point.open_disk(2000, InstantOptions::read_only().cache(CHUNK)).await.unwrap();
    let disk = open.disk().clone();
    assert!(storage.keys().iter().any(|key| key.is_below("leases")), "the point is pinned");
    for (offset, len) in [(0, 1), (1, 70_000), (CHUNK - 1, 2), (699_999, 300_002), (3 * 1024 * 1024 - 5, 1541)] {
        let bytes = disk.read_at(offset, len).await.unwrap();
        assert!(bytes == sample()[offset as usize..][..len], "{len} bytes at {offset}");
    }
    assert!(read(&open).await == sample());
    let allocated = disk.allocated(0..disk.capacity()).await.unwrap();
    assert!(!allocated.is_assumed() && allocated.total() < disk.capacity() * 2 / 3, "{allocated:?}");
    assert!(disk.write_at(0, vec![1].into()).await.is_err());
    assert!(matches!(point.open_disk(2001, InstantOptions::read_only()).await, Err(Error::DiskNotFound { .. })));
    drop(disk);
    open.close().await.unwrap();
    no_leases(&storage).await;
}

#[tokio::test]
async fn many_readers_of_one_chunk_fetch_it_once() {
    let (storage, point) = point().await;
    let open = point.open_disk(2000, InstantOptions::read_only()).await.unwrap();
    read(&open).await;
    // All that is kept is read from memory: the packs may as well be gone.
    for key in storage.keys().into_iter().filter(|key| key.is_below("packs")) {
        storage.tamper(&key, None);
    }
    assert!(read(&open).await == sample());
    let uncached = point.open_disk(2000, InstantOptions::read_only().pin(false)).await.unwrap();
    assert!(uncached.disk().read_at(0, 512).await.is_err());
}

#[tokio::test]
async fn damage_is_an_error_of_the_read_that_meets_it() {
    let (storage, point) = point().await;
    let pack = storage.keys().into_iter().find(|key| key.is_below("packs")).unwrap();
    let mut bytes = storage.object(&pack).unwrap().to_vec();
    bytes[5000] ^= 1;
    storage.tamper(&pack, Some(bytes.into()));
    let open = point.open_disk(2000, InstantOptions::read_only()).await.unwrap();
    let mut failures = 0;
    for (at, expected) in sample().chunks(CHUNK as usize).enumerate() {
        match open.disk().read_at(at as u64 * CHUNK, expected.len()).await {
            Ok(bytes) => assert!(bytes == *expected),
            Err(_) => failures += 1,
        }
    }
    assert_eq!(failures, 1);
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, u8),
    Zero(u64, u64),
    Read(u64, u64),
    Discard,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0..sample().len() as u64, prop_oneof![1_u64..600, 4096_u64..200_000]);
    let aligned = |(at, len): (u64, u64)| (at / 4096 * 4096, len.div_ceil(4096) * 4096);
    let op = prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|((at, len), seed)| Op::Write(at, len, seed)),
        2 => (range().prop_map(aligned), any::<u8>()).prop_map(|((at, len), seed)| Op::Write(at, len, seed)),
        3 => range().prop_map(|(at, len)| Op::Zero(at, len)),
        3 => range().prop_map(|(at, len)| Op::Read(at, len)),
        1 => Just(Op::Discard),
    ];
    proptest::collection::vec(op, 1..25)
}

/// Does the same to a disk and to plain bytes.
async fn play(point: &RecoveryPoint, ops: Vec<Op>, overlay: Overlay) {
    let open = point.open_disk(2000, InstantOptions::copy_on_write(overlay).cache(0).pin(false)).await.unwrap();
    let (disk, mut model) = (open.disk(), sample());
    let len = |at: u64, len: u64| len.min(sample().len() as u64 - at) as usize;
    for op in ops {
        match op {
            Op::Write(at, bytes, seed) => {
                let data = noise(seed.into(), len(at, bytes) as u64);
                model[at as usize..][..data.len()].copy_from_slice(&data);
                disk.write_at(at, data.into()).await.unwrap();
            }
            Op::Zero(at, bytes) => {
                model[at as usize..][..len(at, bytes)].fill(0);
                disk.zero_range(at..at + len(at, bytes) as u64).await.unwrap();
            }
            Op::Read(at, bytes) => {
                let bytes = disk.read_at(at, len(at, bytes)).await.unwrap();
                assert!(bytes == model[at as usize..][..bytes.len()]);
            }
            Op::Discard => {
                open.discard_changes().await.unwrap();
                model = sample();
                assert_eq!((open.changed(), open.overlay_bytes()), (vec![], 0));
            }
        }
    }
    assert!(read(&open).await == model);
    // What is not allocated reads as zeros, and what is not said to be changed is the point's.
    let mut rebuilt = vec![0; model.len()];
    for area in disk.allocated(0..disk.capacity()).await.unwrap().areas {
        let area = area.start as usize..area.end as usize;
        rebuilt[area.clone()].copy_from_slice(&model[area]);
    }
    assert!(rebuilt == model, "a hole holds data");
    for range in open.changed() {
        let range = range.start as usize..range.end as usize;
        model[range.clone()].copy_from_slice(&sample()[range]);
    }
    assert!(model == sample(), "a change is not told of");
    assert!(content(point).await.unwrap() == sample(), "the point is as it was");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_written_over_a_point_is_read_and_the_point_stays(ops in ops(), in_file in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_, point) = point().await;
            let folder = TempDir::new().unwrap();
            let overlay = if in_file { Overlay::Folder(folder.path().into()) } else { Overlay::in_memory() };
            play(&point, ops, overlay).await;
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the overlay has no name");
        });
    }
}

#[tokio::test]
async fn an_overlay_in_memory_is_full_at_its_limit_and_takes_writes_again_after_zeros() {
    let (_, point) = point().await;
    let options = InstantOptions::copy_on_write(Overlay::Memory { limit: 8192 });
    let open = point.open_disk(2000, options).await.unwrap();
    open.disk().write_at(0, noise(1, 8192).into()).await.unwrap();
    let full = open.disk().write_at(65_536, noise(1, 100).into()).await.unwrap_err();
    assert!(vixdisklib::nbd::DeviceError::from(full).kind() == vixdisklib::nbd::DeviceErrorKind::NoSpace);
    open.disk().zero_range(0..4096).await.unwrap();
    open.disk().write_at(65_536, noise(1, 100).into()).await.unwrap();
    assert_eq!(open.overlay_bytes(), 8192);
    let gone = InstantOptions::copy_on_write(Overlay::Folder("/nonexistent".into()));
    assert!(matches!(point.open_disk(2000, gone).await, Err(Error::File { .. })));
}

#[tokio::test]
async fn a_written_disk_is_exported_with_its_changes() {
    let (_, point) = point().await;
    let folder = TempDir::new().unwrap();
    let options = InstantOptions::copy_on_write(Overlay::Folder(folder.path().into()));
    let open = point.open_disk(2000, options).await.unwrap();
    open.disk().write_at(CHUNK + 7, noise(9, 1000).into()).await.unwrap();
    open.disk().zero_range(1_000_000..1_200_000).await.unwrap();
    let path = folder.path().join("out.vmdk");
    open.export(&path, FileFormat::VmdkSparse).await.unwrap();
    let image = vmdk::Disk::open(&path, &vmdk::OpenOptions::new()).unwrap();
    let mut bytes = vec![0; sample().len()];
    image.read_at(0, &mut bytes).unwrap();
    assert!(bytes == read(&open).await);
    assert!(matches!(open.export(&path, FileFormat::Raw).await, Err(Error::File { .. })));
    open.close().await.unwrap();
}

#[tokio::test]
async fn no_half_export_has_the_name_that_was_asked_for() {
    let (_, point) = point().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.vmdk");
    let left = || std::fs::read_dir(folder.path()).unwrap().count();
    let cancel = CancelToken::new();
    cancel.cancel();
    let cut = point.open_disk(2000, InstantOptions::read_only().cancel(&cancel)).await.unwrap();
    assert!(cut.export(&path, FileFormat::VmdkFlat).await.is_err());
    assert_eq!(left(), 0, "after an error nothing is left");

    let open = point.open_disk(2000, InstantOptions::read_only()).await.unwrap();
    assert!(matches!(open.export(&path, FileFormat::VmdkStreamOptimized).await, Err(Error::Invalid { .. })));
    assert_eq!(left(), 0);
    {
        let mut dropped = Box::pin(open.export(&path, FileFormat::VmdkFlat));
        while !folder.path().join("out.vmdk.restoring/out.vmdk").exists() {
            assert!(futures_util::poll!(&mut dropped).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert!(!path.exists() && left() == 1);
    // Another one begins again.
    open.export(&path, FileFormat::VmdkFlat).await.unwrap();
    assert_eq!(left(), 2, "the descriptor and the bytes");
    let image = vmdk::Disk::open(&path, &vmdk::OpenOptions::new()).unwrap();
    let mut bytes = vec![0; sample().len()];
    image.read_at(0, &mut bytes).unwrap();
    assert!(bytes == sample());
}

async fn serve(open: &InstantDisk, folder: &TempDir) -> RunningNbdServer {
    let socket = folder.path().join("nbd.sock");
    NbdServer::bind(socket.to_str().unwrap()).export("disk", open.disk().clone()).serve().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdcopy_and_qemu_img_read_a_recovery_point_and_cannot_write_it() {
    let (Some(nbdcopy), Some(qemu_img), Some(qemu_io)) = (peer("nbdcopy"), peer("qemu-img"), peer("qemu-io")) else {
        return;
    };
    let (_, point) = point().await;
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("expected.img"), sample()).unwrap();
    let open = point.open_disk(2000, InstantOptions::read_only()).await.unwrap();
    let server = serve(&open, &folder).await;
    run(&nbdcopy, &[&server.uri("disk"), &path("copied.img")]);
    assert!(std::fs::read(path("copied.img")).unwrap() == sample());
    let said = run(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &server.uri("disk"), &path("expected.img")]);
    assert!(said.contains("identical"), "{said}");
    let (written, said) = outcome(&qemu_io, &["-f", "raw", "-c", "write 0 512", &server.uri("disk")]);
    assert!(!written, "{said}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_qemu_io_writes_is_in_the_overlay_and_not_in_the_point() {
    let (Some(qemu_io), Some(qemu_img)) = (peer("qemu-io"), peer("qemu-img")) else { return };
    let (_, point) = point().await;
    let folder = TempDir::new().unwrap();
    let overlay = Overlay::Folder(folder.path().into());
    let open = point.open_disk(2000, InstantOptions::copy_on_write(overlay)).await.unwrap();
    let server = serve(&open, &folder).await;
    let commands = [
        "write -P 0xab 0 64k",
        "write -P 0xcd 1000000 12345",
        "write -z 600k 300k",
        "discard 1100k 64k",
        "flush",
        "read -P 0xab 0 64k",
        "read -P 0xcd 1000000 12345",
        "read -P 0 600k 300k",
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let uri = server.uri("disk");
    arguments.push(&uri);
    let said = run(&qemu_io, &arguments);
    assert!(!said.contains("failed"), "{said}");
    let bytes = read(&open).await;
    assert!(bytes[..64 << 10].iter().all(|&byte| byte == 0xab));
    assert!(bytes[1_000_000..1_012_345].iter().all(|&byte| byte == 0xcd));
    let exported = folder.path().join("out.img").to_str().unwrap().to_owned();
    open.export(&exported, FileFormat::Raw).await.unwrap();
    let said = run(&qemu_img, &["compare", "-f", "raw", "-F", "raw", &uri, &exported]);
    assert!(said.contains("identical"), "{said}");
    assert!(content(&point).await.unwrap() == sample());
    open.discard_changes().await.unwrap();
    assert!(read(&open).await == sample());
    server.stop().await.unwrap();
}
