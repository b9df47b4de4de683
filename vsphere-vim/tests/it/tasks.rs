//! Waiting for tasks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use vsphere_vim::{
    CreateSnapshotOptions, Error, MoRef, Poly,
    error::TransportErrorKind,
    methods::{
        CancelTask, CancelWaitForUpdates, CreateFilter, CreatePropertyCollector, CreateSnapshot_Task,
        DestroyPropertyCollector, RetrieveProperties, RetrievePropertiesEx, WaitForUpdatesEx,
    },
    mo,
    task::TaskProgress,
    types::{
        Any, FileFault, LocalizedMethodFault, MissingObject, MissingProperty, ObjectContent, ObjectUpdate,
        ObjectUpdateKind, PropertyChange, PropertyFilterUpdate, RetrieveResult, TaskInfo, TaskInfoState, UpdateSet,
    },
};

use crate::fake::{Call, Fake, Reply, answer, fault, object, session_lives};

fn task() -> MoRef<mo::Task> {
    MoRef::new("task-7")
}

fn info(state: TaskInfoState) -> TaskInfo {
    TaskInfo { name: Some("CreateSnapshot_Task".into()), state, ..Default::default() }
}

fn done() -> TaskInfo {
    let snapshot = MoRef::<mo::VirtualMachineSnapshot>::new("snapshot-9").erase();
    TaskInfo { result: Some(Any::MoRef(snapshot)), ..info(TaskInfoState::Success) }
}

fn read_info(info: TaskInfo) -> Reply {
    let content = ObjectContent { obj: task().erase(), ..object("", &[("info", Any::Object(Box::new(info)))]) };
    answer::<RetrievePropertiesEx>(Some(RetrieveResult { objects: vec![content], ..Default::default() }))
}

fn update(version: usize, state: &str, progress: Option<i32>) -> Reply {
    let change = |name: &str, val| PropertyChange { name: name.into(), val, ..Default::default() };
    let state = Any::Enum { type_name: "TaskInfoState", value: state.into() };
    let change_set = vec![change("info.state", Some(state)), change("info.progress", progress.map(Any::Int))];
    let object = ObjectUpdate { obj: task().erase(), change_set, ..Default::default() };
    let filter = PropertyFilterUpdate { object_set: vec![object], ..Default::default() };
    answer::<WaitForUpdatesEx>(Some(UpdateSet {
        version: version.to_string(),
        filter_set: vec![filter],
        ..Default::default()
    }))
}

/// What every wait needs; the test scripts the updates.
fn collector(call: &Call<'_>) -> Reply {
    match call.method {
        "CreatePropertyCollector" => {
            answer::<CreatePropertyCollector>(MoRef::new(&format!("session[{}]collector-{}", call.logins, call.before)))
        }
        "CreateFilter" => answer::<CreateFilter>(MoRef::new("filter-1")),
        "DestroyPropertyCollector" => answer::<DestroyPropertyCollector>(()),
        "CancelTask" => answer::<CancelTask>(()),
        "CancelWaitForUpdates" => answer::<CancelWaitForUpdates>(()),
        // Nothing at all is also what an expired session gets to see: the question whether it lives.
        "RetrieveProperties" => answer::<RetrieveProperties>(session_lives()),
        other => panic!("unexpected {other}"),
    }
}

