//! Programs killed in the middle: the next run finds what was left and everything is right again.

use std::process::Stdio;
use std::time::Duration;

use examples::guest_fs::Noise;
use vsphere_backup::repository::{Repository, VerifyLevel};
use vsphere_backup::{CancelToken, FileFormat, Restore};
use vsphere_sim::{DiskSpec, Power};

use crate::support::{Site, content, run, wait_until};

const CAPACITY: u64 = 48 << 20;

/// A machine with 48 MiB of noise, so that a backup takes a while once the server is slow.
async fn site() -> Site {
    let site = Site::with(DiskSpec::empty(CAPACITY)).await;
    let mut noise = Noise::new(11);
    for at in (0..CAPACITY).step_by(1 << 20) {
        site.disk().write_at(at, &noise.bytes(1 << 20)).unwrap();
    }
    site
}

fn slow(site: &Site, delay: Duration) {
    site.sim.nfc().configure(|config| config.delay = delay);
}

/// The newest point equals the machine's disk, byte by byte, and everything in the repository is sound.
async fn assert_newest_point_is_right(site: &Site) {
    let repository = Repository::open_local(site.path("repository")).await.unwrap();
    let check = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(check.is_sound(), "{check:?}");
    let newest = site.points().await.pop().unwrap();
    let point = repository.point(&newest).await.unwrap();
    let image = site.path("check.img");
    Restore::of(&point).overwrite(true).to_file(2000, &image, FileFormat::Raw).await.unwrap();
    assert!(std::fs::read(&image).unwrap() == content(&site.disk()), "the point is not what the guest has");
}

/// Kills a backup when `sign` shows, then runs another.
async fn kill_backup_when(site: &Site, what: &str, sign: impl Fn(&Site) -> bool) {
    let before = site.points().await.len();
    let mut child = site.backup().stdout(Stdio::null()).spawn().unwrap();
    wait_until(&mut child, what, || sign(site));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.points().await.len(), before, "a half-written point is listed after the kill at {what}");

    slow(site, Duration::ZERO);
    let output = run(&mut site.backup());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("undone, left by an earlier run"), "killed at {what}: {text}");
    assert_eq!(site.points().await.len(), before + 1);
    site.assert_clean();
    assert_newest_point_is_right(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_while_it_reads_is_undone_and_done_again() {
    let site = site().await;
    slow(&site, Duration::from_millis(20));
    kill_backup_when(&site, "reading", |site| {
        site.disk().counters().nfc_read > 6 << 20 && !site.sim.vm("web").unwrap().snapshots().is_empty()
    })
    .await;
    // Incremental from here on: killed again, and again made good.
    site.disk().write_at(5 << 20, &Noise::new(5).bytes(8 << 20)).unwrap();
    slow(&site, Duration::from_millis(50));
    let before = site.disk().counters().nfc_read;
    kill_backup_when(&site, "reading changes", |site| site.disk().counters().nfc_read > before + (2 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_with_only_the_migration_lock_taken_leaves_no_lock() {
    let site = site().await;
    run(&mut site.backup());
    site.sim.faults().delay_next("CreateSnapshot_Task", Duration::from_secs(20));
    kill_backup_when(&site, "the lock", |site| !site.sim.vm("web").unwrap().disabled_methods().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_shows_its_snapshot_and_lock_until_the_next_run() {
    let site = site().await;
    slow(&site, Duration::from_millis(20));
    let mut child = site.backup().stdout(Stdio::null()).spawn().unwrap();
    wait_until(&mut child, "reading", || site.disk().counters().nfc_read > 2 << 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let left = site.sim.leftovers();
    assert_eq!((left.snapshots.len(), left.locks.len()), (1, 1), "{left:?}");
    slow(&site, Duration::ZERO);
    run(&mut site.backup());
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_in_the_middle_is_made_good_by_the_next() {
    let site = site().await;
    run(&mut site.backup());
    let stored = content(&site.disk());
    for at in (0..CAPACITY).step_by(2 << 20) {
        site.disk().write_at(at, &Noise::new(at).bytes(700_000)).unwrap();
    }
    site.sim.vm("web").unwrap().set_power(Power::Off).unwrap();

    for arguments in [&["--full"][..], &[]] {
        slow(&site, Duration::from_millis(20));
        let written = site.disk().counters().nfc_written;
        let mut child = site.program("restore").args(arguments).stdout(Stdio::null()).spawn().unwrap();
        wait_until(&mut child, "writing", || site.disk().counters().nfc_written > written + (2 << 20));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(content(&site.disk()) != stored, "killed too late to prove anything");
        slow(&site, Duration::ZERO);
    }
    run(&mut site.program("restore"));
    assert!(content(&site.disk()) == stored, "the restored disk is not the point");
    site.assert_clean();
}
