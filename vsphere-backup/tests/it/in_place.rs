//! Restoring in place: power, snapshots, change tracking, going on where an earlier run was.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{
    CancelToken, Error, Event, PowerPolicy, Restore, RestoreMode, RestoreReport,
    journal::Journal,
    repository::{BackupMode, RecoveryPoint},
    step::Step,
};
use vsphere_sim::{Fault, Power};
use vsphere_vim::{CreateSnapshotOptions, PowerState, vm::ShutdownPolicy};

use crate::{
    resume::HangAt,
    site::Site,
    world::{CHUNK, KIB, MIB, noise},
};

impl Site {
    fn in_place(&self, point: &RecoveryPoint) -> Restore {
        Restore::of(point).mode(RestoreMode::OnlyDifferences).journal(self.journals())
    }

    async fn power(&self) -> PowerState {
        self.vim.power_state(&self.vm()).await.unwrap()
    }

    fn power_off(&self) {
        self.sim.vm("web").unwrap().set_power(Power::Off).unwrap();
    }
}

fn compared(report: &RestoreReport) -> u64 {
    report.disks.iter().map(|disk| disk.bytes.compared).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_tracking_says_what_to_compare_and_its_snapshot_is_gone() {
    let site = Site::new().await;
    let before = [site.content(2000), site.content(2001)];
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 3 * MIB + 700, b"changed");
    site.guest_writes(2000, 6 * MIB, &noise(8, 10 * KIB));
    site.power_off();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = seen.clone();
    let report = site
        .in_place(&point)
        .change_tracking(true)
        .on_event(move |event| events.lock().unwrap().push(format!("{event:?}")))
        .to_vm(&site.vim, site.vm())
        .await
        .unwrap();
    assert!(site.content(2000) == before[0] && site.content(2001) == before[1]);
    assert_eq!(compared(&report), 2 * CHUNK, "{report:?}");
    assert!(report.disks.iter().all(|disk| disk.verified));
    let seen = seen.lock().unwrap().join("\n");
    assert!(seen.contains("SnapshotCreated") && seen.contains("SnapshotRemoved"), "{seen}");
    site.assert_clean();
    // The restore counts as a change that tracking may not have seen.
    let again = site.in_place(&point).change_tracking(true).to_vm(&site.vim, site.vm()).await.unwrap();
    // All of it but its holes, of which nothing has to be read.
    assert!(compared(&again) > 16 * CHUNK, "{again:?}");
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_change_ids_do_not_follow_each_other_the_disk_is_compared_as_a_whole() {
    let site = Site::new().await;
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.sim.guest("web").unwrap().disk(2000).unwrap().reset_tracking();
    site.guest_writes(2000, MIB, b"unseen");
    site.power_off();
    let without = Restore::of(&point).mode(RestoreMode::OnlyDifferences).change_tracking(true);
    assert!(matches!(without.to_vm(&site.vim, site.vm()).await, Err(Error::Invalid { .. })), "no journal");
    let report = site.in_place(&point).change_tracking(true).to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    assert_eq!(report.disks[1].bytes.compared, 0, "nothing changed there");
    assert!(report.disks[0].bytes.compared > MIB && report.disks[0].bytes.zeroed == CHUNK, "{report:?}");
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_while_changes_are_asked_for_leaves_nothing_or_a_note_in_the_journal() {
    let site = Site::new().await;
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, MIB, b"changed");
    site.power_off();
    let restore = || site.in_place(&point).change_tracking(true);
    for method in ["CreateSnapshot_Task", "RemoveSnapshot_Task"] {
        // The removal is tried again when the restore undoes.
        for _ in 0..if method == "RemoveSnapshot_Task" { 2 } else { 1 } {
            site.sim.faults().fail_next(method, Fault::new("SystemError", "injected"));
        }
        let failed = restore().to_vm(&site.vim, site.vm()).await.unwrap_err();
        assert!(matches!(failed, Error::Server { .. }), "{method}: {failed:?}");
        let left = Journal::leftovers(&site.journals()).unwrap().len();
        assert_eq!(left, usize::from(method == "RemoveSnapshot_Task"), "{method}");
    }
    // The next one undoes that first.
    restore().to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    site.assert_clean();
    site.sim.vm("web").unwrap().set_power(Power::On).unwrap();
    site.backup().run(&site.repository).await.unwrap();
    site.guest_writes(2000, MIB, b"changed");
    site.power_off();
    // Areas that cannot be told are no reason to fail.
    site.sim.faults().fail_next("QueryChangedDiskAreas", Fault::new("SystemError", "injected"));
    restore().to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_powered_off_as_the_policy_says_and_on_again_when_it_is_whole() {
    let site = Site::new().await;
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    let policies = [
        PowerPolicy::PowerOff,
        PowerPolicy::ShutDown(ShutdownPolicy::force().guest_timeout(Duration::from_millis(50))),
    ];
    for policy in policies {
        site.guest_writes(2000, 0, b"changed");
        let report = site.in_place(&point).power(policy.clone()).to_vm(&site.vim, site.vm()).await.unwrap();
        assert!(site.content(2000) == before && report.disks[0].bytes.written > 0, "{policy:?}");
        assert_eq!(site.power().await, PowerState::On, "{policy:?}");
    }
    let refused = site.in_place(&point).to_vm(&site.vim, site.vm()).await;
    assert!(matches!(refused, Err(Error::Refused { .. })));
    assert_eq!(site.power().await, PowerState::On);
    // What is refused before the first byte runs on; what is restored in part stays off.
    site.vim.create_snapshot(&site.vm(), CreateSnapshotOptions::new("mine")).await.unwrap();
    let refused = site.in_place(&point).power(PowerPolicy::PowerOff).to_vm(&site.vim, site.vm()).await.unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("remove_snapshots")), "{refused:?}");
    assert_eq!((site.power().await, site.sim.leftovers().snapshots.len()), (PowerState::On, 1));
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let stop = move |event: Event| {
        if matches!(event, Event::DiskStarted { .. }) {
            token.cancel();
        }
    };
    let restore = || site.in_place(&point).power(PowerPolicy::PowerOff).remove_snapshots(true);
    let cancelled = restore().cancel(&cancel).on_event(stop).to_vm(&site.vim, site.vm()).await;
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(site.power().await, PowerState::Off, "its disks may be half restored");
    restore().to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_restore_goes_on_where_it_was_and_compares_what_was_written() {
    let site = Site::new().await;
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 0, &noise(7, 8 * MIB));
    site.power_off();
    let restore = || Restore::of(&point).disk(2000).journal(site.journals());
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let stop = move |event: Event| {
        if matches!(event, Event::DiskProgress { progress, .. } if progress.position >= 5 * MIB) {
            token.cancel();
        }
    };
    let cancelled = restore().cancel(&cancel).on_event(stop).to_vm(&site.vim, site.vm()).await;
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    let note = site.journals().join(format!("{}.restore", site.id()));
    assert!(note.is_file());
    // Somebody meddles with what was written.
    site.guest_writes(2000, 4096, b"meddled");
    let report = restore().to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    let bytes = report.disks[0].bytes;
    assert!(bytes.compared >= 4 * MIB && bytes.compared < 8 * MIB, "{bytes:?}");
    assert!(bytes.written >= CHUNK && bytes.written < 2 * MIB, "{bytes:?}");
    assert!(!note.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeros_are_not_sent_to_where_the_disk_has_nothing() {
    let site = Site::new().await;
    let before = site.content(2000);
    let point = site.backup().run(&site.repository).await.unwrap().point;
    site.guest_writes(2000, 3 * MIB, b"changed");
    site.power_off();
    let report = Restore::of(&point).to_vm(&site.vim, site.vm()).await.unwrap();
    assert!(site.content(2000) == before);
    let bytes = report.disks[0].bytes;
    assert!(bytes.zeroed <= CHUNK && bytes.zeroed > 0, "only where something is to be zeroed: {bytes:?}");
    assert!(bytes.unchanged > 5 * MIB, "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_between_two_disks_of_a_restore_is_not_what_changes_are_counted_from() {
    let site = Site::new().await;
    let before = [site.content(2000), site.content(2001)];
    let point = site.backup().run(&site.repository).await.unwrap().point;
    for key in [2000, 2001] {
        site.guest_writes(key, 0, &noise(9, CHUNK));
    }
    site.power_off();
    let hook = HangAt::new(Step::OpenDisk, 2);
    // Without a journal, which would keep the backup out.
    let restore = Restore::of(&point).parallel_disks(1).step_hook(hook.clone());
    let (vim, vm) = (site.vim.clone(), site.vm());
    let running = tokio::spawn(async move { restore.to_vm(&vim, vm).await });
    hook.hangs.notified().await;
    let between = site.backup().run(&site.repository).await.unwrap().point;
    assert!(between.id() > point.id());
    hook.go.notify_one();
    running.await.unwrap().unwrap();
    assert!(site.content(2000) == before[0] && site.content(2001) == before[1]);

    // The mark from before the first disk is older than the point in between, which has the second disk as it was.
    let next = site.backup().run(&site.repository).await.unwrap();
    for disk in &next.disks {
        assert!(disk.mode == BackupMode::Full && disk.reason.contains("restored"), "{disk:?}");
    }
    site.assert_point_equals(&next.point, &[2000, 2001].map(|key| (key, site.content(key)))).await;
    site.assert_clean();
}
