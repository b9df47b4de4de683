//! VMware's library as a transport: a small one that the C compiler makes, beside the simulator.
//!
//! Its disks are memory: sector `n` is full of `n % 251`, which tells them from the simulator's.

#[allow(dead_code)] // Written for the tests of the crate below.
#[path = "../../sys/tests/it/fake.rs"]
mod fake;

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use vixdisklib::{
    Access, CloneOptions, CompressionWish, Connection, ConnectionOptions, CreateSpec, DiskKind, Error, Governor,
    GovernorLimits, OpenOptions, TransportMode, clone_disk,
    vddk::{Library, LibraryOptions, Login, Server, VddkUse, VixCode},
};
use vsphere_sim::{DiskSpec, Simulator, VmSpec, nfc::NfcServerConfig};
use vsphere_vim::{CreateSnapshotOptions, Credentials, MoRef, RetryPolicy, Vim, mo};

use self::fake::{Fake, Log, alone};

const KIB: u64 = 1 << 10;
const BASE: &str = "[ds1] web/web.vmdk";

/// Runs a test that begins the library, in a process of its own.
fn alone_with<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Library, Log) -> F) {
    alone(&format!("vddk::{name}"), || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (fake, log) = (Fake::newest(), Log::default());
            let options = LibraryOptions::default().log(log.sink());
            let library = Library::load(fake.path(), options).await.unwrap();
            body(library, log).await;
        });
    });
}

fn everything(library: Library) -> ConnectionOptions {
    ConnectionOptions::new().vddk(library, VddkUse::Everything)
}

fn sectors(first: u64, count: u64) -> Vec<u8> {
    (first..first + count).flat_map(|sector| [(sector % 251) as u8; 512]).collect()
}

/// A simulator with a VM `web` and a disk of zeros, and a client that is logged in.
async fn lab() -> (Simulator, Vim, MoRef<mo::VirtualMachine>) {
    let vm = VmSpec::new("web").disk(DiskSpec::empty(32 << 20));
    let sim = Simulator::builder().vm(vm).nfc(NfcServerConfig::default()).start().await.unwrap();
    let credentials = Credentials::password(sim.username(), sim.password());
    let builder = Vim::builder(sim.url()).credentials(credentials).retry(RetryPolicy::never());
    let vim = builder.thumbprint(sim.thumbprint_sha256().parse().unwrap()).connect().await.unwrap();
    let vm = MoRef::new(sim.vm("web").unwrap().id());
    (sim, vim, vm)
}

#[test]
fn files_of_this_machine_are_read_and_written_by_the_library() {
    alone_with("files_of_this_machine_are_read_and_written_by_the_library", |library, log| async move {
        let local = Connection::local_with(Access::ReadWrite, everything(library.clone()));
        let spec = CreateSpec::new(DiskKind::MonolithicSparse, 1 << 20);
        local.create("/images/new.vmdk", &spec).await.unwrap();
        let options = OpenOptions::new().single_link(true).compression(CompressionWish::SkipZ);
        let disk = local.open_with("/images/a.vmdk", options).await.unwrap();
        assert_eq!((disk.transport(), disk.capacity(), disk.alignment()), (TransportMode::File, 8 << 20, 512));
        assert_eq!(disk.read_at(512, 1024).await.unwrap(), sectors(1, 2));
        disk.write_at(512, Bytes::from(vec![9; 512])).await.unwrap();
        disk.zero_range(1024..1536).await.unwrap();
        assert_eq!(disk.read_at(512, 1024).await.unwrap(), [vec![9; 512], vec![0; 512]].concat());
        let info = disk.info().await.unwrap();
        assert_eq!((info.logical_sector_size, info.physical_sector_size, info.links), (512, 4096, Some(2)));
        assert_eq!((info.adapter_type.as_deref(), info.geometry.heads), (Some("lsilogic"), 255));
        disk.set_metadata("toolsVersion", "12").await.unwrap();
        assert_eq!(disk.metadata("toolsVersion").await.unwrap().as_deref(), Some("12"));
        assert_eq!(disk.metadata("nothing").await.unwrap(), None);
        disk.flush().await.unwrap();
        disk.close().await.unwrap();
        drop(local);
        library.shut_down().await.unwrap();
        let calls = log.calls();
        assert!(calls.contains(&"create /images/new.vmdk type 1 adapter 3 sectors 2048".into()), "{calls:?}");
        assert!(calls.contains(&format!("open /images/a.vmdk flags {}", 2 | 64)), "{calls:?}");
        assert_eq!(calls.last().unwrap(), "exit with 0 connections, 0 disks, at most 1 under way");
    });
}

