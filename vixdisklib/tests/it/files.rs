//! Disks of this machine that nobody has open: made, grown, renamed, checked, removed; and their children.

use bytes::Bytes;
use vixdisklib::{Access, AttachProblem, Connection, CreateSpec, DiskKind, Error, Holes, OpenOptions, rename};

use crate::images::{MIB, content, has_qemu, image, names, progress, run, within};

const HOSTED: [DiskKind; 6] = [
    DiskKind::MonolithicSparse,
    DiskKind::MonolithicFlat,
    DiskKind::SplitSparse,
    DiskKind::SplitFlat,
    DiskKind::VmfsFlat,
    DiskKind::VmfsThin,
];

#[tokio::test]
async fn new_disks_of_every_kind_are_what_qemu_reads_too() {
    let connection = Connection::local(Access::ReadWrite);
    for kind in HOSTED {
        let folder = tempfile::tempdir().unwrap();
        let path = within(&folder, "a.vmdk");
        let spec = CreateSpec::new(kind, 3 * MIB).adapter(vmdk::AdapterType::Ide);
        connection.create(&path, &spec).await.unwrap();
        let disk = connection.open(&path).await.unwrap();
        let info = disk.info().await.unwrap();
        assert_eq!((info.capacity, info.adapter_type.as_deref(), info.geometry.heads), (3 * MIB, Some("ide"), 16));
        disk.write_at(MIB, vec![7; 4096].into()).await.unwrap();
        disk.close().await.unwrap();
        if has_qemu() {
            run("qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 7 1M 4k", "-c", "read -P 0 0 1M", &path]);
        }
        let refused = connection.create(&path, &spec).await.unwrap_err();
        assert!(matches!(refused, Error::File { .. }), "{kind:?}: {refused}");
        connection.unlink(&path).await.unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new(), "{kind:?}");
    }
    for kind in [DiskKind::StreamOptimized, DiskKind::VmfsSparse] {
        let error = connection.create("/tmp/none.vmdk", &CreateSpec::new(kind, MIB)).await.unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. }) && error.hint().is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_grown_disk_keeps_its_data_and_a_renamed_one_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (within(&folder, "old.vmdk"), within(&folder, "new.vmdk"));
    let connection = Connection::local(Access::ReadWrite);
    connection.create(&old, &CreateSpec::new(DiskKind::MonolithicFlat, 32 * MIB)).await.unwrap();
    let disk = connection.open(&old).await.unwrap();
    disk.write_at(0, Bytes::from_static(b"kept")).await.unwrap();
    let before = disk.info().await.unwrap().geometry.cylinders;
    disk.close().await.unwrap();

    let (told, last) = progress();
    connection.grow(&old, 64 * MIB, true, Some(told)).await.unwrap();
    assert_eq!(last.load(std::sync::atomic::Ordering::SeqCst), 100);
    rename(&old, &new).await.unwrap();
    assert_eq!(names(folder.path()), ["new-flat.vmdk", "new.vmdk"]);
    let disk = connection.open(&new).await.unwrap();
    assert_eq!((disk.capacity(), &disk.read_at(0, 4).await.unwrap()[..]), (64 * MIB, &b"kept"[..]));
    assert_eq!(disk.info().await.unwrap().geometry.cylinders, 2 * before);
    disk.close().await.unwrap();
    assert!(matches!(connection.grow(&new, MIB, false, None).await, Err(Error::File { .. })), "disks do not shrink");
    assert!(matches!(rename("[ds1] a.vmdk", &new).await, Err(Error::WrongPath { .. })));
}

