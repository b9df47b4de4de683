//! Points, marks and sets that only a backup and a restore of a machine make, here a simulated one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use vsphere_backup::{
    BackupSet, Clock, Restore,
    repository::{
        PointId, Repository,
        storage::{MemoryStorage, ObjectLocked, Storage},
    },
};
use vsphere_sim::{DiskSpec, Power};

use crate::{
    site::Site,
    world::{CHUNK, noise},
};

/// Backs a machine up in a set and restores it in place, into the repository that `open` opens. Of the set, both objects
/// stay: nothing was deleted while it was written. Returns the point and what it holds.
pub(crate) async fn restored_and_in_a_set(
    storage: &Arc<MemoryStorage>,
    open: impl AsyncFn(Arc<dyn Storage>) -> Repository,
) -> (PointId, Vec<u8>) {
    let site = Site::with([DiskSpec::empty(2 * CHUNK)]).await;
    site.guest_writes(2000, 0, &noise(50, CHUNK + 512));
    let content = site.content(2000);
    let locked = ObjectLocked::new(storage.clone(), DAY, Clock::by_hand(SystemTime::now()).0);
    let locked = open(Arc::new(locked)).await;
    let report = BackupSet::of("shop", [site.backup()]).run(&locked).await.unwrap();
    let id = report.points().next().unwrap().id().clone();
    let point = open(storage.clone()).await.point(&id).await.unwrap();
    site.guest_writes(2000, 512, b"what the restore undoes");
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    Restore::of(&point).to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == content);
    (id, content)
}

const DAY: Duration = Duration::from_secs(24 * 3600);