#[test]
fn allocation_comes_in_chunks_and_a_short_tail_counts_as_allocated() {
    alone_with("allocation_comes_in_chunks_and_a_short_tail_counts_as_allocated", |library, _log| async move {
        let local = Connection::local_with(Access::ReadOnly, everything(library.clone()));
        // The first, third and fifth chunk that are asked about are allocated.
        let disk = local.open("/images/odd.vmdk").await.unwrap();
        let end = disk.capacity();
        assert_eq!(end % (64 * KIB), 64 * KIB - 5 * 512);
        let all = disk.allocated(0..end).await.unwrap();
        assert!(!all.is_assumed());
        let chunks = [0..64 * KIB, 128 * KIB..192 * KIB, 256 * KIB..320 * KIB];
        assert_eq!(all.areas, [&chunks[..], &[end / (64 * KIB) * (64 * KIB)..end]].concat());
        let part = disk.allocated(130 * KIB..135 * KIB).await.unwrap();
        assert_eq!(part.areas, [130 * KIB..135 * KIB]);

        let writing = Connection::local_with(Access::ReadWrite, everything(library));
        let disk = writing.open("/images/a.vmdk").await.unwrap();
        assert!(disk.allocated(0..disk.capacity()).await.unwrap().is_assumed());
    });
}

#[test]
fn hotadd_shares_the_session_and_the_snapshot_of_the_connection() {
    alone_with("hotadd_shares_the_session_and_the_snapshot_of_the_connection", |library, log| async move {
        let (sim, vim, vm) = lab().await;
        let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
        let options = ConnectionOptions::new().vddk(library, VddkUse::WhatWeLack).snapshot(snapshot.clone());
        let options = options.vddk_server(Server::of_session("AA:BB"));
        let disks = Connection::connect_with(&vim, &vm, Access::ReadOnly, "hotadd:nbdssl", options).await.unwrap();
        let disk = disks.open(BASE).await.unwrap();
        assert_eq!(disk.transport(), TransportMode::HotAdd);
        let reads = (0..20).map(|n| disk.read_at(n * 512, 512));
        for (n, read) in reads.enumerate() {
            assert_eq!(read.await.unwrap(), sectors(n as u64, 1));
        }
        disk.close().await.unwrap();
        let (host, port) = (vim.endpoint().host(), vim.endpoint().port());
        let cookie = vim.session_cookie().unwrap();
        let connected = format!(
            "connect {host} moref={} thumb=AA:BB cred=2 {}/- port={port} ro=1 snapshot={} modes=hotadd",
            vm.value(),
            cookie.expose(),
            snapshot.value(),
        );
        assert_eq!(log.calls()[1..3], [connected, format!("open {BASE} flags 4")]);
        sim.shutdown().await;
    });
}

#[test]
fn where_the_library_fails_our_transport_goes_on_and_the_code_is_kept() {
    alone_with("where_the_library_fails_our_transport_goes_on_and_the_code_is_kept", |library, _log| async move {
        let (sim, vim, vm) = lab().await;
        sim.guest("web").unwrap().disk(2000).unwrap().write_at(0, &[0xEE; 512]).unwrap();
        let snapshot = vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
        let login = Login::User { name: "backup".into(), password: String::from("secret").into() };
        let options = ConnectionOptions::new().vddk(library, VddkUse::WhatWeLack).snapshot(snapshot);
        let options = options.vddk_server(Server::new("away", "AA:BB", login));
        let disks = Connection::connect_with(&vim, &vm, Access::ReadOnly, "san:nbdssl", options).await.unwrap();
        let disk = disks.open(BASE).await.unwrap();
        assert_eq!(disk.transport(), TransportMode::NbdSsl);
        assert_eq!(disk.read_at(0, 512).await.unwrap(), vec![0xEE; 512]);
        let [attempt] = disk.passed_over() else { panic!() };
        assert_eq!((attempt.mode, attempt.error.vix_code()), (TransportMode::San, Some(VixCode::NETWORK_CONN_REFUSED)));
        assert!(attempt.error.is_retryable() && attempt.error.hint().unwrap().contains("443"));
        assert!(attempt.to_string().contains("in the library's words: words for"), "{attempt}");
        disk.close().await.unwrap();
        sim.shutdown().await;
    });
}

