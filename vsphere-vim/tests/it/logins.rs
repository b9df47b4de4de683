//! Every kind of login, against the simulator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};
use vsphere_sim::{DiskSpec, Personality, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    Credentials, Endpoint, Error, Thumbprint, TlsTrust, Vim, VimBuilder,
    credentials::{ExtensionRoute, SamlToken},
    sts::{TokenFault, TokenIssuer, TokenRequest},
    transport::{HttpOptions, HttpTransport, Transport},
};

const EXTENSION: &str = "com.example.backup";

fn simulator() -> SimulatorBuilder {
    Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(1 << 20)))
}

fn pin(sim: &Simulator) -> Thumbprint {
    sim.thumbprint_sha256().parse().unwrap()
}

fn builder(sim: &Simulator) -> VimBuilder {
    Vim::builder(sim.url()).thumbprint(pin(sim))
}

async fn connect(sim: &Simulator, credentials: Credentials) -> vsphere_vim::Result<Vim> {
    builder(sim).credentials(credentials).connect().await
}

fn password(sim: &Simulator) -> Credentials {
    Credentials::password(sim.username(), sim.password())
}

fn transport(sim: &Simulator) -> Arc<dyn Transport> {
    let endpoint = Endpoint::parse(&sim.url()).unwrap();
    Arc::new(HttpTransport::new(endpoint, &TlsTrust::from(pin(sim)), HttpOptions::default()).unwrap())
}

fn request(sim: &Simulator) -> TokenRequest {
    TokenRequest::new(sim.username(), sim.password())
}

async fn works(vim: &Vim) -> vsphere_vim::Result<bool> {
    Ok(vim.find_by_inventory_path("dc1/vm/web").await?.is_some())
}

#[tokio::test]
async fn a_token_opens_a_session_of_its_subject() {
    let sim = simulator().start().await.unwrap();
    let token = request(&sim).lifetime(Duration::from_secs(120)).issue(&*transport(&sim)).await.unwrap();
    assert_eq!(token.subject(), Some(sim.username()));
    let lives = token.expires().unwrap().unix_seconds() - token.not_before().unwrap().unix_seconds();
    assert!((119..=121).contains(&lives), "{lives}");
    let vim = connect(&sim, Credentials::token(token)).await.unwrap();
    assert!(works(&vim).await.unwrap());
    assert_eq!(vim.current_session().await.unwrap().unwrap().user, sim.username());
    sim.expire_sessions();
    assert!(works(&vim).await.unwrap(), "the token is still good");
    vim.logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn tokens_that_expired_were_changed_or_come_from_elsewhere_are_refused() {
    let sim = simulator().token_lifetime(Duration::from_secs(1)).start().await.unwrap();
    let other = simulator().start().await.unwrap();
    let token = request(&sim).issue(&*transport(&sim)).await.unwrap();
    let changed = token.assertion().expose().replace(sim.username(), "root");
    let foreign = request(&other).issue(&*transport(&other)).await.unwrap();
    let vim = connect(&sim, Credentials::token(token.clone())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for bad in [SamlToken::parse(changed).unwrap(), foreign, token] {
        let error = connect(&sim, Credentials::token(bad)).await.unwrap_err();
        assert_eq!(error.fault_name(), Some("InvalidLogin"), "{error}");
    }
    // The session outlives its token, but cannot be opened again with it.
    assert!(works(&vim).await.unwrap());
    sim.expire_sessions();
    assert_eq!(works(&vim).await.unwrap_err().fault_name(), Some("InvalidLogin"));
}

#[tokio::test]
async fn a_source_is_asked_for_a_fresh_token_at_each_login() {
    let sim = simulator().token_lifetime(Duration::from_secs(1)).start().await.unwrap();
    let issuer = TokenIssuer::new(request(&sim), transport(&sim));
    let asked = Arc::new(AtomicUsize::new(0));
    let credentials = {
        let asked = Arc::clone(&asked);
        Credentials::token_source(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let issuer = issuer.clone();
            async move { vsphere_vim::credentials::TokenSource::token(&issuer).await }
        })
    };
    let vim = connect(&sim, credentials).await.unwrap();
    for round in 2..=3 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        sim.expire_sessions();
        assert!(works(&vim).await.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), round);
    }
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn the_token_service_refuses_with_types_and_once() {
    let sim = simulator().start().await.unwrap();
    let wrong = TokenRequest::new(sim.username(), "hunter2");
    let error = wrong.issue(&*transport(&sim)).await.unwrap_err();
    let Error::Token(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.fault, TokenFault::FailedAuthentication);
    assert!(error.hint().unwrap().contains("password") && !error.is_retryable());
    assert!(!format!("{error} {error:?} {wrong:?}").contains("hunter2"));

    let vim = connect(&sim, Credentials::token_source(TokenIssuer::new(wrong, transport(&sim)))).await;
    assert!(matches!(vim, Err(Error::Token(_))));

    let none = request(&sim).lifetime(Duration::ZERO).issue(&*transport(&sim)).await.unwrap_err();
    assert!(matches!(&none, Error::Token(refusal) if refusal.fault == TokenFault::Time), "{none}");

    let host = simulator().personality(Personality::Esxi).start().await.unwrap();
    let error = request(&host).issue(&*transport(&host)).await.unwrap_err();
    assert!(matches!(error, Error::Transport(_)), "a host has no token service: {error}");
}

