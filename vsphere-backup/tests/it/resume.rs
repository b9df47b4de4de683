//! Interrupted backups that go on where they were, and such that must not.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use vsphere_backup::{
    Backup, CancelToken, Event, Result, Since,
    journal::Journal,
    repository::{BackupMode, Repository, VerifyLevel, storage::BoxFuture},
    step::{Step, StepCall, StepHook},
};
use vsphere_sim::DiskSpec;

use crate::{
    site::Site,
    world::{KIB, MIB, noise},
};

/// Hangs at a call of a step, the first being 1, and tells so.
pub(crate) struct HangAt {
    step: Step,
    call: usize,
    calls: AtomicUsize,
    pub(crate) hangs: Notify,
    /// Lets it go on.
    pub(crate) go: Notify,
}

impl HangAt {
    pub(crate) fn new(step: Step, call: usize) -> Arc<Self> {
        Arc::new(Self { step, call, calls: AtomicUsize::new(0), hangs: Notify::new(), go: Notify::new() })
    }
}

impl StepHook for HangAt {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.step == self.step && self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.call {
                self.hangs.notify_one();
                self.go.notified().await;
            }
            Ok(())
        })
    }
}

pub(crate) const DISK: u64 = 40 * MIB;

/// Two disks, the first of ten runs of 4 MiB.
pub(crate) async fn site() -> Site {
    let site = Site::with([DiskSpec::empty(DISK), DiskSpec::empty(MIB)]).await;
    for at in (0..DISK).step_by(MIB as usize) {
        site.guest_writes(2000, at, &noise(at, 4 * KIB));
    }
    site.guest_writes(2001, 0, &noise(7, 4 * KIB));
    site
}

pub(crate) fn backup(site: &Site) -> Backup {
    site.backup().parallel_disks(1).checkpoint_every(Duration::ZERO)
}

/// Gives a backup up when it hangs.
async fn interrupt(site: &Site, backup: Backup, step: Step, call: usize) {
    let hook = HangAt::new(step, call);
    let running = backup.step_hook(hook.clone()).start(&site.repository);
    hook.hangs.notified().await;
    // Checkpoints of what was read before come to their end.
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.abandon();
    running.finish().await.unwrap_err();
}

pub(crate) fn read(site: &Site, key: i32) -> u64 {
    site.sim.guest("web").unwrap().disk(key).unwrap().counters().nfc_read
}

/// Opens the repository as another process does.
pub(crate) async fn reopened(site: &Site) -> Repository {
    Repository::open_local(site.folder.path().join("repo")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_backup_goes_on_with_its_snapshot_and_reads_only_what_is_not_stored() {
    let site = site().await;
    let content = [(2000, site.content(2000)), (2001, site.content(2001))];
    interrupt(&site, backup(&site), Step::AskAllocated, 2).await;
    let left = Journal::leftovers(&site.journals()).unwrap().remove(0);
    assert_eq!(left.disks[&2000].position, None, "the first disk is done: {left:?}");
    // What the guest writes now is not in the snapshot.
    site.guest_writes(2000, 0, b"later");
    site.sim.guest("web").unwrap().disk(2000).unwrap().reset_counters();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let repository = reopened(&site).await;
    let report = backup(&site)
        .on_event(move |event| told.lock().unwrap().push(format!("{event:?}")))
        .run(&repository)
        .await
        .unwrap();
    assert!(report.resumed && report.recovered.is_none());
    assert!(events.lock().unwrap().iter().any(|event| event.starts_with("Resumed")));
    assert_eq!(read(&site, 2000), 0, "a disk that is done is not opened");
    site.assert_point_equals(&report.point, &content).await;
    site.assert_clean();
    let check = repository.check(VerifyLevel::Full, &CancelToken::new()).await.unwrap();
    assert!(check.is_sound(), "{check:?}");
    // The change ids in it are those of the snapshot: the next one sees what was written meanwhile.
    let content = [(2000, site.content(2000))];
    let next = site.backup().run(&repository).await.unwrap();
    assert!(next.disks.iter().all(|disk| disk.mode == BackupMode::Incremental));
    site.assert_point_equals(&next.point, &content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_goes_on_in_its_middle_in_full_and_incremental_backups() {
    let site = site().await;
    for mode in [BackupMode::Full, BackupMode::Incremental] {
        for at in (0..DISK).step_by(MIB as usize) {
            site.guest_writes(2000, at + 64 * KIB, &noise(at + 1000 + mode as u64, 4 * KIB));
        }
        let content = [(2000, site.content(2000)), (2001, site.content(2001))];
        // Far enough that the first checkpoint was kept: eight runs are in flight at once.
        let call = if mode == BackupMode::Full { 10 } else { 38 };
        // Whether a checkpoint was kept by then is the machine's to say: on a slow one it is tried again.
        let mut tries = 0;
        let stored = loop {
            interrupt(&site, backup(&site), Step::ReadDisk, call).await;
            let mut left = Journal::leftovers(&site.journals()).unwrap().remove(0);
            match left.disks.remove(&2000).filter(|stored| stored.position.is_some()) {
                Some(stored) => break stored,
                None => tries += 1,
            }
            assert!(tries < 20, "no checkpoint was kept");
        };
        let (position, before) = (stored.position.unwrap(), stored.record.bytes.read);
        assert!(position > 0 && position < DISK && before > 0, "{stored:?}");
        site.sim.guest("web").unwrap().disk(2000).unwrap().reset_counters();
        let report = backup(&site).run(&reopened(&site).await).await.unwrap();
        assert!(report.resumed, "{mode:?}");
        assert_eq!(report.disks[0].mode, mode);
        assert_eq!(read(&site, 2000), report.disks[0].bytes.read - before, "nothing is read twice");
        site.assert_point_equals(&report.point, &content).await;
        site.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_is_begun_anew_when_anything_is_not_as_it_was() {
    let site = site().await;
    type Change = fn(&Site, Backup) -> Backup;
    let refusals: [(&str, Change); 4] = [
        ("switched off", |_, backup| backup.since(Since::Nothing).resume_within(Duration::ZERO)),
        ("its snapshot is gone", |site, backup| {
            let (vim, vm) = (site.vim.clone(), site.vm());
            let removed = async move { vim.remove_all_snapshots(&vm, true).await };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed)).unwrap();
            backup.since(Since::Nothing)
        }),
        ("what was stored is gone", |site, backup| {
            std::fs::remove_dir_all(site.folder.path().join("repo/pages")).unwrap();
            backup.since(Since::Nothing)
        }),
        ("a point was made elsewhere", |_, backup| backup),
    ];
    for (what, change) in refusals {
        interrupt(&site, backup(&site).since(Since::Nothing), Step::AskAllocated, 2).await;
        site.guest_writes(2000, 0, what.as_bytes());
        let content = [(2000, site.content(2000)), (2001, site.content(2001))];
        let next = change(&site, backup(&site));
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let told = warnings.clone();
        let next = next.on_event(move |event| {
            if let Event::Warning { message } = event {
                told.lock().unwrap().push(message);
            }
        });
        let report = next.run(&reopened(&site).await).await.unwrap();
        if what == "what was stored is gone" {
            // It goes on with the snapshot, and the disk is read again from its first byte.
            assert!(report.resumed, "{what}");
            assert!(warnings.lock().unwrap().iter().any(|text| text.contains("begun anew")), "{warnings:?}");
        } else {
            assert!(!report.resumed && report.recovered.is_some(), "{what}");
            site.assert_point_equals(&report.point, &content).await;
        }
        site.assert_clean();
    }
}