#[test]
fn everything_takes_the_network_too_and_needs_to_know_the_server() {
    alone_with("everything_takes_the_network_too_and_needs_to_know_the_server", |library, log| async move {
        let (sim, vim, vm) = lab().await;
        let nobody = everything(library.clone());
        let refused = Connection::connect_with(&vim, &vm, Access::ReadOnly, "nbdssl", nobody).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { reason, .. } if reason.contains("vddk_server")), "{refused}");
        let options = everything(library).vddk_server(Server::of_session("AA:BB").ports(443, 9902));
        let governor = Governor::new(GovernorLimits::default().disks(1, 1));
        let options = options.governor(governor.clone());
        let disks = Connection::connect_with(&vim, &vm, Access::ReadWrite, "nbdssl", options).await.unwrap();
        let disk = disks.open(BASE).await.unwrap();
        assert_eq!((disk.transport(), disk.capacity()), (TransportMode::NbdSsl, 8 << 20));
        let (one, two) = tokio::join!(disk.read_at(0, 4096), disk.write_at(8192, Bytes::from(vec![1; 4096])));
        assert_eq!(one.unwrap(), sectors(0, 8));
        two.unwrap();
        let refused = disk.read_at(8 << 20, 512).await.unwrap_err();
        assert!(matches!(refused, Error::OutOfRange { .. }), "{refused}");
        assert!(log.calls()[1].contains("port=443 ro=0 snapshot=- modes=nbdssl"));
        // Its handles are connections of the host as ours are.
        let waiting = tokio::time::timeout(Duration::from_millis(100), disks.open(BASE)).await;
        assert!(waiting.is_err(), "there is one place");
        disk.close().await.unwrap();
        disks.open(BASE).await.unwrap().close().await.unwrap();
        assert_eq!(governor.usage(), Governor::default().usage());
        sim.shutdown().await;
    });
}

#[test]
fn a_clone_never_takes_the_place_of_a_file_that_the_library_reads() {
    alone_with("a_clone_never_takes_the_place_of_a_file_that_the_library_reads", |library, _log| async move {
        let folder = tempfile::tempdir().unwrap();
        let [base, child, copy] =
            ["base", "child", "copy"].map(|name| format!("{}/{name}.vmdk", folder.path().display()));
        let own = Connection::local(Access::ReadWrite);
        own.create(&base, &CreateSpec::new(DiskKind::MonolithicSparse, 8 << 20)).await.unwrap();
        let disk = own.open(base.as_str()).await.unwrap();
        disk.create_child(&child, DiskKind::MonolithicSparse, None).await.unwrap();
        disk.close().await.unwrap();

        let theirs = Connection::local_with(Access::ReadWrite, everything(library));
        let replacing = CloneOptions::new().overwrite(true);
        for target in [&child, &base] {
            let refused = clone_disk(&theirs, target, &theirs, &child, &replacing).await.unwrap_err();
            assert!(matches!(refused, Error::File { .. }), "{refused}");
            assert!(theirs.check_repair(target, false).await.unwrap().is_clean());
        }
        clone_disk(&theirs, &copy, &theirs, &child, &replacing).await.unwrap();
        let disk = own.open(copy.as_str()).await.unwrap();
        assert_eq!(disk.read_at(512, 1024).await.unwrap(), sectors(1, 2));
        disk.close().await.unwrap();
        // A disk that is not there for our reader is copied all the same.
        clone_disk(&theirs, &copy, &theirs, "/images/a.vmdk", &replacing).await.unwrap();
    });
}

#[test]
fn the_server_does_not_replace_what_a_hot_added_disk_builds_upon() {
    alone_with("the_server_does_not_replace_what_a_hot_added_disk_builds_upon", |library, _log| async move {
        let (sim, vim, vm) = lab().await;
        vim.create_snapshot(&vm, CreateSnapshotOptions::new("backup")).await.unwrap();
        let options = ConnectionOptions::new().vddk(library, VddkUse::WhatWeLack);
        let options = options.vddk_server(Server::of_session("AA:BB"));
        let disks = Connection::connect_with(&vim, &vm, Access::ReadWrite, "hotadd:nbdssl", options).await.unwrap();
        let running = disks.disks().await.unwrap().remove(0).path;
        assert_ne!(running, BASE);
        let replacing = CloneOptions::new().overwrite(true);
        let refused = clone_disk(&disks, BASE, &disks, &running, &replacing).await.unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{refused}");
        sim.shutdown().await;
    });
}

#[test]
fn the_log_of_the_library_goes_to_tracing() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    alone("vddk::the_log_of_the_library_goes_to_tracing", || {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fake = Fake::newest();
        runtime.block_on(Library::load(fake.path(), LibraryOptions::default())).unwrap();
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains(" WARN vddk: warned -7 8 2.50 x    ab| abcdef 1 2 3"), "{text}");
        assert!(text.contains("DEBUG vddk: ") && text.contains("init 6.5 dir="), "{text}");
    });
}
