//! Files read out of a snapshot over port 902, and out of a recovery point: what went in comes out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vixdisklib::{Access, Connection, ConnectionOptions};
use vixmntapi::fs::{Consistency, FileKind};
use vixmntapi::set::{Contents, DiskSet};
use vixmntapi::walk::Walk;
use vmdk::Image;
use vsphere_backup::Backup;
use vsphere_backup::instant::InstantOptions;
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_sim::{DiskSpec, Simulator};
use vsphere_vim::{CreateSnapshotOptions, Credentials, MoRef, RemoveSnapshotOptions, Thumbprint, Vim};

use crate::file_systems::ext4;
use crate::support::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_over_the_network_and_a_recovery_point_hold_the_files_that_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = ext4(folder.path()) else { return };
    let tree = folder.path().join("tree");
    let site = Site::with(DiskSpec::raw_file(&image)).await;
    let vim = connect(&site.sim).await;
    let vm = MoRef::new(site.sim.vm("web").unwrap().id());
    let repository = Repository::create_local(site.path("repository"), CreateOptions::default()).await.unwrap();
    let report = Backup::of(&vim, vm.clone()).journal(site.path("journal")).run(&repository).await.unwrap();

    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("files")).await.unwrap();
    // What the guest does from now on is in neither.
    site.disk().write_at(0, &[0xff; 1 << 20]).unwrap();
    let options = ConnectionOptions::new().snapshot(snapshot.clone());
    let connection = Connection::connect_with(&vim, &vm, Access::ReadOnly, "nbdssl", options).await.unwrap();
    let disk = connection.open(&connection.disks().await.unwrap()[0].path).await.unwrap();
    assert_holds(disk.image(), tree.clone()).await;
    disk.close().await.unwrap();
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();

    let disk = report.point.open_disk(2000, InstantOptions::read_only()).await.unwrap();
    assert_holds(disk.disk().image(), tree).await;
    disk.close().await.unwrap();
    vim.logout().await.unwrap();
    site.assert_clean();
}

/// Reads everything on a disk and compares it with a folder.
async fn assert_holds(disk: Arc<dyn Image>, tree: PathBuf) {
    tokio::task::spawn_blocking(move || {
        let set = DiskSet::builder().disk(disk).open().unwrap();
        let [volume] = &set.volumes().unwrap()[..] else { panic!("one volume is expected") };
        let Contents::FileSystem(info) = volume.contents().unwrap() else { panic!("{volume:?} is no file system") };
        assert_eq!((info.kind, info.consistency), ("ext4", Consistency::Clean));
        let mounted = volume.mount().unwrap();
        let mut files = 0;
        for found in Walk::new(mounted.file_system()) {
            let found = found.unwrap();
            let path = found.path.to_string_lossy().into_owned();
            let kind = mounted.metadata(&path).unwrap().kind;
            if kind == FileKind::File {
                assert!(mounted.read(&path, 1 << 20).unwrap() == std::fs::read(tree.join(&path)).unwrap(), "{path}");
                files += 1;
            }
        }
        assert_eq!(files, count(&tree));
    })
    .await
    .unwrap();
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

async fn connect(sim: &Simulator) -> Vim {
    Vim::builder(sim.url())
        .credentials(Credentials::password(sim.username(), sim.password()))
        .thumbprint(sim.thumbprint_sha256().parse::<Thumbprint>().unwrap())
        .connect()
        .await
        .unwrap()
}
