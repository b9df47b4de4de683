//! The transport `file`: images of this machine.

use bytes::Bytes;
use vixdisklib::{Access, Connection, Error, OpenOptions, TransportMode};
use vmdk::CreateKind;

use crate::images::{MIB, image};

#[tokio::test]
async fn what_is_written_is_read_after_closing_and_opening_again() {
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse, CreateKind::Raw] {
        let name = if kind == CreateKind::Raw { "a.img" } else { "a.vmdk" };
        let (_folder, path) = image(name, 8 * MIB, kind);
        let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
        assert_eq!((disk.capacity(), disk.transport(), disk.alignment()), (8 * MIB, TransportMode::File, 1));
        disk.write_at(MIB + 1, Bytes::from_static(b"any byte offset")).await.unwrap();
        disk.write_at(5 * MIB, vec![1; MIB as usize].into()).await.unwrap();
        disk.zero_range(5 * MIB..5 * MIB + 65536).await.unwrap();
        disk.flush().await.unwrap();
        disk.close().await.unwrap();

        let disk = Connection::local(Access::ReadOnly).open(&path).await.unwrap();
        assert_eq!(disk.read_at(MIB, 17).await.unwrap(), &b"\0any byte offset\0"[..]);
        assert_eq!(disk.read_at(5 * MIB + 65535, 2).await.unwrap(), &[0, 1][..], "{kind:?}");
        assert!(disk.read_at(8 * MIB, 0).await.unwrap().is_empty());
        disk.close().await.unwrap();
    }
}

#[tokio::test]
async fn allocation_is_known_and_on_the_grid() {
    let (_folder, path) = image("a.vmdk", 64 * MIB, CreateKind::MonolithicSparse);
    let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
    disk.write_at(10 * MIB + 5, Bytes::from_static(b"x")).await.unwrap();
    disk.write_at(20 * MIB, vec![2; 70_000].into()).await.unwrap();
    let all = disk.allocated(0..disk.capacity()).await.unwrap();
    assert!(!all.is_assumed());
    assert_eq!(all.areas, [10 * MIB..10 * MIB + 65536, 20 * MIB..20 * MIB + 131072]);
    let part = disk.allocated(10 * MIB + 100..10 * MIB + 200).await.unwrap();
    assert_eq!(part.areas, [10 * MIB + 100..10 * MIB + 200], "clipped to what was asked for");
    assert!(disk.allocated(5..5).await.unwrap().areas.is_empty());
    disk.close().await.unwrap();
}

#[tokio::test]
async fn info_and_metadata_come_from_the_descriptor() {
    let (_folder, path) = image("a.vmdk", 64 * MIB, CreateKind::Flat);
    let disk = Connection::local(Access::ReadOnly).open(&path).await.unwrap();
    let info = disk.info().await.unwrap();
    assert_eq!((info.capacity, info.logical_sector_size, info.links), (64 * MIB, 512, Some(1)));
    assert_eq!(info.adapter_type.as_deref(), Some("lsilogic"));
    assert_eq!((info.geometry.heads, info.geometry.sectors), (255, 63));
    assert_eq!(disk.metadata("adapterType").await.unwrap(), info.adapter_type);
    assert_eq!(disk.metadata("no such key").await.unwrap(), None);
}

#[tokio::test]
async fn what_leaves_the_disk_is_refused_before_anything_happens() {
    let (_folder, path) = image("a.img", MIB, CreateKind::Raw);
    let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
    let one = Bytes::from_static(b"x");
    assert!(matches!(disk.read_at(MIB - 1, 2).await, Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.read_at(u64::MAX, 1).await, Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.write_at(MIB, one).await, Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.zero_range(0..MIB + 1).await, Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.allocated(0..u64::MAX).await, Err(Error::OutOfRange { .. })));
}

#[tokio::test]
async fn a_connection_for_reading_writes_nothing() {
    let (_folder, path) = image("a.img", MIB, CreateKind::Raw);
    let disk = Connection::local(Access::ReadOnly).open(&path).await.unwrap();
    let refused = disk.write_at(0, Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }) && refused.hint().is_some());
    assert!(matches!(disk.zero_range(0..512).await, Err(Error::ReadOnly { .. })));
    disk.flush().await.unwrap();
}

