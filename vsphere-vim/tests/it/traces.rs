//! What the log says of a call, and what it never says.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tracing_subscriber::fmt::format::FmtSpan;
use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim::{
    CallOptions, Credentials, DeviceKey, DiskAccess, Endpoint, MoRef, Thumbprint, TlsTrust, Vim, VmLookup,
    credentials::ExtensionRoute,
    error::TransportErrorKind,
    methods::{self, CurrentTime},
    mo,
    sts::{TokenIssuer, TokenRequest},
    transport::{HttpOptions, HttpTransport},
    types::DateTime,
};

use crate::fake::{Fake, Reply, answer, fault};

/// Everything that is logged on this thread, spans with their fields when they close.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines that close the span of a call of this method.
    fn calls(&self, method: &str) -> Vec<String> {
        let wanted = format!("operation=\"{method}\"");
        let text = self.text();
        text.lines().filter(|line| line.contains(&wanted) && line.contains("close")).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_span_tells_object_id_size_duration_tries_and_outcome() {
    let (log, _guard) = Log::begin();
    let server = Fake::new(|call| match (call.method, call.before) {
        ("CurrentTime", 0 | 1) => Reply::Broken(TransportErrorKind::Disconnected, true),
        ("CurrentTime", _) => answer::<CurrentTime>(DateTime::from_unix(0, 0)),
        ("PowerOnVM_Task", _) => Reply::Fault(fault("InvalidPowerState"), "no"),
        ("QueryChangedDiskAreas", _) => Reply::Hang,
        _ => Reply::Http(404, "text/html", ""),
    });
    let vim = server.connect().await;
    let root: MoRef<mo::ServiceInstance> = MoRef::new("ServiceInstance");
    let vm: MoRef<mo::VirtualMachine> = MoRef::new("vm-42");
    vim.invoke(&root, CurrentTime::default()).await.unwrap();
    vim.power_on(&vm).await.unwrap_err();
    let query = vim.invoke(&vm, methods::QueryChangedDiskAreas::default());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), query).await.is_err());
    let missing = vim.invoke_dynamic(vm.as_untyped(), "NoSuch", &[], CallOptions::default()).await;
    missing.unwrap_err();

    let one = |method: &str| {
        let mut calls = log.calls(method);
        assert_eq!(calls.len(), 1, "{method}: {}", log.text());
        calls.remove(0)
    };
    for (method, parts) in [
        ("CurrentTime", &["object=ServiceInstance:ServiceInstance", "tries=3", "outcome=\"ok\""][..]),
        ("PowerOnVM_Task", &["object=VirtualMachine:vm-42", "tries=1", "outcome=\"InvalidPowerState\""]),
        ("QueryChangedDiskAreas", &["outcome=\"cancelled\""]),
        ("NoSuch", &["outcome=\"http 404\""]),
    ] {
        let line = one(method);
        for part in parts.iter().chain(&["operation_id=\"", "sent=", "received=", "duration_ms="]) {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

#[tokio::test]
async fn no_kind_of_login_puts_a_secret_into_the_log() {
    let made = rcgen::generate_simple_self_signed(["backup".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let sim = Simulator::builder()
        .vm(VmSpec::new("web").disk(DiskSpec::empty(1 << 20)))
        .credentials("svc@vsphere.local", "pass-hunter2-word")
        .extension("com.example", &made.cert.pem())
        .start()
        .await
        .unwrap();
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let connect = |credentials| Vim::builder(sim.url()).thumbprint(pin).credentials(credentials).connect();
    let (log, _guard) = Log::begin();

    let request = TokenRequest::new(sim.username(), sim.password());
    let endpoint = Endpoint::parse(&sim.url()).unwrap();
    let transport = HttpTransport::new(endpoint, &TlsTrust::from(pin), HttpOptions::default()).unwrap();
    let token = request.issue(&transport).await.unwrap();
    let first = connect(Credentials::password(sim.username(), sim.password())).await.unwrap();
    let ticket = first.clone_ticket().await.unwrap();
    let extension = Credentials::extension("com.example", made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    let all = [
        Credentials::token(token.clone()),
        Credentials::token_source(TokenIssuer::new(request, Arc::new(transport))),
        extension.route(ExtensionRoute::Direct),
        Credentials::clone_of(ticket.clone()),
        Credentials::adopted_cookie(first.session_cookie().unwrap()),
    ];
    let mut secrets = vec![
        "pass-hunter2-word".to_owned(),
        ticket.expose().to_owned(),
        token.assertion().expose().split("SignatureValue>").nth(1).unwrap()[..40].to_owned(),
        key.lines().nth(1).unwrap().to_owned(),
    ];
    let mut clients = vec![first];
    for credentials in all {
        clients.push(connect(credentials).await.unwrap());
    }
    sim.expire_sessions();
    for vim in &clients {
        secrets.push(vim.session_cookie().unwrap().expose().trim_matches('"').to_owned());
        // Heals where it can, and says why where it cannot.
        let found = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await;
        if let Ok(vm) = found {
            let ticket = vim.nfc_ticket(&vm.moref, DeviceKey(2000), None, DiskAccess::ReadOnly).await.unwrap();
            secrets.push(ticket.session_id.expose().to_owned());
        }
    }
    connect(Credentials::password(sim.username(), "pass-wrong-hunter3")).await.unwrap_err();
    secrets.push("pass-wrong-hunter3".to_owned());
    for vim in clients {
        secrets.extend(vim.session_cookie().map(|cookie| cookie.expose().trim_matches('"').to_owned()));
        vim.logout().await.unwrap();
    }

    let text = log.text();
    assert!(text.contains("LoginByToken") && text.contains("CloneSession"), "the log is not empty: {}", text.len());
    for secret in secrets {
        assert!(secret.len() > 10 && !text.contains(&secret), "{secret}");
    }
}
