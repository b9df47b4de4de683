//! Jobs that back machines up as one set: vApps, lists, all that they select.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt;
use vsphere_backup::{
    CancelToken, ErrorKind, Job,
    job::{JobReport, MachineReport, MachineState, Selection, SetSummary},
    repository::{BackupMode, Fate, Retention, SetOutcome, VerifyLevel},
    schedule::{Demand, ScheduleLimits, Scheduler},
    step::Step,
    task::{TaskChange, TaskEvent, TaskKind},
};
use vsphere_sim::Fault;
use vsphere_vim::MoRef;

use crate::{
    set::{FailsAt, HangsAt, NAMES, content, id, seen, site, vapp, vm, write},
    site::Site,
    world::CHUNK,
};

fn job(site: &Site, selection: Selection) -> Job {
    Job::new("nightly", selection).journal(site.journals()).attempts(1, Duration::ZERO)
}

fn shop(site: &Site) -> Job {
    job(site, Selection::set("shop", NAMES.map(|name| vm(site, name))))
}

fn machine<'a>(report: &'a JobReport, name: &str) -> &'a MachineReport {
    report.machines.iter().find(|machine| machine.name == name).unwrap()
}

fn only_set(report: &JobReport) -> &SetSummary {
    assert_eq!(report.sets.len(), 1, "{report:?}");
    &report.sets[0]
}