struct Certificate {
    pem: String,
    key: String,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(["backup".to_owned()]).unwrap();
    Certificate { pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn extension(certificate: &Certificate, route: ExtensionRoute) -> Credentials {
    Credentials::extension(EXTENSION, certificate.pem.as_bytes(), certificate.key.as_bytes()).unwrap().route(route)
}

#[tokio::test]
async fn an_extension_logs_in_with_its_certificate_and_logs_in_again() {
    let certificate = certificate();
    let sim = simulator().extension(EXTENSION, &certificate.pem).start().await.unwrap();
    for route in [ExtensionRoute::Direct, ExtensionRoute::Port(sim.address().port())] {
        let vim = connect(&sim, extension(&certificate, route)).await.unwrap();
        assert!(vim.current_session().await.unwrap().unwrap().extension);
        sim.expire_sessions();
        assert!(works(&vim).await.unwrap());
        vim.logout().await.unwrap();
    }
    // Others are not disturbed by being asked for a certificate.
    connect(&sim, password(&sim)).await.unwrap().logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn an_extension_comes_in_through_the_sdk_tunnel() {
    let certificate = certificate();
    let sim = simulator().extension(EXTENSION, &certificate.pem).start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_port = listener.local_addr().unwrap().port();
    let (target, tunnels) = (sim.address(), Arc::new(AtomicUsize::new(0)));
    let opened = Arc::clone(&tunnels);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"CONNECT sdkTunnel:8089 HTTP/1.1\r\n"));
            opened.fetch_add(1, Ordering::SeqCst);
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let vim = connect(&sim, extension(&certificate, ExtensionRoute::Tunnel { proxy_port })).await.unwrap();
    assert!(works(&vim).await.unwrap());
    assert_eq!(tunnels.load(Ordering::SeqCst), 1, "only the login goes there");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn an_extension_without_the_right_certificate_stays_outside() {
    let (registered, other) = (certificate(), certificate());
    let sim = simulator().extension(EXTENSION, &registered.pem).start().await.unwrap();
    let error = connect(&sim, extension(&other, ExtensionRoute::Direct)).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("InvalidLogin"));
    // A server that does not ask gets no certificate.
    let silent = simulator().start().await.unwrap();
    let error = connect(&silent, extension(&registered, ExtensionRoute::Direct)).await.unwrap_err();
    assert_eq!(error.fault_name(), Some("NoClientCertificate"));
    assert_eq!(sim.leftovers().sessions, 0);
}

#[tokio::test]
async fn a_ticket_clones_a_session_once() {
    let sim = simulator().start().await.unwrap();
    let first = connect(&sim, password(&sim)).await.unwrap();
    let ticket = first.clone_ticket().await.unwrap();
    let second = connect(&sim, Credentials::clone_of(ticket.clone())).await.unwrap();
    assert_ne!(first.session_cookie(), second.session_cookie());
    assert_eq!(first.sessions().await.unwrap().len(), 2);
    let again = connect(&sim, Credentials::clone_of(ticket)).await.unwrap_err();
    assert_eq!(again.fault_name(), Some("InvalidLogin"));
    sim.expire_sessions();
    let error = works(&second).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { .. }) && error.hint().is_some(), "{error}");
    assert!(works(&first).await.unwrap(), "who has a password comes in again");
    assert!(second.renew_session().await.is_err());
    second.logout().await.unwrap();
    first.logout().await.unwrap();
    assert!(sim.leftovers().is_clean(), "{:?}", sim.leftovers());
}

#[tokio::test]
async fn an_adopted_session_is_used_and_never_ended() {
    let sim = simulator().start().await.unwrap();
    let owner = connect(&sim, password(&sim)).await.unwrap();
    let guest = connect(&sim, Credentials::adopted_cookie(owner.session_cookie().unwrap())).await.unwrap();
    assert!(works(&guest).await.unwrap());
    assert_eq!(sim.leftovers().sessions, 1, "nobody logged in");
    guest.logout().await.unwrap();
    assert!(works(&owner).await.unwrap(), "the owner's session lives on");
    assert_eq!(works(&guest).await.unwrap_err().fault_name(), Some("NotAuthenticated"));

    let guest = connect(&sim, Credentials::adopted_cookie(owner.session_cookie().unwrap())).await.unwrap();
    owner.logout().await.unwrap();
    let error = works(&guest).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { .. }), "{error}");
    let error = connect(&sim, Credentials::adopted_cookie("\"dead\"")).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { .. }), "{error}");
    assert_eq!(sim.leftovers().sessions, 0);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_others() {
    let sim = simulator().start().await.unwrap();
    let (support, victim) =
        (connect(&sim, password(&sim)).await.unwrap(), connect(&sim, password(&sim)).await.unwrap());
    let list = support.sessions().await.unwrap();
    assert_eq!((list.len(), list.iter().filter(|session| session.own).count()), (2, 1));
    let other = list.iter().find(|session| !session.own).unwrap();
    let own = list.iter().find(|session| session.own).unwrap();
    let before = victim.session_cookie();
    support.terminate_sessions([&other.key]).await.unwrap();
    assert!(works(&victim).await.unwrap(), "it logs in again");
    assert_ne!(victim.session_cookie(), before);
    let gone = support.terminate_sessions([&other.key]).await.unwrap_err();
    assert_eq!(gone.fault_name(), Some("NotFound"));
    assert_eq!(support.terminate_sessions([&own.key]).await.unwrap_err().fault_name(), Some("InvalidArgument"));
    support.terminate_sessions(Vec::<String>::new()).await.unwrap();
    for vim in [support, victim] {
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_renewed_session_replaces_the_old_one_while_others_work() {
    let sim = simulator().start().await.unwrap();
    let vim = connect(&sim, password(&sim)).await.unwrap();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let vim = vim.clone();
            tokio::spawn(async move {
                for _ in 0..30 {
                    assert!(works(&vim).await.unwrap());
                }
            })
        })
        .collect();
    for _ in 0..5 {
        vim.renew_session().await.unwrap();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(sim.leftovers().sessions, 1, "none is left behind");
    vim.logout().await.unwrap();
}
