//! Login, its loss, and what many tasks make of it.

use std::time::Duration;

use vsphere_vim::{
    Error, MoRef,
    error::TransportErrorKind,
    methods::{self, CurrentTime},
    mo,
    types::DateTime,
};

use crate::fake::{Fake, Reply, answer, session_lives};

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
