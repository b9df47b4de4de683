//! Changed areas of First Class Disks, paged with the same checks as those of virtual machines' disks.

use futures_util::TryStreamExt as _;
use vsphere_cbt::{ChangeId, Error, FcdAreaQuery, Since, changed_fcd_areas};
use vsphere_sim::{Simulator, storage::TrackingOptions};
use vsphere_vim::{
    Credentials, Vim,
    fcd::{CreateFcd, FirstClassDisks},
    mo,
};

const MIB: u64 = 1 << 20;

async fn connect(sim: &Simulator) -> Vim {
    let credentials = Credentials::password(sim.username(), sim.password());
    let pin = sim.thumbprint_sha256().parse().unwrap();
    Vim::builder(sim.url()).credentials(credentials).thumbprint(pin).connect().await.unwrap()
}

/// Backs a disk up twice and checks that the second time gives exactly what was written in between.
async fn twice(sim: &Simulator, vim: &Vim, disks: &FirstClassDisks) {
    let rows = vim.properties::<mo::Datastore>().select((mo::Datastore::SUMMARY,)).collect().await.unwrap();
    let disk = disks.create(CreateFcd::new("data", &rows[0].object, 64 * MIB)).await.unwrap();
    disks.set_change_tracking(&disk.disk, true).await.unwrap();
    let bytes = sim.first_class_disk(disk.id.as_str()).unwrap();
    bytes.write_at(5 * MIB, b"before").unwrap();

    let first = disks.create_snapshot(&disk.disk, "full").await.unwrap();
    let base = disks.snapshot_details(&disk.disk, &first).await.unwrap().change_id.unwrap();
    let base: ChangeId = base.parse().unwrap();
    let full = FcdAreaQuery::new(disk.disk.clone(), first.clone(), Since::Allocated, disk.capacity);
    let full: Vec<_> = changed_fcd_areas(disks, full).try_collect().await.unwrap();
    assert!(full.iter().any(|area| area.contains(&(5 * MIB))) && full.len() == 1, "{full:?}");
    disks.delete_snapshot(&disk.disk, &first).await.unwrap();

    // More areas than one answer holds, so the question is asked again and again.
    let places: Vec<u64> = (0..20).map(|at| at * 3 * MIB).collect();
    for place in &places {
        bytes.write_at(*place, b"after").unwrap();
    }
    let second = disks.create_snapshot(&disk.disk, "incremental").await.unwrap();
    let query = || FcdAreaQuery::new(disk.disk.clone(), second.clone(), Since::Change(&base), disk.capacity);
    let areas: Vec<_> = changed_fcd_areas(disks, query()).try_collect().await.unwrap();
    assert_eq!(areas, places.iter().map(|place| *place..place + 64 * 1024).collect::<Vec<_>>());

    // After the reset nobody can tell; a full backup is the way on.
    bytes.reset_tracking();
    let third = disks.create_snapshot(&disk.disk, "after the reset").await.unwrap();
    let stale = FcdAreaQuery::new(disk.disk.clone(), third, Since::Change(&base), disk.capacity);
    let error = changed_fcd_areas(disks, stale).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(&error, Error::ChangeIdStale { .. }) && error.needs_full_backup(), "{error}");
    disks.delete(&disk.disk).await.unwrap();
    assert!(sim.first_class_disk(disk.id.as_str()).is_err());
}

async fn simulator() -> Simulator {
    // `TrackingOptions` may grow, so it is changed and not built.
    let mut tracking = TrackingOptions::default();
    (tracking.max_areas, tracking.first_snapshot_has_id) = (6, true);
    Simulator::builder().tracking(tracking).start().await.unwrap()
}

#[tokio::test]
async fn areas_of_a_first_class_disk_are_followed_to_the_end_on_vcenter() {
    let sim = simulator().await;
    let vim = connect(&sim).await;
    twice(&sim, &vim, &vim.first_class_disks().unwrap()).await;
    vim.logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn areas_of_a_first_class_disk_are_followed_to_the_end_through_the_lifecycle_service() {
    let sim = simulator().await;
    let vim = connect(&sim).await;
    twice(&sim, &vim, &vim.vslm().await.unwrap().first_class_disks()).await;
    vim.logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}
