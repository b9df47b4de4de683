//! Login, its loss, and what many tasks make of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use vsphere_vim::{
    Error, MoRef,
    error::TransportErrorKind,
    methods::{self, CurrentTime},
    mo,
    property::Property,
    types::{DateTime, LocalizedMethodFault, MissingProperty, ObjectContent, RetrieveResult},
};

use crate::fake::{Fake, Reply, answer, fault, named, object, session_lives};

fn clock() -> Fake {
    Fake::new(|call| match call.method {
        "CurrentTime" => answer::<CurrentTime>(DateTime::from_unix(1_000_000_000, 0)),
        "RetrieveProperties" => answer::<methods::RetrieveProperties>(session_lives()),
        other => panic!("unexpected {other}"),
    })
}

fn service_instance() -> MoRef<mo::ServiceInstance> {
    MoRef::new("ServiceInstance")
}

#[tokio::test]
async fn connects_negotiates_logs_in_and_out() {
    let server = clock();
    let vim = server.connect().await;
    assert_eq!(vim.version().as_str(), "8.0.2.0");
    assert!(vim.is_vcenter());
    assert_eq!(vim.session_cookie().unwrap().expose(), "\"session-1\"", "the quotes are kept");
    vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap();
    assert_eq!(server.last_action(), "urn:vim25/8.0.2.0");
    vim.logout().await.unwrap();
    assert_eq!(server.log(), ["RetrieveServiceContent", "Login", "CurrentTime", "Logout"]);
    vim.logout().await.unwrap();
    assert_eq!(server.count("Logout"), 1, "a second logout has nothing to do");
}

