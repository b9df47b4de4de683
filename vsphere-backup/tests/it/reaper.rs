//! What dead jobs left, found without their journals.

use std::time::{Duration, SystemTime};

use vsphere_backup::{
    Clock, Error,
    journal::Journal,
    reaper::{Journals, Leases, Left, Outcome, Reaper, RemoveAll, Verdict},
    step::Step,
};
use vsphere_sim::DiskSpec;
use vsphere_vim::{
    CreateSnapshotOptions, Vim,
    fcd::CreateFcd,
    method_lock::{LockOutcome, MethodLock},
    mo,
};

use crate::{resume::HangAt, site::Site, world::MIB};

const MARKER: &str = "vsphere-backup job 0123456789abcdef";

/// A machine with a snapshot and a lock of a job that is dead, and a snapshot of somebody else.
async fn site() -> Site {
    let site = Site::with([DiskSpec::empty(MIB)]).await;
    for (name, description) in [("vsphere-backup", MARKER), ("another's", "before the update")] {
        let options = CreateSnapshotOptions::new(name).description(description);
        site.vim.create_snapshot(&site.vm(), options).await.unwrap();
    }
    let lock = MethodLock::against_migration(&site.vm(), MARKER);
    assert_eq!(site.vim.lock_methods(&lock).await.unwrap(), LockOutcome::Taken);
    site
}

fn reaper(site: &Site) -> Reaper {
    Reaper::new(Journals::in_folder(site.journals())).older_than(Duration::ZERO)
}

async fn disk_snapshot(vim: &Vim, description: &str) {
    let disks = vim.first_class_disks().unwrap();
    let rows = vim.properties::<mo::Datastore>().select((mo::Datastore::SUMMARY,)).collect().await.unwrap();
    let disk = disks.create(CreateFcd::new("data", &rows[0].object, 64 * MIB)).await.unwrap();
    disks.create_snapshot(&disk.disk, description).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_carries_the_marker_is_removed_and_nothing_else() {
    let site = site().await;
    disk_snapshot(&site.vim, MARKER).await;
    disk_snapshot(&site.vim, "another's").await;
    let reaper = reaper(&site);
    let scan = reaper.scan(&site.vim).await.unwrap();
    assert_eq!(scan.unseen, Vec::<String>::new());
    assert_eq!(scan.found.len(), 3, "{scan:?}");
    assert!(scan.found.iter().all(|found| found.job == "0123456789abcdef" && found.verdict == Verdict::Stale));
    assert_eq!(site.sim.leftovers().snapshots.len(), 4, "a scan changes nothing");
    let reaped = reaper.reap(&site.vim, &scan.found).await.unwrap();
    assert!(reaped.iter().all(|reaped| matches!(reaped.outcome, Outcome::Gone)), "{reaped:?}");
    let left = site.sim.leftovers();
    assert!(left.locks.is_empty(), "{left:?}");
    assert_eq!(left.snapshots.len(), 2, "{left:?}");
    assert!(left.snapshots.iter().all(|name| name.ends_with("/another's")), "{left:?}");
    assert!(reaper.scan(&site.vim).await.unwrap().found.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_young_or_of_a_living_job_is_kept_also_when_it_came_to_life_after_the_scan() {
    let site = site().await;
    let young = reaper(&site).older_than(Duration::from_secs(3600)).scan(&site.vim).await.unwrap();
    assert!(young.found.iter().all(|found| found.verdict == Verdict::TooYoung), "{young:?}");
    let reaper = reaper(&site);
    let stale = reaper.scan(&site.vim).await.unwrap();
    assert_eq!(stale.found.len(), 2);
    // A backup of the machine runs on this proxy.
    let held = Journal::open(&site.journals(), &site.id()).unwrap();
    let live = reaper.scan(&site.vim).await.unwrap();
    assert!(live.found.iter().all(|found| matches!(&found.verdict, Verdict::Live(_))), "{live:?}");
    let kept = reaper.reap(&site.vim, &stale.found).await.unwrap();
    assert!(kept.iter().all(|kept| matches!(kept.outcome, Outcome::Kept(Verdict::Live(_)))), "{kept:?}");
    let all = reaper.remove_all_snapshots(&site.vim, &site.vm(), RemoveAll::EverybodysSnapshots).await;
    assert!(matches!(all, Err(Error::Refused { .. })), "{all:?}");
    assert_eq!(site.sim.leftovers().snapshots.len(), 2);
    drop(held);
    reaper.remove_all_snapshots(&site.vim, &site.vm(), RemoveAll::EverybodysSnapshots).await.unwrap();
    assert!(site.sim.leftovers().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_alone_is_stale_when_it_was_seen_for_long_enough() {
    let site = Site::with([DiskSpec::empty(MIB)]).await;
    for source in [MARKER, "another product"] {
        let lock = MethodLock::against_migration(&site.vm(), source);
        site.vim.lock_methods(&lock).await.unwrap();
        let reaper = reaper(&site).older_than(Duration::from_secs(3600));
        let scan = reaper.scan(&site.vim).await.unwrap();
        let ours = source == MARKER;
        assert_eq!(scan.found.len(), usize::from(ours), "{scan:?}");
        if ours {
            assert!(matches!(scan.found[0].what, Left::Lock { .. }));
            assert_eq!(scan.found[0].verdict, Verdict::TooYoung, "it is seen for the first time");
            let backup = site.backup();
            let gone = backup.clean_up_from_elsewhere(&reaper.clone().older_than(Duration::ZERO)).await.unwrap();
            assert_eq!(gone.len(), 1);
        }
        assert_eq!(site.sim.leftovers().locks.len(), usize::from(!ours));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_spared_while_its_lease_in_the_repository_lives_and_fenced_when_it_does_not() {
    let site = Site::with([DiskSpec::empty(MIB)]).await;
    // A backup on another proxy, whose journals nobody here sees.
    site.guest_writes(2000, 0, b"data");
    let hook = HangAt::new(Step::ReadDisk, 1);
    let running = site.backup().step_hook(hook.clone()).start(&site.repository);
    hook.hangs.notified().await;
    let (clock, hand) = Clock::by_hand(SystemTime::now());
    let nowhere = tempfile::tempdir().unwrap();
    let reaper = Reaper::new(Journals::in_folder(nowhere.path()))
        .and(Leases::of(&site.repository).clock(&clock))
        .older_than(Duration::ZERO);
    let live = reaper.scan(&site.vim).await.unwrap();
    assert_eq!(live.found.len(), 2, "{live:?}");
    assert!(
        live.found.iter().all(|found| matches!(&found.verdict, Verdict::Live(by) if by.contains("lease"))),
        "{live:?}"
    );
    // It gives no sign of life for longer than its lease holds.
    hand.advance(Duration::from_secs(16 * 60));
    let dead = reaper.scan(&site.vim).await.unwrap();
    assert!(dead.found.iter().all(|found| found.verdict == Verdict::Stale), "{dead:?}");
    let reaped = reaper.reap(&site.vim, &dead.found).await.unwrap();
    assert!(reaped.iter().all(|reaped| matches!(reaped.outcome, Outcome::Gone)), "{reaped:?}");
    assert!(site.sim.leftovers().snapshots.is_empty() && site.sim.leftovers().locks.is_empty());
    // It was not dead: it cannot commit any more.
    hook.go.notify_one();
    let late = running.finish().await;
    assert!(late.is_err(), "{late:?}");
    assert!(site.repository.points(&site.id()).await.unwrap().is_empty());
}