#[tokio::test]
async fn a_task_reports_progress_and_gives_a_typed_result() {
    let server = Fake::new(|call| match call.method {
        "CreateSnapshot_Task" => answer::<CreateSnapshot_Task>(task()),
        "WaitForUpdatesEx" => {
            let args = call.args::<WaitForUpdatesEx>();
            let expected = if call.before == 0 { String::new() } else { call.before.min(4).to_string() };
            assert_eq!(args.version.unwrap_or_default(), expected, "each question goes on from the last answer");
            match call.before {
                0 => update(1, "queued", None),
                1 => update(2, "running", Some(10)),
                2 => update(3, "running", Some(10)),
                3 => update(4, "running", Some(90)),
                // The server's time is up and nothing has changed.
                4 => answer::<WaitForUpdatesEx>(None),
                _ => update(5, "success", Some(100)),
            }
        }
        "RetrievePropertiesEx" => read_info(done()),
        _ => collector(call),
    });
    let vim = server.connect().await;
    let options = CreateSnapshotOptions::new("nightly").description("tag").quiesce(true);
    let started = vim.create_snapshot_task(&MoRef::new("vm-1"), options).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&seen);
    let snapshot: MoRef<mo::VirtualMachineSnapshot> = vim
        .wait(&started)
        .on_progress(move |progress| report.lock().unwrap().push(progress))
        .await
        .unwrap()
        .result()
        .unwrap();
    assert_eq!(snapshot.value(), "snapshot-9");
    let running = |percent| TaskProgress { queued: false, percent: Some(percent) };
    assert_eq!(*seen.lock().unwrap(), [TaskProgress { queued: true, percent: None }, running(10), running(90)]);
    assert_eq!(server.count("DestroyPropertyCollector"), 1, "nothing is left on the server");
}

#[tokio::test]
async fn a_failed_task_is_an_error_with_the_tasks_fault() {
    let server = Fake::new(|call| match call.method {
        "WaitForUpdatesEx" => update(1, "error", None),
        "RetrievePropertiesEx" => {
            let fault = Poly::new(FileFault { file: "[ds1] web/web.vmdk".into(), ..Default::default() });
            let error =
                LocalizedMethodFault { fault, localized_message: Some("disk error".into()), ..Default::default() };
            let entity = Some(MoRef::<mo::VirtualMachine>::new("vm-1").cast());
            read_info(TaskInfo { error: Some(error), entity, ..info(TaskInfoState::Error) })
        }
        _ => collector(call),
    });
    let vim = server.connect().await;
    let error = vim.wait(&task()).await.unwrap_err();
    assert_eq!(error.fault::<FileFault>().unwrap().file, "[ds1] web/web.vmdk");
    assert_eq!(
        error.to_string(),
        "the task of CreateSnapshot_Task on VirtualMachine:vm-1 failed: FileFault: disk error"
    );
    assert_eq!(server.count("DestroyPropertyCollector"), 1);
}

#[tokio::test]
async fn a_wait_outlives_its_session() {
    for kill_at in ["CreatePropertyCollector", "CreateFilter", "WaitForUpdatesEx"] {
        let server = Fake::new(move |call| match call.method {
            // In the first login the session is found dead at this call.
            method if method == kill_at && call.logins == 1 => Reply::Fault(fault("NotAuthenticated"), ""),
            "WaitForUpdatesEx" => {
                assert!(
                    call.this.value().starts_with(&format!("session[{}]", call.logins)),
                    "a collector of this session"
                );
                update(1, "success", None)
            }
            "RetrievePropertiesEx" => read_info(done()),
            _ => collector(call),
        });
        let vim = server.connect().await;
        vim.wait(&task()).await.unwrap();
        assert_eq!(server.logins(), 2, "killed at {kill_at}");
    }
}

