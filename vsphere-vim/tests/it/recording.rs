//! A run against the simulator, written down without secrets and given again without a network.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use vsphere_sim::{DiskSpec, Power, Simulator, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, DeviceKey, DiskAccess, Endpoint, Error, RemoveSnapshotOptions, Secret,
    Thumbprint, TlsTrust, Vim, VmLookup,
    error::TransportErrorKind,
    sts::TokenRequest,
    transport::{HttpOptions, HttpTransport, Recorder, Replay, ReplayMode, Scrub, Transport},
};

const USER: &str = "svc-backup@corp.example";
const PASSWORD: &str = "correct horse";

/// Memory to write into.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn simulator() -> Simulator {
    let vm = VmSpec::new("web").disk(DiskSpec::empty(64 << 20)).power(Power::On).change_tracking(true);
    Simulator::builder().vm(vm).credentials(USER, PASSWORD).start().await.unwrap()
}

fn real(sim: &Simulator) -> Arc<dyn Transport> {
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let endpoint = Endpoint::parse(&sim.url()).unwrap();
    Arc::new(HttpTransport::new(endpoint, &TlsTrust::from(pin), HttpOptions::default()).unwrap())
}

async fn connect(transport: Arc<dyn Transport>, password: &str) -> vsphere_vim::Result<Vim> {
    let credentials = Credentials::password(USER, password);
    Vim::builder("https://127.0.0.1/sdk").credentials(credentials).transport(transport).keep_alive(None).connect().await
}

/// What a run learns that does not differ from run to run.
#[derive(Debug, PartialEq)]
struct Seen {
    name: String,
    disks: Vec<(i32, u64, String)>,
    tracking: Option<String>,
    user: String,
    missing: Option<String>,
}

/// A run and the secrets that passed by.
async fn run(vim: &Vim) -> (Seen, Vec<Secret>) {
    let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/web".into())).await.unwrap();
    let snapshot = vim.create_snapshot(&vm.moref, CreateSnapshotOptions::new("nightly")).await.unwrap();
    let disks = vim.snapshot_disks(&snapshot).await.unwrap();
    let ticket = vim.nfc_ticket(&vm.moref, DeviceKey(2000), None, DiskAccess::ReadOnly).await.unwrap();
    let clone = vim.clone_ticket().await.unwrap();
    let gone = vim.find_vm(&VmLookup::MoRef("vm-999".into())).await.unwrap_err();
    let user = vim.current_session().await.unwrap().unwrap().user;
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
    let seen = Seen {
        name: vm.name,
        tracking: disks[0].backing.change_id.as_ref().map(ToString::to_string),
        disks: disks.iter().map(|disk| (disk.key.0, disk.capacity, disk.label.clone())).collect(),
        user,
        missing: Some(gone.to_string()),
    };
    (seen, vec![ticket.session_id.clone(), clone, vim.session_cookie().unwrap()])
}

/// A recording of [`run`], with what was seen and the secrets.
async fn recorded(scrub: Scrub) -> (String, Seen, Vec<String>) {
    let sim = simulator().await;
    let memory = Memory::default();
    let recorder = Arc::new(Recorder::new(real(&sim), memory.clone(), scrub));
    TokenRequest::new(USER, PASSWORD).issue(&*recorder).await.unwrap();
    let vim = connect(recorder.clone(), PASSWORD).await.unwrap();
    let (seen, secrets) = run(&vim).await;
    vim.logout().await.unwrap();
    assert!(recorder.finish().unwrap() > 10);
    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    let mut secrets: Vec<_> = secrets.iter().map(|secret| secret.expose().trim_matches('"').to_owned()).collect();
    secrets.push(PASSWORD.to_owned());
    (text, seen, secrets)
}