#[tokio::test]
async fn after_logout_calls_are_refused_and_nobody_logs_in_again() {
    let server = clock();
    let vim = server.connect().await;
    vim.logout().await.unwrap();
    let error = vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap_err();
    assert!(error.is_fault("NotAuthenticated"), "{error}");
    assert_eq!(server.logins(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_that_find_the_session_dead_cause_one_login() {
    let server = clock();
    let vim = server.connect().await;
    for round in 1..=3 {
        server.expire();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let vim = vim.clone();
                tokio::spawn(async move { vim.invoke(&service_instance(), CurrentTime::default()).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(server.logins(), 1 + round);
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_with_a_hint_and_without_the_password() {
    let server = clock();
    let error = server.try_connect("hunter2").await.unwrap_err();
    assert_eq!(error.fault_name(), Some("InvalidLogin"));
    assert!(error.hint().unwrap().contains("password"));
    assert!(!error.is_retryable());
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(server.count("Login"), 1);
}

#[tokio::test]
async fn touch_finds_a_dead_session_and_revives_it() {
    let server = clock();
    let vim = server.connect().await;
    vim.touch().await.unwrap();
    assert_eq!(server.logins(), 1);
    server.expire();
    vim.touch().await.unwrap();
    assert_eq!(server.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_touches_an_idle_session_and_survives_errors() {
    let mut failures = 3;
    let server = Fake::new(move |call| match call.method {
        "RetrieveProperties" if failures > 0 => {
            failures -= 1;
            Reply::Broken(TransportErrorKind::Untrusted, false)
        }
        "RetrieveProperties" => answer::<methods::RetrieveProperties>(session_lives()),
        other => panic!("unexpected {other}"),
    });
    let vim = server.connect().await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(server.count("RetrieveProperties"), 0, "not yet idle for long");
    tokio::time::sleep(Duration::from_secs(5 * 300)).await;
    assert_eq!(server.count("RetrieveProperties"), 5, "three failures did not stop it");
    server.expire();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(server.logins(), 2, "it also revives a session that died");
    vim.logout().await.unwrap();
    let calls = server.log().len();
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!(server.log().len(), calls, "after logout it is silent");
}

#[tokio::test]
async fn a_server_without_a_list_of_versions_gets_the_oldest_useful_one() {
    let server = clock().version(None);
    let vim = server.connect().await;
    assert_eq!(vim.version().as_str(), "4.0");
    vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap();
    assert_eq!(server.last_action(), "urn:vim25/4.0");
}

#[tokio::test]
async fn trust_and_credentials_have_to_be_stated() {
    let error = vsphere_vim::Vim::builder("https://vc.example").connect().await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "credentials", .. }), "{error}");
    let credentials = vsphere_vim::Credentials::password("root", "x");
    let error = vsphere_vim::Vim::builder("https://vc.example").credentials(credentials).connect().await.unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "trust", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_killed_again_and_again_costs_one_login_each_time() {
    const DEATHS: usize = 25;
    let server = clock();
    let vim = server.connect().await;
    let done = Arc::new(AtomicBool::new(false));
    let (workers, calls): (Vec<_>, Vec<_>) = (0..20)
        .map(|_| {
            let calls = Arc::new(AtomicUsize::new(0));
            let (vim, done, count) = (vim.clone(), Arc::clone(&done), Arc::clone(&calls));
            let worker = tokio::spawn(async move {
                while !done.load(SeqCst) {
                    vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap();
                    count.fetch_add(1, SeqCst);
                }
            });
            (worker, calls)
        })
        .unzip();
    for death in 1..=DEATHS {
        server.expire();
        // Everybody ends the call that is under way and one more, which began on the dead session or after it.
        // Without this wait, a starved worker could meet several deaths in one call, and a call heals only so often.
        let before: Vec<_> = calls.iter().map(|calls| calls.load(SeqCst)).collect();
        while calls.iter().zip(&before).any(|(calls, before)| calls.load(SeqCst) < before + 2) {
            assert!(!workers.iter().any(tokio::task::JoinHandle::is_finished), "a worker failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.logins(), 1 + death);
    }
    done.store(true, SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(server.logins(), 1 + DEATHS);
}

#[tokio::test(start_paused = true)]
async fn an_old_session_is_replaced_and_the_old_one_ended() {
    let server = clock();
    let credentials = vsphere_vim::Credentials::password("root", crate::fake::PASSWORD);
    let age = Duration::from_secs(3600);
    let vim = server.builder().credentials(credentials).renew_session_after(age).connect().await.unwrap();
    let first = vim.session_cookie().unwrap();
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(server.logins(), 1);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((server.logins(), server.count("Logout")), (2, 1));
    assert_ne!(vim.session_cookie().unwrap(), first);
    vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap();
    assert_eq!(server.logins(), 2, "the new session is in use");
    vim.logout().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_leaves_the_old_session_in_use() {
    let server = clock();
    let credentials = vsphere_vim::Credentials::password("root", crate::fake::PASSWORD);
    let age = Duration::from_secs(3600);
    let vim = server.builder().credentials(credentials).renew_session_after(age).connect().await.unwrap();
    let first = vim.session_cookie().unwrap();
    server.change_password("another one");
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert_eq!((server.count("Login"), server.logins()), (2, 1));
    assert_eq!(vim.renew_session().await.unwrap_err().fault_name(), Some("InvalidLogin"));
    assert_eq!(server.count("Login"), 2, "the account must not be locked");
    assert_eq!(vim.session_cookie().unwrap(), first, "the refusal's cookie is a stranger's");
    vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap();
    server.change_password(crate::fake::PASSWORD);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((server.logins(), server.count("Logout")), (2, 1), "it is tried again later");
    server.change_password("another one");
    tokio::time::sleep(Duration::from_secs(3700)).await;
    vim.logout().await.unwrap();
    assert_eq!(server.count("Logout"), 2, "and ended");
}

#[tokio::test]
async fn a_list_of_versions_that_is_broken_or_hostile_counts_for_none() {
    for list in
        ["<html>not found</html>", "<!DOCTYPE a [<!ENTITY b \"c\">]><namespaces/>", "<namespaces>", "", "\u{fffd}"]
    {
        let server = clock().version_list(list);
        let credentials = vsphere_vim::Credentials::password("root", crate::fake::PASSWORD);
        let fallback = vsphere_vim::version::WireVersion::new("6.5").unwrap();
        let vim = server.builder().credentials(credentials).fallback_version(fallback).connect().await.unwrap();
        assert_eq!(vim.version().as_str(), "6.5", "{list}");
    }
}

#[tokio::test]
async fn a_dead_session_that_shows_as_unreadable_properties_is_healed() {
    // So do some servers answer whoever is not logged in: objects, and every property missing.
    let unreadable = || {
        let fault = LocalizedMethodFault { fault: fault("NotAuthenticated"), ..Default::default() };
        let missing = MissingProperty { path: "name".into(), fault, ..Default::default() };
        ObjectContent { missing_set: vec![missing], ..object("vm-1", &[]) }
    };
    for dead in [true, false] {
        let server = Fake::new(move |call| match (call.method, call.logins) {
            // The question whether the session lives.
            ("RetrieveProperties", logins) => {
                let lives = logins > 1 || !dead;
                answer::<methods::RetrieveProperties>(if lives { session_lives() } else { Vec::new() })
            }
            ("RetrievePropertiesEx", 1) => page(vec![unreadable(), named("vm-2", "two")]),
            ("RetrievePropertiesEx", _) => page(vec![named("vm-1", "one"), named("vm-2", "two")]),
            (other, _) => panic!("unexpected {other}"),
        });
        let vim = server.connect().await;
        let vms: [MoRef<mo::VirtualMachine>; 2] = [MoRef::new("vm-1"), MoRef::new("vm-2")];
        let names = vim.properties().of(&vms).select(mo::VirtualMachine::NAME).collect().await.unwrap();
        assert_eq!(names.len(), 2);
        // Under a living session it is the object's own affair.
        assert_eq!(server.logins(), if dead { 2 } else { 1 });
        assert_eq!(matches!(names[0].values, Property::Present(_)), dead, "{names:?}");
    }
}

fn page(objects: Vec<ObjectContent>) -> Reply {
    answer::<methods::RetrievePropertiesEx>(Some(RetrieveResult { objects, ..Default::default() }))
}