/// The kinds of tasks with their parents, in order.
fn begun(events: &[TaskEvent]) -> Vec<(&TaskKind, Option<&TaskKind>)> {
    let kind_of = |task| {
        events.iter().find_map(|event| match &event.change {
            TaskChange::Begun(kind) if event.task == task => Some(kind),
            _ => None,
        })
    };
    let kinds = events.iter().filter_map(|event| match &event.change {
        TaskChange::Begun(kind) => Some((kind, event.parent.and_then(kind_of))),
        _ => None,
    });
    kinds.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vapp_is_one_set_beside_other_machines_and_the_next_run_builds_on_it() {
    let site = site().await;
    let selection = Selection::vapp(vapp(&site).await).and_vm(vm(&site, "web")).and_vm(vm(&site, "db"));
    let run = || job(&site, selection.clone()).verify(VerifyLevel::Full).retention(Retention::keep().last(1));
    let first = run();
    let heard = tokio::spawn(first.events().collect::<Vec<TaskEvent>>());
    let report = first.run(&site.vim, &site.repository).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    site.assert_clean();
    let set = only_set(&report);
    assert_eq!((set.name.as_str(), set.outcome, set.attempts), ("shop", Some(SetOutcome::Complete), 1));
    assert_eq!(
        set.machines,
        ["db", "app"].map(|name| vm(&site, name).value().to_owned()),
        "in the order of their start"
    );
    for name in ["app", "db"] {
        let machine = machine(&report, name);
        assert_eq!((machine.set.as_deref(), machine.state), (Some("shop"), MachineState::Done), "{machine:?}");
        assert_eq!(machine.verified.as_ref().unwrap().damage, 0);
        let point = site.repository.point(machine.point.as_ref().unwrap()).await.unwrap();
        assert_eq!(Some(point.set().unwrap().id.as_str()), set.id.as_deref());
        assert_eq!(point.points_of_set().await.unwrap().len(), 2);
    }
    assert_eq!((report.machines.len(), &machine(&report, "web").set), (3, &None));
    let written = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<JobReport>(&written).unwrap(), report);

    let heard = heard.await.unwrap();
    let in_set = |name: &str| {
        let of_set = |parent: Option<&TaskKind>| matches!(parent, Some(TaskKind::Set { name }) if name == "shop");
        let is_it = |kind: &TaskKind| matches!(kind, TaskKind::Machine { name: it, .. } if it == name);
        begun(&heard).iter().any(|(kind, parent)| is_it(kind) && of_set(*parent))
    };
    assert!(in_set("db") && in_set("app") && !in_set("web"), "{:?}", begun(&heard));

    // The next run reads what changed, and what the set was before goes as a whole.
    write(&site, "app", b"changed");
    let next = run().run(&site.vim, &site.repository).await.unwrap();
    assert!(next.is_complete(), "{next:?}");
    for name in NAMES {
        let (before, now) = (machine(&report, name), machine(&next, name));
        assert_eq!(now.disks[0].mode, BackupMode::Incremental, "{now:?}");
        assert_eq!(now.disks[0].bytes.read, if name == "app" { CHUNK } else { 0 }, "{name}");
        assert_eq!(now.retained.as_ref().unwrap().deleted, [before.point.clone().unwrap()], "{now:?}");
        let point = site.repository.point(now.point.as_ref().unwrap()).await.unwrap();
        site.assert_point_equals(&point, &[(2000, content(&site, name))]).await;
    }
    assert_eq!(seen(&site).await, [1, 1, 1]);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_member_gives_up_its_set_or_only_itself_as_configured() {
    let site = site().await;
    for whole in [true, false] {
        for step in [Step::CreateSnapshot, Step::Commit] {
            let before = seen(&site).await;
            let job = shop(&site)
                .configure(move |machine, backup| match machine.name.as_str() {
                    "app" => backup.step_hook(Arc::new(FailsAt(step))),
                    _ => backup,
                })
                .configure_set(move |_, set| set.all_or_nothing(whole))
                .retention(Retention::keep().last(1));
            let report = job.run(&site.vim, &site.repository).await.unwrap();
            site.assert_clean();
            let set = only_set(&report);
            assert_eq!((set.outcome, set.all_or_nothing), (Some(SetOutcome::GivenUp), whole), "{report:?}");
            assert!(set.error.as_ref().unwrap().message.contains("injected"), "{set:?}");
            assert!(!report.is_complete());
            let added: Vec<_> = seen(&site).await.iter().zip(before).map(|(now, then)| now - then).collect();
            assert_eq!(added, if whole { [0, 0, 0] } else { [1, 0, 1] }, "{step}: nothing is pruned either");
            for (name, added) in NAMES.into_iter().zip(added) {
                let machine = machine(&report, name);
                assert_eq!(machine.point.is_some(), added == 1, "{machine:?}");
                assert_eq!(machine.state == MachineState::Failed, added == 0, "{machine:?}");
                assert!(machine.retained.is_none());
            }
        }
    }
    // What may pass is tried again, by all of them.
    site.sim.faults().fail_next_task("CreateSnapshot_Task", Fault::new("InsufficientResourcesFault", "injected"));
    let report = shop(&site).run(&site.vim, &site.repository).await.unwrap();
    assert_eq!(report.count(MachineState::Failed), 3, "one try was allowed: {report:?}");
    let report = shop(&site).run(&site.vim, &site.repository).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_with_a_machine_in_common_are_one_and_what_is_missing_fails_its_set() {
    let site = site().await;
    let (db, app, web) = (vm(&site, "db"), vm(&site, "app"), vm(&site, "web"));
    let twice = Selection::set("one", [db.clone()]).and_set("two", [web.clone()]).and_set("three", [app, web.clone()]);
    let found = twice.resolve(&site.vim).await.unwrap();
    let names: Vec<_> = found
        .sets
        .iter()
        .map(|set| (set.name.as_str(), set.machines.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(names, [("one", vec!["db"]), ("two", vec!["web", "app"])]);
    assert!(found.machines.is_empty());

    // A machine that is gone fails its set, and a vApp that is gone is a failure too; others are backed up.
    let gone = MoRef::new("vm-4711");
    let selection = Selection::set("pair", [db, gone]).and_vapp(MoRef::new("resgroup-v999")).and_vm(web);
    let report = job(&site, selection).run(&site.vim, &site.repository).await.unwrap();
    assert_eq!(report.sets.iter().map(SetSummary::is_complete).collect::<Vec<_>>(), [false, false]);
    let fault = |name: &str| machine(&report, name).error.as_ref().map(|error| error.kind);
    assert_eq!(
        (fault("db"), fault("vm-4711"), fault("web")),
        (Some(ErrorKind::Refused), Some(ErrorKind::Server), None)
    );
    assert_eq!(report.sets[1].error.as_ref().unwrap().kind, ErrorKind::Invalid, "{report:?}");
    assert_eq!(seen(&site).await, [0, 0, 1]);

    // All of a selection as one set; what is selected by no set is named once.
    let report = job(&site, Selection::all(&site.vim)).as_set("all").run(&site.vim, &site.repository).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((only_set(&report).name.as_str(), only_set(&report).machines.len()), ("all", 3));
    let point = site.repository.point(machine(&report, "db").point.as_ref().unwrap()).await.unwrap();
    assert_eq!(point.points_of_set().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_a_job_waits_for_room_for_all_its_snapshots() {
    let site = site().await;
    let scheduler = Scheduler::new(ScheduleLimits::default().per_datastore(3));
    let other = Demand::of(&site.vim, &vm(&site, "web")).await.unwrap();
    let place = scheduler.register().admit(&other).await;
    let running = shop(&site).scheduler(&scheduler).start(&site.vim, &site.repository);
    while scheduler.counts() != (1, 3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!running.is_finished() && site.sim.leftovers().snapshots.is_empty());
    drop(place);
    let report = running.finish().await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert!(report.machines.iter().all(|machine| machine.waited > Duration::ZERO));

    // Stopped while it waits, it is not begun.
    let place = scheduler.register().admit(&other).await;
    let running = shop(&site).scheduler(&scheduler).start(&site.vim, &site.repository);
    while scheduler.counts() != (1, 3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.stop_gracefully();
    let report = running.finish().await.unwrap();
    assert_eq!((report.count(MachineState::NotBegun), only_set(&report).attempts), (3, 0), "{report:?}");
    assert_eq!((only_set(&report).outcome, scheduler.counts()), (None, (1, 0)));
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_is_cancelled_is_undone_and_one_that_is_abandoned_is_ended_by_the_next() {
    let site = site().await;
    for abandoned in [false, true] {
        let hook = Arc::new(HangsAt(Step::Commit, tokio::sync::Notify::new()));
        let of_app = hook.clone();
        let token = CancelToken::new();
        let job = shop(&site).cancel(&token).configure(move |machine, backup| match machine.name.as_str() {
            "app" => backup.step_hook(of_app.clone()),
            _ => backup,
        });
        let running = job.start(&site.vim, &site.repository);
        hook.1.notified().await;
        if abandoned {
            token.abandon()
        } else {
            token.cancel()
        }
        let report = running.finish().await.unwrap();
        assert_eq!(report.count(MachineState::Done), 0, "{report:?}");
        assert_eq!(machine(&report, "app").state, MachineState::Cancelled);
        assert_eq!(seen(&site).await, [0, 0, 0]);
        if !abandoned {
            site.assert_clean();
        }
    }
    let report = shop(&site).run(&site.vim, &site.repository).await.unwrap();
    assert_eq!(only_set(&report).outcome, Some(SetOutcome::Complete), "{report:?}");
    assert_eq!(seen(&site).await, [1, 1, 1]);
    assert_eq!(site.repository.settle_sets(0).await.unwrap(), []);
    site.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_points_of_a_set_are_kept_or_deleted_together() {
    let site = site().await;
    for _ in 0..3 {
        assert!(shop(&site).run(&site.vim, &site.repository).await.unwrap().is_complete());
    }
    let mut points = Vec::new();
    for name in NAMES {
        points.push(site.repository.points(&id(&site, name)).await.unwrap());
    }
    let last = Retention::keep().last(1);
    let (db, all) = ([id(&site, "db")].into(), NAMES.map(|name| id(&site, name)).into());
    // One machine alone: its older points belong to sets of which others stay.
    let report = site.repository.prune_machines(&db, &last, false).await.unwrap();
    assert!(matches!(&report.points[0].fate, Fate::KeptWithSet(stays) if *stays == points[1][0]), "{report:?}");
    assert_eq!(report.deleted().count(), 0);
    // What is held of one keeps the others of its set.
    let hold = site.repository.point(&points[2][0]).await.unwrap().hold("court", None).await.unwrap();
    let asked = site.repository.prune_machines(&all, &last, true).await.unwrap();
    let done = site.repository.prune_machines(&all, &last, false).await.unwrap();
    assert_eq!(asked.points, done.points);
    let second: BTreeSet<_> = points.iter().map(|points| points[1].clone()).collect();
    assert_eq!(done.deleted().cloned().collect::<BTreeSet<_>>(), second);
    let kept = done.points.iter().filter(|pruned| pruned.fate == Fate::KeptWithSet(points[2][0].clone()));
    assert_eq!((kept.count(), seen(&site).await), (2, vec![2, 2, 2]));
    site.repository.release_hold(&hold).await.unwrap();
    let rest = site.repository.prune(None, &last, false).await.unwrap();
    assert_eq!((rest.deleted().count(), seen(&site).await), (3, vec![1, 1, 1]));
}
