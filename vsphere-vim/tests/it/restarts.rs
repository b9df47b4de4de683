//! The server goes away and comes back: what is repeated, what is not, and for how long.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
};
use vsphere_sim::{DiskSpec, Injection, Power, Simulator, VmSpec};
use vsphere_vim::{
    CallOptions, Credentials, MoRef, RetryPolicy, Thumbprint, Vim, VmLookup,
    error::TransportErrorKind,
    methods::{CreateSnapshot_Task, CurrentTime},
    mo,
    types::DateTime,
};

use crate::fake::{Fake, PASSWORD, answer};

fn service_instance() -> MoRef<mo::ServiceInstance> {
    MoRef::new("ServiceInstance")
}

fn both() -> Fake {
    Fake::new(|call| match call.method {
        "CurrentTime" => answer::<CurrentTime>(DateTime::from_unix(0, 0)),
        "CreateSnapshot_Task" => answer::<CreateSnapshot_Task>(MoRef::new("task-1")),
        other => panic!("unexpected {other}"),
    })
}

#[tokio::test(start_paused = true)]
async fn the_default_policy_outlasts_a_restart_of_20_seconds() {
    let server = both();
    let vim = server.builder().credentials(Credentials::password("root", PASSWORD)).connect().await.unwrap();
    for round in 1..=5 {
        server.restart(Duration::from_secs(20));
        let started = tokio::time::Instant::now();
        let (root, vm): (_, MoRef<mo::VirtualMachine>) = (service_instance(), MoRef::new("vm-1"));
        let (time, snapshot) = tokio::join!(
            vim.invoke(&root, CurrentTime::default()),
            // Changes something, but nothing of it was sent: it is as good as a read.
            vim.invoke(&vm, CreateSnapshot_Task::default()),
        );
        time.unwrap();
        snapshot.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(20));
        assert!(started.elapsed() < Duration::from_secs(80), "{:?}", started.elapsed());
        assert_eq!(server.logins(), 1 + round, "the server had forgotten the session");
        assert_eq!(server.done("CreateSnapshot_Task"), round, "taken once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_reported_with_tries_and_time() {
    let server = both();
    let vim = server.builder().credentials(Credentials::password("root", PASSWORD)).connect().await.unwrap();
    server.restart(Duration::from_secs(3600));
    let error = vim.invoke(&service_instance(), CurrentTime::default()).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Connect));
    assert!(error.is_retryable() && error.to_string().contains("after 8 tries"), "{error}");
}

/// A way to the simulator that can be cut: its port is closed, and what was connected breaks.
struct Gate {
    address: SocketAddr,
    target: SocketAddr,
    open: Mutex<Option<AbortHandle>>,
}

impl Gate {
    async fn to(target: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Self { address, target, open: Mutex::new(None) });
        gate.serve(listener);
        gate
    }

    fn serve(&self, listener: TcpListener) {
        let target = self.target;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        *self.open.lock().unwrap() = Some(accepting.abort_handle());
    }

    /// Refuses connections for this long.
    async fn close_for(&self, outage: Duration) {
        if let Some(accepting) = self.open.lock().unwrap().take() {
            accepting.abort();
        }
        tokio::time::sleep(outage).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }
}

async fn machine() -> Simulator {
    let vm = VmSpec::new("web").disk(DiskSpec::empty(1 << 20)).power(Power::On);
    Simulator::builder().vm(vm).start().await.unwrap()
}

async fn connect(sim: &Simulator, gate: &Gate, retry: RetryPolicy) -> Vim {
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let address = format!("https://{}/sdk", gate.address);
    Vim::builder(address).credentials(credentials).thumbprint(pin).retry(retry).connect().await.unwrap()
}

#[tokio::test]
async fn a_closed_port_is_waited_out_by_reads_and_changes_alike() {
    let sim = machine().await;
    let gate = Gate::to(sim.address()).await;
    let policy = RetryPolicy::default().attempts(30).back_off(Duration::from_millis(50), Duration::from_millis(200));
    let vim = connect(&sim, &gate, policy).await;
    let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await.unwrap().moref;
    let outage = {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move { gate.close_for(Duration::from_millis(1500)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A restarted server knows no sessions.
    sim.expire_sessions();
    let (found, snapshot) = tokio::join!(
        vim.find_by_inventory_path("dc1/vm/web"),
        vim.create_snapshot(&vm, vsphere_vim::CreateSnapshotOptions::new("nightly")),
    );
    assert_eq!(found.unwrap().unwrap().value(), vm.value());
    snapshot.unwrap();
    outage.await.unwrap();
    assert_eq!(sim.vm("web").unwrap().snapshots(), ["nightly"]);
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_change_that_was_under_way_when_the_connection_broke_is_not_repeated() {
    let sim = machine().await;
    let gate = Gate::to(sim.address()).await;
    let vim = connect(&sim, &gate, RetryPolicy::default()).await;
    let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await.unwrap().moref;
    sim.faults().inject("CreateSnapshot_Task", Injection::Delay(Duration::from_millis(500)));
    let outage = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        gate.close_for(Duration::from_millis(100)).await;
    };
    let args = CreateSnapshot_Task { name: "nightly".into(), ..Default::default() };
    let (outcome, ()) = tokio::join!(vim.invoke_with(&vm, args, CallOptions::default()), outage);
    let error = outcome.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Disconnected), "{error}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(sim.vm("web").unwrap().snapshots().len() <= 1, "never twice");
    vim.logout().await.unwrap();
}

/// In real time, with the defaults that users get.
#[tokio::test]
async fn twenty_real_seconds_without_a_server_are_survived() {
    let sim = machine().await;
    let gate = Gate::to(sim.address()).await;
    let vim = connect(&sim, &gate, RetryPolicy::default()).await;
    let outage = {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move { gate.close_for(Duration::from_secs(20)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    sim.expire_sessions();
    let started = std::time::Instant::now();
    assert!(vim.find_by_inventory_path("dc1/vm/web").await.unwrap().is_some());
    assert!(started.elapsed() > Duration::from_secs(19), "{:?}", started.elapsed());
    outage.await.unwrap();
    vim.logout().await.unwrap();
}
