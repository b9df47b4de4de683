//! Several processes on one repository, killed and stopped at any moment.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

mod crowd;
#[allow(dead_code)] // Shared with the other tests, which need all of it.
#[path = "../it/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use vsphere_backup::repository::storage::{LocalStorage, Storage};

use crate::crowd::{Crowd, work};

fn open(place: &str) -> Arc<dyn Storage> {
    Arc::new(LocalStorage::open(place).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests run it in processes of their own"]
async fn worker() {
    work(open).await;
}

async fn crowd_in_a_folder(length: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repository");
    Crowd::new(open, place.to_str().unwrap(), folder.path(), length).run().await.assert_telling(length);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_leave_every_committed_point_whole() {
    crowd_in_a_folder(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute and more"]
async fn for_a_minute_processes_that_are_killed_leave_every_committed_point_whole() {
    crowd_in_a_folder(Duration::from_secs(60)).await;
}
