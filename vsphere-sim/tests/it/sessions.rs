//! Login, expiry, and what may be called without.

use std::time::Duration;

use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim_types::methods::{CurrentTime, Login, RetrieveServiceContent, SessionIsActive};

use crate::client::{Client, root, vm};

async fn simulator() -> Simulator {
    Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(1 << 20))).start().await.unwrap()
}

#[tokio::test]
async fn content_and_clock_need_no_login_and_all_else_does() {
    let sim = simulator().await;
    let mut client = Client::new(&sim);
    let service = root("ServiceInstance", "ServiceInstance");
    let content = client.call(&service, &RetrieveServiceContent::default()).await.unwrap();
    assert_eq!(content.about.api_type, "VirtualCenter");
    assert_eq!(content.root_folder.value(), "group-d1");
    client.call(&service, &CurrentTime::default()).await.unwrap();
    let args = vsphere_vim_types::methods::RetrievePropertiesEx {
        spec_set: vec![crate::client::one(&vm(&sim, "web"), "name")],
        ..Default::default()
    };
    assert_eq!(client.refused(&root("PropertyCollector", "propertyCollector"), &args).await, "NotAuthenticated");
    let internal = vsphere_vim_types::internal::RetrieveInternalContent::default();
    assert_eq!(client.refused(&service, &internal).await, "NotAuthenticated");
}

#[tokio::test]
async fn a_wrong_password_is_no_login() {
    let sim = simulator().await;
    let mut client = Client::new(&sim);
    let args = Login { user_name: sim.username().into(), password: "wrong".into(), ..Default::default() };
    assert_eq!(client.refused(&root("SessionManager", "SessionManager"), &args).await, "InvalidLogin");
    assert!(client.cookie.is_none());
    assert_eq!(sim.leftovers().sessions, 0);
}

#[tokio::test]
async fn the_cookie_is_quoted_and_the_session_key_is_not_the_cookie() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let cookie = client.cookie.clone().unwrap();
    assert!(cookie.starts_with("vmware_soap_session=\"") && cookie.ends_with('"'), "{cookie}");
    let session: vsphere_vim_types::UserSession =
        client.get(&root("SessionManager", "SessionManager"), "currentSession").await.unwrap();
    assert_eq!(session.user_name, sim.username());
    assert!(!cookie.contains(&session.key));
    let active = SessionIsActive { session_id: session.key, user_name: session.user_name, ..Default::default() };
    assert!(client.call(&root("SessionManager", "SessionManager"), &active).await.unwrap());
    client.logout().await;
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn sessions_end_when_told_idle_or_old() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let name = vsphere_vim_types::methods::RetrievePropertiesEx {
        spec_set: vec![crate::client::one(&vm(&sim, "web"), "name")],
        ..Default::default()
    };
    let collector = root("PropertyCollector", "propertyCollector");
    client.call(&collector, &name).await.unwrap();
    sim.expire_sessions();
    assert_eq!(client.refused(&collector, &name).await, "NotAuthenticated");

    let brief = Simulator::builder().session_idle_timeout(Duration::from_millis(30)).start().await.unwrap();
    let mut client = Client::login(&brief).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(
        client.refused(&root("SessionManager", "SessionManager"), &vsphere_vim_types::methods::Logout::default()).await,
        "NotAuthenticated"
    );
}

#[tokio::test]
async fn versions_are_listed_for_negotiation_and_other_paths_are_not_there() {
    let sim = simulator().await;
    let client = Client::new(&sim);
    let raw = client.http("GET", "/sdk/vimServiceVersions.xml", b"").await.unwrap();
    let text = String::from_utf8(raw.body).unwrap();
    assert!(
        raw.status == 200
            && text.contains("<name>urn:vim25</name><version>8.0.3.0</version>")
            && text.contains("<version>6.7</version>")
    );
    assert_eq!(client.http("GET", "/mob", b"").await.unwrap().status, 404);
    assert_eq!(client.http("GET", "/sdk", b"").await.unwrap().status, 405);
}

#[tokio::test]
async fn nonsense_gets_a_fault_and_the_server_lives_on() {
    let sim = simulator().await;
    let client = Client::new(&sim);
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    for body in [
        &b""[..],
        b"hello",
        b"\xff\xfe",
        b"<Envelope/>",
        b"<Envelope><Body/></Envelope>",
        b"<Envelope><Body><Login><_this",
        deep.as_bytes(),
    ] {
        let raw = client.http("POST", "/sdk", body).await.unwrap();
        assert_eq!(raw.status, 500);
        assert!(
            String::from_utf8_lossy(&raw.body).contains("InvalidRequest"),
            "{}",
            String::from_utf8_lossy(&raw.body)
        );
    }
    Client::login(&sim).await;
}

#[tokio::test]
async fn large_answers_are_compressed_when_the_client_accepts_it() {
    let sim = simulator().await;
    let mut client = Client::login(&sim).await;
    let args = vsphere_vim_types::methods::RetrievePropertiesEx {
        spec_set: vec![crate::client::one(&vm(&sim, "web"), "config")],
        ..Default::default()
    };
    let body = vsphere_vim_types::soap::encode_request(
        &root("PropertyCollector", "propertyCollector"),
        &args,
        Default::default(),
    );
    let plain = client.http("POST", "/sdk", body.as_bytes()).await.unwrap();
    client.gzip = true;
    let packed = client.http("POST", "/sdk", body.as_bytes()).await.unwrap();
    assert!(packed.head.to_ascii_lowercase().contains("content-encoding: gzip"));
    assert!(packed.body.len() * 2 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked.len(), plain.body.len());
}
