//! Datastore files against the simulator: every route, broken connections, dead sessions.

use std::{io, time::Duration};

use bytes::Bytes;
use vsphere_sim::{DiskSpec, Fault, FileOptions, Injection, Personality, Power, Simulator, SimulatorBuilder, VmSpec};
use vsphere_vim::{
    CreateSnapshotOptions, Credentials, Error, MoRef, RetryPolicy, Thumbprint, Vim, VimBuilder, VmLookup,
    datastore::{Datastore, Existing, FileDetails, FileRoute, HostRoute, Search},
    error::TransportErrorKind,
    transport::stream::{StreamOptions, Upload, UploadFraming},
};

const MIB: u64 = 1 << 20;

fn one_vm() -> SimulatorBuilder {
    Simulator::builder().vm(VmSpec::new("web").disk(DiskSpec::empty(8 * MIB)).power(Power::Off))
}

fn builder(sim: &Simulator) -> VimBuilder {
    let pin: Thumbprint = sim.thumbprint_sha256().parse().unwrap();
    let retry = RetryPolicy::default().attempts(4).back_off(Duration::from_millis(1), Duration::from_millis(5));
    Vim::builder(sim.url())
        .credentials(Credentials::password(sim.username(), sim.password()))
        .thumbprint(pin)
        .retry(retry)
}

async fn open(sim: &Simulator) -> (Vim, Datastore) {
    let vim = builder(sim).connect().await.unwrap();
    let store = vim.find_datastore("ds1", None).await.unwrap();
    (vim, store)
}