#[tokio::test]
async fn a_connection_for_reading_makes_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = within(&folder, "a.vmdk");
    let connection = Connection::local(Access::ReadOnly);
    let refused = [
        connection.create(&path, &CreateSpec::new(DiskKind::MonolithicSparse, MIB)).await,
        connection.unlink(&path).await,
        connection.grow(&path, MIB, false, None).await,
        connection.check_repair(&path, true).await.map(drop),
    ];
    for outcome in refused {
        assert!(matches!(&outcome, Err(Error::ReadOnly { .. })), "{outcome:?}");
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_disk_that_was_not_closed_is_found_out_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let path = within(&folder, "a.vmdk");
    let connection = Connection::local(Access::ReadWrite);
    connection.create(&path, &CreateSpec::new(DiskKind::MonolithicSparse, 8 * MIB)).await.unwrap();
    assert!(connection.check_repair(&path, false).await.unwrap().is_clean());
    let disk = connection.open(&path).await.unwrap();
    disk.write_at(MIB, vec![3; 70_000].into()).await.unwrap();
    disk.flush().await.unwrap();
    // What a process that was killed leaves: the file as it is now.
    let killed = std::fs::read(&path).unwrap();
    disk.close().await.unwrap();
    std::fs::write(&path, killed).unwrap();

    let checked = connection.check_repair(&path, false).await.unwrap();
    assert!(!checked.is_clean() && checked.left.is_none());
    let repaired = connection.check_repair(&path, true).await.unwrap();
    assert!(repaired.is_clean() && !repaired.found.is_clean(), "{repaired:?}");
    let disk = connection.open(&path).await.unwrap();
    assert_eq!(disk.read_at(MIB, 70_000).await.unwrap(), vec![3; 70_000]);
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_child_holds_what_differs_and_alone_its_holes_mean_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let (base, child) = (within(&folder, "base.vmdk"), within(&folder, "child.vmdk"));
    let connection = Connection::local(Access::ReadWrite);
    connection.create(&base, &CreateSpec::new(DiskKind::MonolithicFlat, 8 * MIB)).await.unwrap();
    let parent = connection.open(&base).await.unwrap();
    parent.write_at(0, vec![1; 4 << 20].into()).await.unwrap();
    parent.create_child(&child, DiskKind::MonolithicSparse, None).await.unwrap();
    let refused = parent.create_child(&child, DiskKind::MonolithicFlat, None).await.unwrap_err();
    assert!(matches!(refused, Error::NotOffered { .. }), "{refused}");
    parent.close().await.unwrap();

    let whole = connection.open(&child).await.unwrap();
    assert_eq!(whole.info().await.unwrap().links, Some(2));
    whole.write_at(2 * MIB, vec![2; 65536].into()).await.unwrap();
    whole.zero_range(3 * MIB..3 * MIB + 65536).await.unwrap();
    assert_eq!(whole.allocated(0..8 * MIB).await.unwrap().holes, Holes::ReadAsZeros);
    whole.close().await.unwrap();
    if has_qemu() {
        run("qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 2 2M 64k", "-c", "read -P 1 0 2M", &child]);
    }

    let alone = connection.open_with(&*child, OpenOptions::new().single_link(true)).await.unwrap();
    let info = alone.info().await.unwrap();
    assert_eq!((info.links, info.parent_hint.as_deref()), (Some(1), Some("base.vmdk")));
    let allocation = alone.allocated(0..8 * MIB).await.unwrap();
    assert_eq!(allocation.holes, Holes::AskParent);
    // What was made zero is the child's own word, however it is stored.
    assert_eq!(allocation.areas, [2 * MIB..2 * MIB + 65536, 3 * MIB..3 * MIB + 65536]);
    let itself = vixdisklib::Disk::is_attach_possible(&alone, &alone).await.unwrap_err();
    let of_part = matches!(itself, Error::NotAttachable { problem: AttachProblem::ParentIsPart, .. });
    assert!(of_part, "{itself}");
    alone.close().await.unwrap();
}

#[tokio::test]
async fn shrinking_and_putting_in_order_give_space_back_and_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = within(&folder, "a.vmdk");
    let connection = Connection::local(Access::ReadWrite);
    connection.create(&path, &CreateSpec::new(DiskKind::MonolithicSparse, 16 * MIB)).await.unwrap();
    let disk = connection.open(&path).await.unwrap();
    for mib in (0..16).rev() {
        disk.write_at(mib * MIB, vec![mib as u8; 1 << 20].into()).await.unwrap();
    }
    disk.write_at(4 * MIB, vec![0; 8 << 20].into()).await.unwrap();
    let expected = crate::images::content(&disk).await;
    let uuid = "60 00 C2 90 00 00 00 00-00 00 00 00 00 00 00 09";
    disk.set_metadata("uuid", uuid).await.unwrap();
    disk.flush().await.unwrap();
    let stored = |path: &str| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512;
    let full = stored(&path);

    let (told, last) = progress();
    disk.shrink(Some(told)).await.unwrap();
    assert_eq!(last.load(std::sync::atomic::Ordering::SeqCst), 100);
    assert!(stored(&path) + 8 * MIB <= full, "{} of {full} bytes", stored(&path));

    let (told, last) = progress();
    disk.defragment(Some(told)).await.unwrap();
    assert_eq!(last.load(std::sync::atomic::Ordering::SeqCst), 100);
    assert!(std::fs::metadata(&path).unwrap().len() < 9 * MIB, "zeros have no grains any more");
    assert!(crate::images::content(&disk).await == expected);
    assert_eq!(disk.metadata("uuid").await.unwrap().as_deref(), Some(uuid));
    disk.write_at(5 * MIB, Bytes::from_static(b"still writable")).await.unwrap();
    disk.close().await.unwrap();
    assert_eq!(names(folder.path()), ["a.vmdk"]);
    assert!(connection.check_repair(&path, false).await.unwrap().is_clean());
    if has_qemu() {
        run("qemu-img", &["check", "-q", "-f", "vmdk", &path]);
        run("qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 13 13M 1M", "-c", "read -P 0 6M 6M", &path]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_a_disk_is_shrunk_stays() {
    const BLOCK: u64 = 64 << 10;
    let (_folder, path) = image("a.vmdk", 64 * MIB, vmdk::CreateKind::MonolithicSparse);
    let disk = Connection::local(Access::ReadWrite).open(&*path).await.unwrap();
    // Zeros that are stored: a byte of each grain is written and taken back.
    for byte in [1, 0] {
        for block in 0..64 * MIB / BLOCK {
            disk.write_at(block * BLOCK, vec![byte; 512].into()).await.unwrap();
        }
    }
    let writes = async {
        for block in 0..64 * MIB / BLOCK {
            disk.write_at(block * BLOCK, vec![7; BLOCK as usize].into()).await.unwrap();
        }
    };
    let shrinks = async {
        for _ in 0..20 {
            disk.shrink(None).await.unwrap();
        }
    };
    tokio::join!(writes, shrinks);
    assert!(content(&disk).await.iter().all(|byte| *byte == 7), "a write was lost");
    disk.close().await.unwrap();
}
