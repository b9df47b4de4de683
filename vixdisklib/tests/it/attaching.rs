//! Children of this machine over parents from elsewhere.

use bytes::Bytes;
use vixdisklib::{Access, AttachProblem, Connection, CreateSpec, Disk, DiskKind, Error, OpenOptions};
use vsphere_sim::nfc::NfcServerConfig;

use crate::{
    images::{MIB, content, has_qemu, run, within},
    simulator::{BASE, Lab},
};

/// A base of ones with a child of it, in one folder.
async fn pair(folder: &tempfile::TempDir, capacity: u64) -> (String, String) {
    let (base, child) = (within(folder, "base.vmdk"), within(folder, "child.vmdk"));
    let connection = Connection::local(Access::ReadWrite);
    connection.create(&base, &CreateSpec::new(DiskKind::MonolithicFlat, capacity)).await.unwrap();
    let parent = connection.open(&base).await.unwrap();
    parent.write_at(0, vec![1; capacity as usize].into()).await.unwrap();
    parent.create_child(&child, DiskKind::MonolithicSparse, None).await.unwrap();
    parent.close().await.unwrap();
    (base, child)
}

async fn alone(path: &str) -> Disk {
    let connection = Connection::local(Access::ReadWrite);
    connection.open_with(path, OpenOptions::new().single_link(true)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_chain_put_together_reads_and_writes_as_one_opened_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (base, child) = pair(&folder, 4 * MIB).await;
    let upper = alone(&child).await;
    assert_eq!(content(&upper).await, vec![0; 4 << 20], "without its parent it holds nothing");
    let parent = Connection::local(Access::ReadOnly).open(&base).await.unwrap();
    Disk::is_attach_possible(&parent, &upper).await.unwrap();
    Disk::attach(&parent, &upper).await.unwrap();
    // The child keeps its parent open.
    parent.close().await.unwrap();
    upper.write_at(MIB + 100, Bytes::from_static(b"a part of a grain")).await.unwrap();
    let mut expected = vec![1; 4 << 20];
    expected[MIB as usize + 100..][..17].copy_from_slice(b"a part of a grain");
    assert!(content(&upper).await == expected);
    let again = Disk::is_attach_possible(&upper, &upper).await.unwrap_err();
    assert!(matches!(again, Error::NotAttachable { problem: AttachProblem::ChildHasParents, .. }), "{again}");
    upper.close().await.unwrap();

    let whole = Connection::local(Access::ReadOnly).open(&child).await.unwrap();
    assert!(content(&whole).await == expected, "opened by its own descriptor it is the same");
    if has_qemu() {
        run("qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 1 0 1M", "-c", "read -P 1 2M 2M", &child]);
    }
}

#[tokio::test]
async fn what_does_not_belong_together_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (base, child) = pair(&folder, MIB).await;
    let local = Connection::local(Access::ReadWrite);
    let (large, other) = (within(&folder, "large.vmdk"), within(&folder, "other.vmdk"));
    local.create(&large, &CreateSpec::new(DiskKind::MonolithicFlat, 2 * MIB)).await.unwrap();
    local.create(&other, &CreateSpec::new(DiskKind::MonolithicFlat, MIB)).await.unwrap();
    let upper = alone(&child).await;
    let problem = async |parent: &str, child: &Disk| {
        let parent = local.open(parent).await.unwrap();
        match Disk::attach(&parent, child).await {
            Err(Error::NotAttachable { problem, .. }) => problem,
            outcome => panic!("{outcome:?}"),
        }
    };
    let sizes = AttachProblem::Capacity { parent: 2 * MIB, child: MIB };
    assert_eq!(problem(&large, &upper).await, sizes);
    assert!(matches!(problem(&other, &upper).await, AttachProblem::ContentId { .. }));
    assert_eq!(problem(&base, &alone(&other).await).await, AttachProblem::ChildIsBase);
    // Refused, it is as it was.
    assert_eq!(upper.read_at(0, 4).await.unwrap(), &[0; 4][..]);
    upper.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_kept_here_over_a_disk_that_is_read_over_the_network() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let remote = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    let before = content(&remote).await;
    let folder = tempfile::tempdir().unwrap();
    // A child of a disk that looks like the remote one.
    let (_, child) = pair(&folder, remote.capacity()).await;
    let upper = alone(&child).await;
    Disk::attach(&remote, &upper).await.unwrap();
    assert!(content(&upper).await == before);
    upper.write_at(MIB + 1000, Bytes::from_static(b"only here")).await.unwrap();
    let mut expected = before.clone();
    expected[MIB as usize + 1000..][..9].copy_from_slice(b"only here");
    assert!(content(&upper).await == expected);
    assert!(content(&remote).await == before);
    let areas = upper.allocated(0..upper.capacity()).await.unwrap();
    assert!(areas.total() < 2 * MIB, "the parent's holes are known: {areas:?}");
    remote.close().await.unwrap();
    upper.close().await.unwrap();
    lab.end().await;
}
