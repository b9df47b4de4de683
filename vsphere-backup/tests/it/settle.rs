//! What is in the way of a snapshot, and failures that pass by themselves.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_backup::{Error, Event, Retries, step::Step};
use vsphere_sim::{DiskSpec, Fault, Injection};
use vsphere_vim::{CreateSnapshotOptions, RemoveSnapshotOptions};

use crate::{site::Site, world::MIB};

async fn site() -> Site {
    Site::with([DiskSpec::empty(MIB)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_merge_is_done_before_the_snapshot_and_one_that_fails_is_a_refusal() {
    let site = site().await;
    let pend = async || {
        let snapshot = site.vim.create_snapshot(&site.vm(), CreateSnapshotOptions::new("another's")).await.unwrap();
        site.guest_writes(2000, 0, b"in the delta");
        let keep = RemoveSnapshotOptions { consolidate: false, ..Default::default() };
        site.vim.remove_snapshot(&snapshot, keep).await.unwrap();
        assert!(site.vim.consolidation_needed(&site.vm()).await.unwrap());
    };
    pend().await;
    site.sim.faults().fail_next_task("ConsolidateVMDisks_Task", Fault::new("GenericVmConfigFault", "injected"));
    let refused = site.backup().run(&site.repository).await;
    assert!(
        matches!(&refused, Err(error @ Error::Refused { reason, .. })
            if reason.contains("cannot be merged") && error.hint().is_some()),
        "{refused:?}"
    );
    assert!(site.sim.leftovers().snapshots.is_empty() && site.sim.leftovers().locks.is_empty());

    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = steps.clone();
    let report = site
        .backup()
        .on_event(move |event| {
            if let Event::StepBegun { step, .. } = event {
                told.lock().unwrap().push(step);
            }
        })
        .run(&site.repository)
        .await
        .unwrap();
    site.assert_point_equals(&report.point, &[(2000, site.content(2000))]).await;
    let steps = steps.lock().unwrap();
    let place = |step| steps.iter().position(|taken| *taken == step).unwrap();
    assert!(place(Step::Consolidate) < place(Step::CreateSnapshot), "{steps:?}");
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_that_pass_are_tried_again_at_each_changing_call_and_make_one_snapshot() {
    let site = site().await;
    site.backup().run(&site.repository).await.unwrap();
    for method in ["DisableMethods", "CreateSnapshot_Task", "RemoveSnapshot_Task", "EnableMethods"] {
        for injection in [
            Injection::Fault(Fault::new("TaskInProgress", "injected")),
            Injection::TaskFault(Fault::new("TaskInProgress", "injected")),
            Injection::DropAfter,
        ] {
            if matches!(injection, Injection::TaskFault(_)) && !method.ends_with("_Task") {
                continue;
            }
            site.sim.faults().inject(method, injection.clone());
            let report = site.backup().run(&site.repository).await;
            // A lock whose answer was lost ends the backup, and is released.
            match (&injection, method) {
                (Injection::DropAfter, "DisableMethods") => assert!(report.is_err()),
                _ => assert_eq!(report.unwrap().leftovers, Vec::<String>::new(), "{method}: {injection:?}"),
            }
            site.assert_clean();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_are_bounded_and_the_fault_keeps_its_name() {
    let site = site().await;
    for _ in 0..3 {
        site.sim.faults().fail_next("CreateSnapshot_Task", Fault::new("TaskInProgress", "injected"));
    }
    let pause = Duration::from_millis(1);
    let failed = site.backup().retries(Retries::default().tries(3).pauses(pause, pause)).run(&site.repository).await;
    let Err(Error::Server { source, .. }) = failed else { panic!("{failed:?}") };
    let inner = source.inner().downcast_ref::<vsphere_vim::Error>().unwrap();
    assert_eq!(inner.fault_name(), Some("TaskInProgress"));
    site.assert_clean();
    site.backup().run(&site.repository).await.unwrap();
}
