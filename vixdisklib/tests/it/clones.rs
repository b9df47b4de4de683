//! Whole disks from one place to another.

use std::sync::atomic::Ordering;

use vixdisklib::{Access, CloneOptions, Connection, CreateSpec, DiskKind, Error, clone_disk};
use vsphere_sim::{Power, nfc::NfcServerConfig};

use crate::{
    images::{MIB, content, has_qemu, holey, names, progress, run, within},
    simulator::{BASE, Lab},
};

/// A disk of this machine with this content.
pub(crate) async fn filled(path: &str, content: &[u8]) {
    let connection = Connection::local(Access::ReadWrite);
    let spec = CreateSpec::new(DiskKind::MonolithicSparse, content.len() as u64).adapter(vmdk::AdapterType::BusLogic);
    connection.create(path, &spec).await.unwrap();
    let disk = connection.open(path).await.unwrap();
    disk.write_at(0, content.to_vec().into()).await.unwrap();
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_clone_of_any_kind_has_the_same_bytes_for_us_and_for_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    let expected = holey(5 * MIB);
    filled(&source, &expected).await;
    let local = Connection::local(Access::ReadWrite);
    for kind in DiskKind::ALL {
        let target = within(&folder, &format!("{kind:?}.vmdk"));
        let (told, last) = progress();
        let options = CloneOptions::new().kind(kind).progress(told);
        let outcome = clone_disk(&local, &target, &Connection::local(Access::ReadOnly), &source, &options).await;
        if kind == DiskKind::VmfsSparse {
            assert!(matches!(&outcome, Err(Error::NotOffered { .. })), "{outcome:?}");
            continue;
        }
        outcome.unwrap();
        assert_eq!(last.load(Ordering::SeqCst), 100, "{kind:?}");
        let disk = Connection::local(Access::ReadOnly).open(&target).await.unwrap();
        assert!(content(&disk).await == expected, "{kind:?}");
        assert_eq!(disk.info().await.unwrap().adapter_type.as_deref(), Some("buslogic"), "{kind:?}");
        disk.close().await.unwrap();
        if has_qemu() {
            run("qemu-img", &["compare", "-q", "-f", "vmdk", "-F", "vmdk", &source, &target]);
        }
    }
}

/// A descriptor that was copied alone names the extents of the other disk.
#[tokio::test]
async fn a_disk_whose_extents_are_the_sources_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (source, twin) = (within(&folder, "source.vmdk"), within(&folder, "twin.vmdk"));
    let local = Connection::local(Access::ReadWrite);
    local.create(&source, &CreateSpec::new(DiskKind::MonolithicFlat, MIB)).await.unwrap();
    std::fs::copy(&source, &twin).unwrap();
    let replacing = CloneOptions::new().overwrite(true);
    let refused = clone_disk(&local, &twin, &local, &source, &replacing).await.unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
    assert_eq!(names(folder.path()), ["source-flat.vmdk", "source.vmdk", "twin.vmdk"]);
    local.open(&source).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_disk_in_the_way_stays_unless_it_is_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (within(&folder, "source.vmdk"), within(&folder, "target.vmdk"));
    filled(&source, &[1; 1 << 20]).await;
    filled(&target, &[2; 1 << 20]).await;
    let local = Connection::local(Access::ReadWrite);
    let refused = clone_disk(&local, &target, &local, &source, &CloneOptions::new()).await.unwrap_err();
    assert!(matches!(refused, Error::File { .. } | Error::Exists { .. }), "{refused}");
    let first = async || local.open(&target).await.unwrap().read_at(0, 1).await.unwrap()[0];
    assert_eq!(first().await, 2);
    clone_disk(&local, &target, &local, &source, &CloneOptions::new().overwrite(true)).await.unwrap();
    assert_eq!(first().await, 1);
    let itself = clone_disk(&local, &source, &local, &source, &CloneOptions::new().overwrite(true)).await;
    assert!(itself.is_err());
    assert_eq!(local.open(&source).await.unwrap().read_at(0, 1).await.unwrap()[0], 1, "a disk is not its own clone");
    let reading = Connection::local(Access::ReadOnly);
    let refused = clone_disk(&reading, &target, &local, &source, &CloneOptions::new()).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
}

