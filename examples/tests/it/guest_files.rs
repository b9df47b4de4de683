//! Files read out of a snapshot over port 902, and out of a recovery point: what went in comes out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vixdisklib::{Access, Connection, ConnectionOptions};
use vixmntapi::catalogue::Catalogue;
use vixmntapi::fs::{Consistency, FileKind, FileSystem};
use vixmntapi::set::{Contents, DiskSet};
use vsphere_backup::Backup;
use vsphere_backup::instant::InstantOptions;
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim::{CreateSnapshotOptions, Credentials, MoRef, RemoveSnapshotOptions, Thumbprint, Vim};

use crate::file_systems::ext4;
use crate::guest_kinds;
use crate::support::Site;

/// A disk with the folder whose files are on it.
struct Disk {
    kind: &'static str,
    image: PathBuf,
    tree: PathBuf,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_over_the_network_and_a_recovery_point_hold_the_files_that_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = ext4(folder.path()) else { return };
    let mut disks = vec![Disk { kind: "ext4", image, tree: folder.path().join("tree") }];
    let tree = folder.path().join("small");
    let kinds = guest_kinds::all(folder.path(), &tree);
    disks.extend(kinds.into_iter().map(|(kind, image)| Disk { kind, image, tree: tree.clone() }));
    let machine = disks.iter().fold(VmSpec::new("web"), |vm, disk| vm.disk(DiskSpec::raw_file(&disk.image)));
    let site = Site::of(machine).await;
    let vim = connect(&site.sim).await;
    let vm = MoRef::new(site.sim.vm("web").unwrap().id());
    let repository = Repository::create_local(site.path("repository"), CreateOptions::default()).await.unwrap();
    let report = Backup::of(&vim, vm.clone()).journal(site.path("journal")).run(&repository).await.unwrap();

    let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("files")).await.unwrap();
    // What the guest does from now on is in neither.
    site.disk().write_at(0, &[0xff; 1 << 20]).unwrap();
    let options = ConnectionOptions::new().snapshot(snapshot.clone());
    let connection = Connection::connect_with(&vim, &vm, Access::ReadOnly, "nbdssl", options).await.unwrap();
    for (opened, disk) in connection.disks().await.unwrap().iter().zip(&disks) {
        let opened = connection.open(&opened.path).await.unwrap();
        assert_holds(DiskSet::builder().disk(opened.image()), disk).await;
        opened.close().await.unwrap();
    }
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();

    assert_eq!(report.point.disks().len(), disks.len());
    for (stored, disk) in report.point.disks().iter().zip(&disks) {
        let opened = report.point.open_disk(stored.key, InstantOptions::read_only()).await.unwrap();
        assert_holds(DiskSet::builder().disk(opened.disk().image()), disk).await;
        opened.close().await.unwrap();
    }
    vim.logout().await.unwrap();
    site.assert_clean();
}

/// Reads everything on a disk and compares it with a folder, and what there is to know of it with the disk's image.
async fn assert_holds(opened: vixmntapi::set::DiskSetBuilder, disk: &Disk) {
    let (kind, image, tree) = (disk.kind, disk.image.clone(), disk.tree.clone());
    tokio::task::spawn_blocking(move || {
        let set = opened.open().unwrap();
        let [volume] = &set.volumes().unwrap()[..] else { panic!("one volume is expected") };
        let Contents::FileSystem(info) = volume.contents().unwrap() else { panic!("{volume:?} is no file system") };
        assert_eq!((info.kind, info.consistency), (kind, Consistency::Clean));
        let mounted = volume.mount().unwrap();
        let direct = DiskSet::builder().raw(&image).unwrap().open().unwrap().volume("disk0").unwrap().mount().unwrap();
        let (facts, expected) = (facts(mounted.file_system()), facts(direct.file_system()));
        assert!(facts == expected, "{kind}: the same disk tells other things of its files");
        let mut files = 0;
        for record in Catalogue::new(mounted.file_system()) {
            let record = record.unwrap();
            if record.metadata.kind == FileKind::File {
                let path = record.path.to_string_lossy().into_owned();
                let read = mounted.read(&path, 1 << 20).unwrap();
                let expected =
                    std::fs::read(tree.join(&path)).unwrap_or_else(|error| panic!("{kind}: {path}: {error}"));
                assert!(read == expected, "{kind}: {path}");
                files += 1;
            }
        }
        assert_eq!(files, count(&tree), "{kind}");
    })
    .await
    .unwrap();
}

/// All that there is to know of every file.
fn facts(files: &Arc<dyn FileSystem>) -> Vec<String> {
    let records = Catalogue::new(files).digests_up_to(1 << 30);
    records
        .map(|record| {
            let record = record.unwrap();
            format!("{record:?} {:?} {:?}", files.xattrs(record.node), files.security_descriptor(record.node))
        })
        .collect()
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
