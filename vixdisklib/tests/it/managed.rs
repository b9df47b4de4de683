//! Disks that the server looks after: made, copied, grown and removed where they lie.

use std::sync::atomic::Ordering;

use vixdisklib::{Access, CloneOptions, Connection, CreateSpec, DiskKind, Error, clone_disk};
use vsphere_sim::{Personality, Power, nfc::NfcServerConfig};

use crate::{
    images::{MIB, content, progress, within},
    simulator::{BASE, Lab},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_copied_by_its_server_and_no_byte_passes_here() {
    let lab = Lab::new(Power::Off).await;
    lab.guest_writes(3 * MIB, 9);
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let (told, last) = progress();
    let options = CloneOptions::new().kind(DiskKind::VmfsThin).progress(told);
    clone_disk(&store, "[ds1] web/copy.vmdk", &store, BASE, &options).await.unwrap();
    assert_eq!(last.load(Ordering::SeqCst), 100);
    let refused = clone_disk(&store, "[ds1] web/copy.vmdk", &store, BASE, &CloneOptions::new()).await.unwrap_err();
    assert!(refused.vim().is_some_and(|error| error.is_fault("FileAlreadyExists")), "{refused}");

    let itself = clone_disk(&store, BASE, &store, BASE, &CloneOptions::new().overwrite(true)).await.unwrap_err();
    assert!(matches!(itself, Error::Exists { .. }), "{itself}");

    let folder = tempfile::tempdir().unwrap();
    let ds = lab.vim.find_datastore("ds1", None).await.unwrap();
    for name in ["copy.vmdk", "copy-flat.vmdk"] {
        let path = ds.path(&format!("web/{name}")).unwrap();
        let bytes = ds.read(&path).open().await.unwrap().collect(64 << 20).await.unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let copy = Connection::local(Access::ReadOnly).open(within(&folder, "copy.vmdk")).await.unwrap();
    let all = content(&copy).await;
    assert_eq!(all[3 << 20..][..200_000], vec![9; 200_000]);
    assert_eq!((all.len(), copy.metadata("thinProvisioned").await.unwrap().as_deref()), (32 << 20, Some("1")));
    lab.end().await;
}

/// Hosts have no id that tells one from another.
#[tokio::test]
async fn a_clone_on_a_host_never_replaces_its_own_source() {
    let lab = Lab::on(Personality::Esxi, Power::Off, NfcServerConfig::default()).await;
    lab.guest_writes(MIB, 7);
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let replacing = CloneOptions::new().overwrite(true);
    for target in [BASE, "[ds1] web//web.vmdk"] {
        let refused = clone_disk(&store, target, &store, BASE, &replacing).await.unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{refused}");
    }
    let disk = store.open(BASE).await.unwrap();
    assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![7; 512]);
    disk.close().await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locked_disk_of_a_running_vm_is_read_from_its_snapshot_and_sent_back() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    // The base lies under the snapshot, so the server itself can copy it; the disk in use, nobody can.
    clone_disk(&store, "[ds1] web/copy.vmdk", &store, BASE, &CloneOptions::new()).await.unwrap();
    let current = lab.vim.disks(&lab.vm).await.unwrap()[0].backing.file_name.clone().unwrap();
    let error = clone_disk(&store, "[ds1] web/live.vmdk", &store, &current, &CloneOptions::new()).await.unwrap_err();
    assert!(matches!(error, Error::Nfc { .. } | Error::Server { .. }), "{error}");
    store.unlink("[ds1] web/copy.vmdk").await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn disks_are_made_grown_and_removed_where_they_lie() {
    let lab = Lab::new(Power::Off).await;
    let store = lab.connect(Access::ReadWrite, "nbdssl").await;
    let (path, flat) = ("[ds1] web/data.vmdk", "[ds1] web/data-flat.vmdk");
    store.create(path, &CreateSpec::new(DiskKind::VmfsThin, 4 * MIB)).await.unwrap();
    let ds = lab.vim.find_datastore("ds1", None).await.unwrap();
    let size = async |name: &str| ds.stat(&name.parse().unwrap()).await.unwrap().map(|stat| stat.size);
    assert_eq!(size(flat).await, Some(Some(4 * MIB)));
    let (told, last) = progress();
    store.grow(path, 6 * MIB, false, Some(told)).await.unwrap();
    assert_eq!((size(flat).await, last.load(Ordering::SeqCst)), (Some(Some(6 * MIB)), 100));
    store.unlink(path).await.unwrap();
    assert_eq!((size(path).await, size(flat).await), (None, None));

    let missing = store.unlink(path).await.unwrap_err();
    assert!(missing.vim().is_some_and(|error| error.is_fault("FileNotFound")), "{missing}");
    let in_use = store.unlink(BASE).await.unwrap_err();
    assert!(in_use.vim().is_some_and(|error| error.is_fault("FileLocked")), "{in_use}");
    let hosted = store.create(path, &CreateSpec::new(DiskKind::SplitSparse, MIB)).await.unwrap_err();
    assert!(matches!(hosted, Error::NotOffered { .. }), "{hosted}");
    let checked = store.check_repair(BASE, false).await.unwrap_err();
    assert!(matches!(checked, Error::NotOffered { .. }) && checked.hint().is_some(), "{checked}");
    let local = store.unlink("/tmp/none.vmdk").await.unwrap_err();
    assert!(matches!(local, Error::WrongPath { .. }), "{local}");
    lab.end().await;
}