#[tokio::test]
async fn a_disk_may_be_opened_for_less_than_its_connection_and_not_for_more() {
    let (_folder, path) = image("a.img", MIB, CreateKind::Raw);
    let writing = Connection::local(Access::ReadWrite);
    let disk = writing.open_with(&*path, OpenOptions::new().access(Access::ReadOnly)).await.unwrap();
    assert_eq!((disk.access(), disk.connection().access()), (Access::ReadOnly, Access::ReadWrite));
    assert!(matches!(disk.write_at(0, Bytes::from_static(b"x")).await, Err(Error::ReadOnly { .. })));
    let more = OpenOptions::new().access(Access::ReadWrite);
    let refused = Connection::local(Access::ReadOnly).open_with(&*path, more).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
}

#[tokio::test]
async fn metadata_are_listed_and_edited_in_the_file() {
    let (_folder, path) = image("a.vmdk", MIB, CreateKind::MonolithicSparse);
    let disk = Connection::local(Access::ReadWrite).open(&path).await.unwrap();
    disk.set_metadata("uuid", "60 00 C2 90 00 00 00 00-00 00 00 00 00 00 00 01").await.unwrap();
    disk.set_metadata("comment", "caf\u{e9} \u{2713}").await.unwrap();
    disk.close().await.unwrap();
    let disk = Connection::local(Access::ReadOnly).open(&path).await.unwrap();
    assert_eq!(disk.metadata("comment").await.unwrap().as_deref(), Some("caf\u{e9} \u{2713}"));
    for key in disk.metadata_keys().await.unwrap() {
        assert!(disk.metadata(&key).await.unwrap().is_some(), "{key}");
    }
    assert!(disk.info().await.unwrap().uuid.unwrap().ends_with("01"));
    assert!(matches!(disk.set_metadata("a", "b").await, Err(Error::ReadOnly { .. })));
}

#[tokio::test]
async fn unbuffered_writes_are_read_back_and_chunks_are_the_callers() {
    let (_folder, path) = image("a.vmdk", 8 * MIB, CreateKind::MonolithicSparse);
    let options = OpenOptions::new().unbuffered(true).compression(vixdisklib::CompressionWish::Zlib);
    let disk = Connection::local(Access::ReadWrite).open_with(&*path, options).await.unwrap();
    disk.write_at(3 * MIB, Bytes::from_static(b"now")).await.unwrap();
    disk.wait().await.unwrap();
    let coarse = disk.allocated_in_chunks(0..8 * MIB, 700_000).await.unwrap();
    assert_eq!(coarse.areas, [3 * MIB..4 * MIB], "rounded up to a power of two");
    assert_eq!(disk.read_at(3 * MIB, 3).await.unwrap(), &b"now"[..]);
    disk.close().await.unwrap();
}

#[tokio::test]
async fn missing_files_and_datastore_paths_are_told_apart() {
    let local = Connection::local(Access::ReadOnly);
    let missing = local.open("/nowhere/at/all.vmdk").await.unwrap_err();
    assert!(matches!(missing, Error::File { .. }), "{missing}");
    let remote = local.open("[ds1] web/web.vmdk").await.unwrap_err();
    assert!(matches!(remote, Error::WrongPath { mode: TransportMode::File, .. }), "{remote}");
}

#[tokio::test]
async fn disks_outlive_their_connection() {
    let (_folder, path) = image("a.img", MIB, CreateKind::Raw);
    let disk = {
        let connection = Connection::local(Access::ReadOnly);
        connection.open(&path).await.unwrap()
    };
    assert_eq!(disk.read_at(0, 4).await.unwrap(), &[0; 4][..]);
    assert_eq!(disk.connection().transports().to_string(), "file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reads_and_writes_at_once_and_closing_waits_for_those_given_up() {
    let (_folder, path) = image("a.vmdk", 32 * MIB, CreateKind::MonolithicSparse);
    let disk = std::sync::Arc::new(Connection::local(Access::ReadWrite).open(&path).await.unwrap());
    let tasks: Vec<_> = (0..32_u64)
        .map(|n| {
            let disk = std::sync::Arc::clone(&disk);
            tokio::spawn(async move {
                disk.write_at(n * MIB, vec![n as u8; 100_000].into()).await.unwrap();
                assert_eq!(disk.read_at(n * MIB, 100_000).await.unwrap(), vec![n as u8; 100_000]);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Polled once, then dropped: the write may have begun.
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, disk.write_at(0, vec![9; 1 << 20].into())).await;
    drop(given_up);
    std::sync::Arc::into_inner(disk).unwrap().close().await.unwrap();
    let disk = Connection::local(Access::ReadOnly).open(&path).await.unwrap();
    let first = disk.read_at(0, 1).await.unwrap()[0];
    assert!(first == 9 || first == 0, "old or new, not torn: {first}");
}