#[tokio::test]
async fn a_forgotten_version_starts_again_from_the_beginning() {
    let server = Fake::new(|call| match (call.method, call.before) {
        ("WaitForUpdatesEx", 0) => update(1, "running", Some(1)),
        ("WaitForUpdatesEx", 1) => Reply::Fault(fault("InvalidCollectorVersion"), ""),
        ("WaitForUpdatesEx", _) => {
            assert_eq!(call.args::<WaitForUpdatesEx>().version.unwrap_or_default(), "");
            update(1, "success", None)
        }
        ("RetrievePropertiesEx", _) => read_info(done()),
        _ => collector(call),
    });
    let vim = server.connect().await;
    vim.wait(&task()).await.unwrap();
    assert_eq!(server.count("CreatePropertyCollector"), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_asks_the_server_and_waits_for_its_word() {
    let server = Fake::new(|call| match call.method {
        "WaitForUpdatesEx" => match call.before {
            0 => update(1, "running", Some(1)),
            1 => Reply::Hang,
            _ => update(2, "error", None),
        },
        "RetrievePropertiesEx" => read_info(TaskInfo { cancelled: true, ..info(TaskInfoState::Error) }),
        _ => collector(call),
    });
    let vim = server.connect().await;
    let error = vim.wait(&task()).cancel_on(tokio::time::sleep(Duration::from_secs(5))).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled { still_running: false, .. }), "{error:?}");
    assert_eq!(server.count("CancelTask"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_cancellation_is_reported_as_running() {
    let server = Fake::new(|call| match call.method {
        "WaitForUpdatesEx" if call.before == 0 => update(1, "running", Some(1)),
        "WaitForUpdatesEx" => Reply::Hang,
        "CancelTask" => Reply::Fault(fault("NotSupported"), ""),
        "RetrievePropertiesEx" => read_info(info(TaskInfoState::Running)),
        _ => collector(call),
    });
    let vim = server.connect().await;
    let error = vim.wait(&task()).cancel_on(std::future::ready(())).await.unwrap_err();
    assert!(
        matches!(&error, Error::Cancelled { still_running: true, operation } if &**operation == "CreateSnapshot_Task")
    );
    assert!(error.hint().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_limit_ends_the_wait_but_not_the_task() {
    let server = Fake::new(|call| match call.method {
        "WaitForUpdatesEx" => Reply::Hang,
        "RetrievePropertiesEx" => read_info(info(TaskInfoState::Running)),
        _ => collector(call),
    });
    let vim = server.connect().await;
    let error = vim.wait(&task()).limit(Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { after, .. } if after == Duration::from_secs(60)), "{error:?}");
    assert_eq!((server.count("CancelTask"), server.count("DestroyPropertyCollector")), (0, 1));
}

#[tokio::test]
async fn an_answer_lost_on_the_way_does_not_lose_the_task() {
    for lost in ["CreatePropertyCollector", "CreateFilter", "WaitForUpdatesEx"] {
        let server = Fake::new(move |call| match call.method {
            method if method == lost && call.before == 0 => Reply::Broken(TransportErrorKind::Disconnected, true),
            "WaitForUpdatesEx" => update(1, "success", None),
            "RetrievePropertiesEx" => read_info(done()),
            _ => collector(call),
        });
        let vim = server.connect().await;
        vim.wait(&task()).await.unwrap_or_else(|error| panic!("lost at {lost}: {error}"));
        assert_eq!(server.count(lost), 2);
    }
}

fn silent(update: ObjectUpdate) -> Reply {
    let update = ObjectUpdate { obj: task().erase(), ..update };
    let filter = PropertyFilterUpdate { object_set: vec![update], ..Default::default() };
    answer::<WaitForUpdatesEx>(Some(UpdateSet { version: "1".into(), filter_set: vec![filter], ..Default::default() }))
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_server_forgot_ends_the_wait() {
    for missing in [false, true] {
        let server = Fake::new(move |call| match (call.method, call.before) {
            ("WaitForUpdatesEx", 0) if missing => {
                let filter = PropertyFilterUpdate {
                    missing_set: vec![MissingObject { obj: task().erase(), ..Default::default() }],
                    ..Default::default()
                };
                let update = UpdateSet { version: "1".into(), filter_set: vec![filter], ..Default::default() };
                answer::<WaitForUpdatesEx>(Some(update))
            }
            ("WaitForUpdatesEx", 0) => silent(ObjectUpdate { kind: ObjectUpdateKind::Leave, ..Default::default() }),
            ("WaitForUpdatesEx", _) => Reply::Hang,
            ("RetrievePropertiesEx", _) => Reply::Fault(fault("ManagedObjectNotFound"), "gone"),
            _ => collector(call),
        });
        let vim = server.connect().await;
        let wait = async { vim.wait(&task()).await };
        let error = tokio::time::timeout(Duration::from_secs(600), wait).await.expect("it ends").unwrap_err();
        assert!(error.is_fault("ManagedObjectNotFound"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_state_is_withheld_ends_the_wait_with_the_reason() {
    let withheld = || MissingProperty {
        path: "info.state".into(),
        fault: LocalizedMethodFault { fault: fault("NoPermission"), ..Default::default() },
        ..Default::default()
    };
    let server = Fake::new(move |call| match (call.method, call.before) {
        ("WaitForUpdatesEx", 0) => silent(ObjectUpdate { missing_set: vec![withheld()], ..Default::default() }),
        ("WaitForUpdatesEx", _) => Reply::Hang,
        ("RetrievePropertiesEx", _) => {
            let missing = MissingProperty { path: "info".into(), ..withheld() };
            let content = ObjectContent { obj: task().erase(), missing_set: vec![missing], ..object("", &[]) };
            answer::<RetrievePropertiesEx>(Some(RetrieveResult { objects: vec![content], ..Default::default() }))
        }
        _ => collector(call),
    });
    let vim = server.connect().await;
    let wait = async { vim.wait(&task()).await };
    let error = tokio::time::timeout(Duration::from_secs(600), wait).await.expect("it ends").unwrap_err();
    assert!(error.is_fault("NoPermission"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn empty_answers_that_do_not_wait_end_in_asking_not_in_a_loop() {
    let server = Fake::new(|call| match (call.method, call.before) {
        // As an expired session may be answered: nothing, and at once.
        ("WaitForUpdatesEx", 0..1000) => answer::<WaitForUpdatesEx>(None),
        ("RetrievePropertiesEx", 0) => read_info(info(TaskInfoState::Running)),
        ("RetrievePropertiesEx", _) => read_info(done()),
        _ => collector(call),
    });
    let vim = server.connect().await;
    vim.wait(&task()).await.unwrap();
    assert!(server.count("WaitForUpdatesEx") < 10, "{}", server.count("WaitForUpdatesEx"));
}

#[tokio::test(start_paused = true)]
async fn limit_and_cancellation_hold_for_a_server_that_answers_nothing_any_more() {
    for cancel in [false, true] {
        let server = Fake::new(|call| match call.method {
            "CreatePropertyCollector" | "CreateFilter" => collector(call),
            _ => Reply::Hang,
        });
        let vim = server.connect().await;
        let begun = tokio::time::Instant::now();
        let seconds = Duration::from_secs;
        let wait = async {
            match cancel {
                false => vim.wait(&task()).limit(seconds(60)).await,
                true => vim.wait(&task()).cancel_on(tokio::time::sleep(seconds(60))).await,
            }
        };
        let error = tokio::time::timeout(seconds(600), wait).await.expect("it ends").unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. } | Error::Cancelled { still_running: true, .. }), "{error:?}");
        assert!(begun.elapsed() < seconds(120), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn servers_without_own_collectors_are_polled() {
    let server = Fake::new(|call| match (call.method, call.before) {
        ("CreatePropertyCollector", _) => Reply::Fault(fault("NotSupported"), ""),
        ("RetrievePropertiesEx", 0..3) => read_info(info(TaskInfoState::Running)),
        ("RetrievePropertiesEx", _) => read_info(done()),
        (other, _) => panic!("unexpected {other}"),
    });
    let vim = server.connect().await;
    vim.wait(&task()).await.unwrap();
    assert!(server.count("RetrievePropertiesEx") >= 4);

    let server = Fake::new(|_| read_info(done()));
    let vim = server.connect().await;
    vim.wait(&task()).polling(Duration::from_secs(2)).await.unwrap();
    assert_eq!(server.count("CreatePropertyCollector"), 0);
}

#[tokio::test]
async fn a_dropped_wait_leaves_no_collector_behind() {
    let server = Fake::new(|call| match call.method {
        "WaitForUpdatesEx" => Reply::Hang,
        _ => collector(call),
    });
    let vim = server.connect().await;
    let pending = task();
    assert!(tokio::time::timeout(Duration::from_millis(20), vim.wait(&pending)).await.is_err());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(server.count("DestroyPropertyCollector"), 1);
}