#[tokio::test]
async fn a_recording_holds_no_secret_and_replays_with_the_same_results() {
    let (text, seen, secrets) = recorded(Scrub::secrets()).await;
    for secret in &secrets {
        assert!(secret.len() > 8 && !text.contains(secret.as_str()), "{secret}");
    }
    assert!(text.contains("<password>secret-") && text.contains("<ds:SignatureValue>secret-"));
    assert!(text.contains(USER), "names stay unless they are to go");
    for mode in [ReplayMode::Lenient, ReplayMode::Strict] {
        let replay = Arc::new(Replay::read(text.as_bytes(), mode).unwrap());
        // Another password: it is not in the recording, so it cannot matter.
        let vim = connect(replay.clone(), "anything else").await.unwrap();
        let (again, _) = run(&vim).await;
        assert_eq!(again, seen, "{mode:?}");
        vim.logout().await.unwrap();
        if mode == ReplayMode::Strict {
            assert_eq!(replay.remaining(), 1, "all but the token was asked for");
        }
    }
}

#[tokio::test]
async fn pseudonyms_hide_who_and_where() {
    let server = Endpoint::parse("https://127.0.0.1/sdk").unwrap();
    let (text, seen, _) = recorded(Scrub::identities(&server).also("esx1.sim.invalid").also("dc1")).await;
    for name in [USER, "corp.example", "esx1.sim.invalid", "dc1", "127.0.0.1"] {
        assert!(!text.contains(name), "{name}");
    }
    assert!(text.contains("<userName>user-1</userName>"));
    let replay = Replay::read(text.as_bytes(), ReplayMode::Lenient).unwrap();
    let vim = connect(Arc::new(replay), "x").await.unwrap();
    let (again, _) = run(&vim).await;
    assert_eq!(again, Seen { user: "user-1".into(), ..seen });
}

#[tokio::test]
async fn a_strict_replay_refuses_what_was_not_recorded() {
    let (text, ..) = recorded(Scrub::secrets()).await;
    let vim = connect(Arc::new(Replay::read(text.as_bytes(), ReplayMode::Strict).unwrap()), "x").await.unwrap();
    let error = vim.find_by_inventory_path("dc1/vm/other").await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Malformed), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("FindByInventoryPath"), "{source}");
    let lenient = connect(Arc::new(Replay::read(text.as_bytes(), ReplayMode::Lenient).unwrap()), "x").await.unwrap();
    assert!(lenient.find_by_inventory_path("dc1/vm/other").await.unwrap().is_some());
}

#[tokio::test]
async fn failures_are_recorded_too() {
    let sim = simulator().await;
    let memory = Memory::default();
    let recorder = Arc::new(Recorder::new(real(&sim), memory.clone(), Scrub::secrets()));
    let vim = connect(recorder, PASSWORD).await.unwrap();
    sim.faults().drop_next("FindByInventoryPath");
    assert!(vim.find_by_inventory_path("dc1/vm/web").await.unwrap().is_some());
    vim.logout().await.unwrap();
    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("\n! disconnected sent ").count(), 1, "{text}");
    let vim = connect(Arc::new(Replay::read(text.as_bytes(), ReplayMode::Strict).unwrap()), "x").await.unwrap();
    assert!(vim.find_by_inventory_path("dc1/vm/web").await.unwrap().is_some(), "tried again, as then");
}

#[tokio::test]
async fn a_full_disk_ends_the_recording_and_not_the_work() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sim = simulator().await;
    let recorder = Arc::new(Recorder::new(real(&sim), Full(3000), Scrub::secrets()));
    let vim = connect(recorder.clone(), PASSWORD).await.unwrap();
    run(&vim).await;
    vim.logout().await.unwrap();
    assert_eq!(recorder.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_is_no_recording_is_refused() {
    for text in [
        "",
        "vsphere-vim recording 2\n",
        "vsphere-vim recording 1\n> PUT /x\n",
        "vsphere-vim recording 1\n> POST /sdk\n> body 9\nx\n",
    ] {
        let error = Replay::read(text.as_bytes(), ReplayMode::Strict).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { what: "recording", .. }), "{error}");
    }
}