#[tokio::test]
async fn a_clone_that_nobody_waits_for_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    filled(&source, &holey(64 * MIB)).await;
    let local = Connection::local(Access::ReadWrite);
    for kind in [DiskKind::SplitSparse, DiskKind::StreamOptimized] {
        let target = within(&folder, "target.vmdk");
        let (seen, first) = tokio::sync::oneshot::channel();
        let seen = std::sync::Mutex::new(Some(seen));
        let told: vixdisklib::Progress = std::sync::Arc::new(move |_| {
            if let Some(seen) = seen.lock().unwrap().take() {
                let _ = seen.send(());
            }
        });
        let options = CloneOptions::new().kind(kind).progress(told);
        tokio::select! {
            biased;
            _ = first => {}
            done = clone_disk(&local, &target, &local, &source, &options) => panic!("too fast: {done:?}"),
        }
        for _ in 0..200 {
            if names(folder.path()) == ["source.vmdk"] {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(names(folder.path()), ["source.vmdk"], "{kind:?}");
    }
}

#[tokio::test]
async fn the_space_of_a_clone_is_foreseen() {
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    let data = holey(5 * MIB).iter().map(|byte| byte | 1).collect::<Vec<_>>();
    filled(&source, &[data, vec![0; 3 << 20]].concat()).await;
    let shrinking = Connection::local(Access::ReadWrite).open(&source).await.unwrap();
    shrinking.defragment(None).await.unwrap();
    shrinking.close().await.unwrap();
    let local = Connection::local(Access::ReadWrite);
    let disk = local.open(&source).await.unwrap();
    for kind in [DiskKind::MonolithicSparse, DiskKind::SplitSparse, DiskKind::MonolithicFlat, DiskKind::StreamOptimized]
    {
        let needed = disk.space_needed_for_clone(kind).await.unwrap();
        let target = within(&folder, "target.vmdk");
        clone_disk(&local, &target, &local, &source, &CloneOptions::new().kind(kind)).await.unwrap();
        let files = names(folder.path()).into_iter().filter(|name| name.starts_with("target"));
        let taken: u64 = files.map(|name| std::fs::metadata(folder.path().join(name)).unwrap().len()).sum();
        // How well data can be packed is not foreseen.
        let is_close = kind == DiskKind::StreamOptimized || needed <= taken + MIB;
        assert!(taken <= needed + 64 * 1024 && is_close, "{kind:?}: {taken} taken, {needed} foreseen");
        if kind == DiskKind::StreamOptimized {
            std::fs::remove_file(&target).unwrap();
        } else {
            local.unlink(&target).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_a_running_vm_comes_here_from_its_snapshot() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let target = within(&folder, "copy.vmdk");
    let remote = lab.connect(Access::ReadOnly, "nbdssl").await;
    let local = Connection::local(Access::ReadWrite);
    clone_disk(&local, &target, &remote, BASE, &CloneOptions::new()).await.unwrap();
    let copy = local.open(&target).await.unwrap();
    assert_eq!(copy.capacity(), 32 * MIB);
    let mut expected = vec![0; 32 << 20];
    expected[1 << 20..][..200_000].fill(5);
    assert!(content(&copy).await == expected);
    assert!(copy.allocated(0..copy.capacity()).await.unwrap().total() < MIB, "holes stayed holes");
    copy.close().await.unwrap();
    if has_qemu() {
        run("qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 5 1M 195k", "-c", "read -P 0 2M 30M", &target]);
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_chain_becomes_a_disk_of_the_datastore_and_comes_back_the_same() {
    let lab = Lab::new(Power::Off).await;
    let folder = tempfile::tempdir().unwrap();
    let source = within(&folder, "source.vmdk");
    let expected = holey(6 * MIB);
    filled(&source, &expected).await;
    let local = Connection::local(Access::ReadWrite);
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let target = "[ds1] web/restored.vmdk";
    let (told, last) = progress();
    clone_disk(&store, target, &local, &source, &CloneOptions::new().progress(told)).await.unwrap();
    assert_eq!(last.load(Ordering::SeqCst), 100);
    let again = clone_disk(&store, target, &local, &source, &CloneOptions::new()).await.unwrap_err();
    assert!(matches!(again, Error::Exists { .. }), "{again}");
    clone_disk(&store, target, &local, &source, &CloneOptions::new().overwrite(true)).await.unwrap();

    let ds = lab.vim.find_datastore("ds1", None).await.unwrap();
    for name in ["restored.vmdk", "restored-flat.vmdk"] {
        let path = ds.path(&format!("web/{name}")).unwrap();
        let bytes = ds.read(&path).open().await.unwrap().collect(8 << 20).await.unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let back = local.open(within(&folder, "restored.vmdk")).await.unwrap();
    assert!(content(&back).await == expected);
    assert_eq!(back.info().await.unwrap().adapter_type.as_deref(), Some("buslogic"));
    back.close().await.unwrap();
    let kind = CloneOptions::new().kind(DiskKind::MonolithicSparse);
    let refused = clone_disk(&store, "[ds1] web/b.vmdk", &local, &source, &kind).await.unwrap_err();
    assert!(matches!(refused, Error::NotOffered { .. }), "{refused}");
    lab.end().await;
}