/// Bytes that differ everywhere.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn files_are_written_listed_read_copied_moved_and_deleted_on_both_kinds_of_server() {
    for personality in [Personality::VCenter, Personality::Esxi] {
        let sim = one_vm().personality(personality).start().await.unwrap();
        let (vim, store) = open(&sim).await;
        assert_eq!(store.datacenter_path(), if vim.is_vcenter() { "dc1" } else { "ha-datacenter" });
        let folder = store.path("backup Ü/a+b&c#%2f").unwrap();
        store.make_folder(&folder, true).await.unwrap();
        assert!(store.make_folder(&folder, true).await.unwrap_err().is_fault("FileAlreadyExists"));
        let (file, content) = (folder.join("x y.bin").unwrap(), pattern(700_001));
        store.write(&file, Upload::from_bytes(content.clone())).await.unwrap();
        assert_eq!(store.stat(&file).await.unwrap().unwrap().size, Some(700_001));
        assert_eq!(store.stat(&folder.join("none").unwrap()).await.unwrap(), None);
        assert!(store.read(&file).open().await.unwrap().collect(1 << 20).await.unwrap() == content);
        let part = store.read(&file).range(1000..5000).open().await.unwrap();
        assert_eq!((part.file_size(), part.len()), (Some(700_001), Some(4000)));
        assert!(part.collect(4000).await.unwrap() == content[1000..5000]);
        let tail = store.read(&file).range(700_000..u64::MAX).open().await.unwrap();
        assert!(tail.collect(9).await.unwrap() == content[700_000..]);
        let beyond = store.read(&file).range(700_001..800_000).open().await.unwrap_err();
        assert!(matches!(beyond, Error::InvalidInput { .. }), "{beyond}");

        let copy = folder.join("copy.bin").unwrap();
        store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap();
        let again = store.copy(&file, (&store, &copy), Existing::Keep).await.unwrap_err();
        assert!(again.is_fault("FileAlreadyExists"), "{again}");
        store.copy(&file, (&store, &copy), Existing::Replace).await.unwrap();
        let onto_itself = store.copy(&copy, (&store, &copy), Existing::Replace).await.unwrap_err();
        assert!(onto_itself.is_fault("FileAlreadyExists"), "{onto_itself}");
        let moved = folder.join("moved.bin").unwrap();
        store.rename(&copy, (&store, &moved), Existing::Keep).await.unwrap();
        let names: Vec<_> = store.list(&folder).await.unwrap();
        let names: Vec<_> = names.iter().map(|file| (file.path.file_name(), file.size)).collect();
        assert_eq!(names, [("moved.bin", Some(700_001)), ("x y.bin", Some(700_001))]);
        store.delete(&moved).await.unwrap();
        assert!(matches!(store.read(&moved).open().await.unwrap_err(), Error::NotFound { .. }));
        assert!(store.delete(&moved).await.unwrap_err().is_fault("FileNotFound"));
        assert!(store.delete(&store.path("").unwrap()).await.is_err());
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_search_finds_disks_with_what_is_known_of_them() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    let web = store.path("web").unwrap();
    let disks = store.search(&web, &Search::new().disks()).await.unwrap();
    assert_eq!(disks.len(), 1);
    let FileDetails::Disk { capacity, thin, .. } = &disks[0].details else { panic!("{disks:?}") };
    assert_eq!(
        (disks[0].path.to_string().as_str(), *capacity, *thin),
        ("[ds1] web/web.vmdk", Some(8 * MIB), Some(true))
    );
    assert!(disks[0].modified.is_some());
    let everything = store.search(&store.path("").unwrap(), &Search::new().recursive()).await.unwrap();
    let names: Vec<_> = everything.iter().map(|file| file.path.to_string()).collect();
    assert!(names.contains(&"[ds1] web".to_owned()) && names.contains(&"[ds1] web/web.vmx".to_owned()), "{names:?}");
    let folders = store.search(&store.path("").unwrap(), &Search::new().folders()).await.unwrap();
    assert!(folders.iter().all(|file| file.is_folder()) && folders.len() == 1);
    let upper = store.search(&web, &Search::new().matching("WEB.VM?").ignore_case().owner()).await.unwrap();
    assert_eq!((upper.len(), upper[0].owner.as_deref()), (1, Some("root")));
    let missing = store.list(&store.path("nowhere").unwrap()).await.unwrap_err();
    assert!(missing.is_fault("FileNotFound"), "{missing}");
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_machines_files_hold_its_configuration_and_its_bytes() {
    let sim = one_vm().start().await.unwrap();
    let content = pattern(100_000);
    sim.guest("web").unwrap().disk(2000).unwrap().write_at(65_000, &content).unwrap();
    let (vim, store) = open(&sim).await;
    let text = |name: &'static str| {
        let store = store.clone();
        async move {
            let path = store.path(name).unwrap();
            String::from_utf8(store.read(&path).open().await.unwrap().collect(99_999).await.unwrap()).unwrap()
        }
    };
    assert!(text("web/web.vmx").await.contains("displayName = \"web\""));
    let descriptor = text("web/web.vmdk").await;
    assert!(descriptor.contains("VMFS \"web-flat.vmdk\"") && descriptor.contains("thinProvisioned"), "{descriptor}");
    let flat = store.path("web/web-flat.vmdk").unwrap();
    assert_eq!(store.stat(&flat).await.unwrap().unwrap().size, Some(8 * MIB));
    let read = store.read(&flat).range(65_000..165_000).open().await.unwrap().collect(1 << 20).await.unwrap();
    assert!(read == content);
    // The same name with a snapshot's number is another file, and not there: nothing is stripped.
    let delta = store.path("web/web-000001-flat.vmdk").unwrap();
    assert!(matches!(store.read(&delta).open().await.unwrap_err(), Error::NotFound { .. }));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn the_disk_of_a_running_machine_is_locked_and_the_reason_is_told() {
    let sim = one_vm().start().await.unwrap();
    sim.vm("web").unwrap().set_power(Power::On).unwrap();
    let (vim, store) = open(&sim).await;
    let flat = store.path("web/web-flat.vmdk").unwrap();
    let error = store.read(&flat).open().await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::HttpStatus(500)));
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("locked") && told.contains("web-flat.vmdk"), "{told}");
    vim.logout().await.unwrap();
    let mut open_disks = FileOptions::default();
    open_disks.lock_running_disks = false;
    let sim = one_vm().files(open_disks).start().await.unwrap();
    sim.vm("web").unwrap().set_power(Power::On).unwrap();
    let (vim, store) = open(&sim).await;
    store.read(&flat).range(0..512).open().await.unwrap().collect(512).await.unwrap();
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_read_goes_on_where_the_connection_broke() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    let (file, content) = (store.path("big").unwrap(), pattern(3_000_000));
    store.write(&file, Upload::from_bytes(content.clone())).await.unwrap();
    // Five breaks, each after progress: more than the policy's tries without progress.
    for cut in [1, 700_000, 1_000_000, 5, 65_536] {
        sim.faults().inject("GET /folder", Injection::CutBody(cut));
    }
    let read = store.read(&file).range(7..2_999_999).open().await.unwrap().collect(3_000_000).await.unwrap();
    assert!(read == content[7..2_999_999]);
    // Without progress it ends.
    for _ in 0..10 {
        sim.faults().inject("GET /folder", Injection::DropBefore);
    }
    let error = store.read(&file).open().await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Disconnected));
    sim.faults().clear();
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_read_survives_the_death_of_its_session() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    let (file, content) = (store.path("big").unwrap(), pattern(2_000_000));
    store.write(&file, Upload::from_bytes(content.clone())).await.unwrap();
    sim.faults().inject("GET /folder", Injection::CutBody(500_000));
    let mut reader = store.read(&file).open().await.unwrap();
    let mut read = reader.try_next().await.unwrap().unwrap().to_vec();
    sim.expire_sessions();
    while let Some(piece) = reader.try_next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == content);
    assert_eq!(sim.leftovers().sessions, 1);
    // And so does an upload that has not begun.
    sim.expire_sessions();
    store.write(&file, Upload::from_bytes("x")).await.unwrap();
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_file_that_changes_under_a_read_is_an_error() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    let file = store.path("big").unwrap();
    store.write(&file, Upload::from_bytes(pattern(2_000_000))).await.unwrap();
    sim.faults().inject("GET /folder", Injection::CutBody(500_000));
    let mut reader = store.read(&file).open().await.unwrap();
    reader.try_next().await.unwrap().unwrap();
    store.write(&file, Upload::from_bytes(pattern(1_999_999))).await.unwrap();
    let error = loop {
        match reader.try_next().await {
            Ok(piece) => assert!(piece.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert!(reader.try_next().await.unwrap().is_none());
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn a_host_serves_files_for_a_ticket_and_either_way_stands_in_for_the_other() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    let (file, content) = (store.path("file").unwrap(), pattern(10_000));
    store.write(&file, Upload::from_bytes(content.clone())).await.unwrap();
    let here = HostRoute::new(MoRef::new("host-8")).address(format!("localhost:{}", sim.address().port()));
    let host = store.clone().route(FileRoute::Host(here.clone()));
    assert!(host.read(&file).range(5..9000).open().await.unwrap().collect(9000).await.unwrap() == content[5..9000]);
    host.write(&file, Upload::from_bytes("by ticket")).await.unwrap();
    assert_eq!(host.stat(&file).await.unwrap().unwrap().size, Some(9));
    // A host that cannot be reached: the server stands in.
    let nowhere = HostRoute::new(MoRef::new("host-8")).address("localhost:1");
    let either = store.clone().route(FileRoute::HostThenServer(nowhere.clone()));
    assert_eq!(either.read(&file).open().await.unwrap().collect(99).await.unwrap(), b"by ticket");
    assert!(store.clone().route(FileRoute::Host(nowhere)).read(&file).open().await.is_err());
    // A server that refuses: the host stands in.
    sim.faults().inject("GET /folder", Injection::Http(503));
    let either = store.clone().route(FileRoute::ServerThenHost(here.clone()));
    assert_eq!(either.read(&file).open().await.unwrap().collect(99).await.unwrap(), b"by ticket");
    // A file that is not there is not looked for elsewhere.
    let missing = either.read(&store.path("missing").unwrap()).open().await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    // Another certificate than the pinned one is not spoken to.
    let wrong = here.thumbprint("00".repeat(32).parse().unwrap());
    let error = store.clone().route(FileRoute::Host(wrong)).read(&file).open().await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Untrusted));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn uploads_of_known_and_unknown_length_arrive_whole_and_sources_must_keep_their_word() {
    let sim = one_vm().start().await.unwrap();
    let content = pattern(2_500_000);
    for framing in [UploadFraming::WhenKnown, UploadFraming::Chunked] {
        let options = StreamOptions { framing, ..StreamOptions::default() };
        let vim = builder(&sim).stream_options(options).connect().await.unwrap();
        let store = vim.find_datastore("ds1", None).await.unwrap();
        let file = store.path("up").unwrap();
        for len in [Some(content.len() as u64), None] {
            let pieces: Vec<io::Result<Bytes>> =
                content.chunks(99_999).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            store.write(&file, Upload::new(len, futures_util::stream::iter(pieces))).await.unwrap();
            assert!(store.read(&file).open().await.unwrap().collect(9_999_999).await.unwrap() == content);
            let reader = io::Cursor::new(content.clone());
            store.write(&file, Upload::from_reader(len, reader)).await.unwrap();
            assert_eq!(store.stat(&file).await.unwrap().unwrap().size, Some(content.len() as u64));
        }
        for stated in [content.len() as u64 - 1, content.len() as u64 + 1] {
            let upload = Upload::from_reader(stated, io::Cursor::new(content.clone()));
            let error = store.write(&file, upload).await.unwrap_err();
            assert_eq!(error.transport_kind(), Some(TransportErrorKind::UploadSource), "{error}");
        }
        let broken = vec![Ok(Bytes::from_static(b"x")), Err(io::Error::other("disk on fire"))];
        let error = store.write(&file, Upload::new(None, futures_util::stream::iter(broken))).await.unwrap_err();
        let told = std::error::Error::source(&error).unwrap().to_string();
        assert!(told.contains("disk on fire"), "{told}");
        vim.logout().await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_stalls_times_out_but_a_slow_consumer_does_not() {
    let sim = one_vm().start().await.unwrap();
    let options = StreamOptions { idle_timeout: Duration::from_millis(200), ..StreamOptions::default() };
    let vim = builder(&sim).stream_options(options).retry(RetryPolicy::never()).connect().await.unwrap();
    let store = vim.find_datastore("ds1", None).await.unwrap();
    let file = store.path("big").unwrap();
    store.write(&file, Upload::from_bytes(pattern(2_000_000))).await.unwrap();
    let mut reader = store.read(&file).open().await.unwrap();
    let mut len = 0;
    for _ in 0..3 {
        len += reader.try_next().await.unwrap().unwrap().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    while let Some(piece) = reader.try_next().await.unwrap() {
        len += piece.len();
    }
    assert_eq!(len, 2_000_000);
    sim.faults().inject("GET /folder", Injection::StallBody(1_000_000));
    let error = store.read(&file).open().await.unwrap().collect(2_000_000).await.unwrap_err();
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Timeout));
    // A whole transfer can be limited too, whoever is slow.
    let options = StreamOptions { total_timeout: Some(Duration::from_millis(300)), ..StreamOptions::default() };
    let vim2 = builder(&sim).stream_options(options).retry(RetryPolicy::never()).connect().await.unwrap();
    let store = vim2.find_datastore("ds1", None).await.unwrap();
    let mut reader = store.read(&file).open().await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let error = loop {
        match reader.try_next().await {
            Ok(piece) => assert!(piece.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.transport_kind(), Some(TransportErrorKind::Timeout));
    vim.logout().await.unwrap();
    vim2.logout().await.unwrap();
}

#[tokio::test]
async fn what_windows_said_about_a_quiesced_snapshot_is_found_and_read() {
    let windows = VmSpec::new("mail").disk(DiskSpec::empty(MIB)).guest_id("windows2019srv_64Guest").power(Power::On);
    let sim = Simulator::builder().vm(windows).start().await.unwrap();
    let (vim, _) = open(&sim).await;
    let vm = vim.find_vm(&VmLookup::InventoryPath("dc1/vm/mail".into())).await.unwrap().moref;
    let plain = vim.create_snapshot(&vm, CreateSnapshotOptions::new("plain")).await.unwrap();
    assert!(vim.vss_manifest(&vm, &plain).await.unwrap().is_none());
    let quiesced = vim.create_snapshot(&vm, CreateSnapshotOptions::new("vss").quiesce(true)).await.unwrap();
    let manifest = vim.vss_manifest(&vm, &quiesced).await.unwrap().unwrap();
    assert_eq!(manifest.path().to_string(), "[ds1] mail/mail-vss_manifests2.zip");
    let zip = manifest.open().await.unwrap().collect(1 << 20).await.unwrap();
    assert!(zip.starts_with(b"PK\x03\x04") && zip.windows(10).any(|bytes| bytes == b"backup.xml"));
    let found = vim.search_vss_manifests(&vm, &[]).await.unwrap();
    assert_eq!(found.iter().map(|found| found.path()).collect::<Vec<_>>(), [manifest.path()]);
    assert!(vim.search_vss_manifests(&vm, &["nothing*"]).await.unwrap().is_empty());
    let gone = vim.vss_manifest(&vm, &MoRef::new("snapshot-99")).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }));
    vim.logout().await.unwrap();
}

#[tokio::test]
async fn refusals_are_told_by_their_right_names() {
    let sim = one_vm().start().await.unwrap();
    let (vim, store) = open(&sim).await;
    assert!(matches!(vim.find_datastore("ds2", None).await.unwrap_err(), Error::NotFound { .. }));
    let other = "[ds2] x".parse().unwrap();
    assert!(matches!(store.list(&other).await.unwrap_err(), Error::InvalidInput { .. }));
    assert!(matches!(store.read(&other).open().await.unwrap_err(), Error::InvalidInput { .. }));
    assert!(store.delete(&store.path("web/web.vmx").unwrap()).await.unwrap_err().is_fault("FileLocked"));
    sim.faults().fail_next_task("SearchDatastore_Task", Fault::new("NoPermission", "no"));
    assert!(store.list(&store.path("").unwrap()).await.unwrap_err().is_fault("NoPermission"));
    vim.logout().await.unwrap();
    let error = store.read(&store.path("web/web.vmx").unwrap()).open().await.unwrap_err();
    assert!(
        error.transport_kind() == Some(TransportErrorKind::HttpStatus(401)) || error.is_fault("NotAuthenticated"),
        "{error}"
    );
}
