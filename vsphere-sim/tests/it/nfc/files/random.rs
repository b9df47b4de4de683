//! Synchronous random access, the fallback for hosts without the asynchronous layer.

use bytes::Bytes;
use vsphere_nfc::{ClassicQuirks, Error, FilesOptions, Mode, Phase};
use vsphere_sim::nfc::{FaultAction, HostVersion, NfcServerConfig, Step};

use super::super::disk::{MIB, MemoryDisk, pattern};
use super::super::host::patient;
use super::store::Shelf;

const PATH: &str = "[ds1] web/web.vmdk";

fn options(quirks: ClassicQuirks) -> FilesOptions {
    FilesOptions::new(patient()).quirks(quirks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_of_an_old_host_is_read_and_written_one_request_at_a_time() {
    for version in [HostVersion::Apache2015, HostVersion::Esxi60, HostVersion::Esxi65] {
        let mut config = NfcServerConfig::default();
        config.version = version;
        let shelf = Shelf::start(config).await;
        shelf.store.add_disk(PATH, MemoryDisk::filled(8 * MIB, 4 * MIB), &[]);
        let mut files = shelf.connect(options(ClassicQuirks::default())).await.unwrap();
        let mut disk = files.open_disk(PATH, Mode::ReadOnly, 8 * MIB).await.unwrap();
        let all = disk.read_at(0, 8 << 20).await.unwrap();
        assert!(all == shelf.store.disk(PATH).memory.bytes(0..8 * MIB));
        assert!(disk.read_at(512, 1536).await.unwrap() == pattern(512, 1536));
        assert!(disk.read_at(8 * MIB, 0).await.unwrap().is_empty());
        assert!(matches!(disk.write_at(0, vec![0; 512].into()).await, Err(Error::ReadOnly { .. })));
        for (offset, len) in [(1, 512), (0, 100), (8 * MIB, 512), (u64::MAX - 511, 512)] {
            assert!(matches!(disk.read_at(offset, len).await, Err(Error::InvalidRequest { .. })), "{offset} {len}");
        }
        disk.close().await.unwrap();

        let mut disk = files.open_disk(PATH, Mode::ReadWrite, 8 * MIB).await.unwrap();
        let data = pattern(7 * MIB, 3 * MIB);
        disk.write_at(5 * MIB, Bytes::from(data.clone())).await.unwrap();
        // Nobody knows for certain that a host takes this for a read.
        assert!(matches!(disk.read_at(0, 512).await, Err(Error::InvalidRequest { .. })));
        disk.close().await.unwrap();
        assert!(shelf.store.disk(PATH).memory.bytes(5 * MIB..8 * MIB) == data);
        assert_eq!(shelf.store.disk(PATH).memory.flushes.load(std::sync::atomic::Ordering::SeqCst), 1);
        files.close().await.unwrap();
        assert_eq!(shelf.server.counters().connections_total(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubtful_facts_of_synchronous_access_can_be_set() {
    let mut config = NfcServerConfig::default();
    (config.synchronous_read_direction, config.max_synchronous_request) = (2, 64 * 1024);
    let shelf = Shelf::start(config).await;
    shelf.store.add_disk(PATH, MemoryDisk::filled(MIB, MIB), &[]);
    let mut quirks = ClassicQuirks::default();
    let read = async |quirks: &ClassicQuirks, mode| {
        let mut files = shelf.connect(options(quirks.clone())).await?;
        let mut disk = files.open_disk(PATH, mode, MIB).await?;
        disk.read_at(0, MIB as usize).await
    };
    let error = read(&quirks, Mode::ReadOnly).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::Read, .. }), "{error}");
    quirks.max_request = 64 * 1024;
    let error = read(&quirks, Mode::ReadOnly).await.unwrap_err();
    assert!(matches!(error, Error::Server { phase: Phase::Read, .. }), "{error}");
    (quirks.read_direction, quirks.read_when_writable) = (2, true);
    for mode in [Mode::ReadOnly, Mode::ReadWrite] {
        assert!(read(&quirks, mode).await.unwrap() == pattern(0, MIB));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_synchronous_access_name_their_phase_and_end_the_connection() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    shelf.store.add_disk(PATH, MemoryDisk::filled(MIB, MIB), &[]);
    let mut files = shelf.connect(options(ClassicQuirks::default())).await.unwrap();
    let error = files.open_disk("[ds1] none.vmdk", Mode::ReadOnly, MIB).await.unwrap_err();
    assert!(matches!(error, Error::OpenRefused { .. }), "{error}");
    let full = || FaultAction::Error { code: 42, text: "no space left".into() };

    let mut files = shelf.connect(options(ClassicQuirks::default())).await.unwrap();
    let mut disk = files.open_disk(PATH, Mode::ReadWrite, MIB).await.unwrap();
    disk.write_at(0, vec![1; 4096].into()).await.unwrap();
    shelf.server.inject(Step::Write, full());
    let error = disk.write_at(8192, vec![1; 4096].into()).await.unwrap_err();
    let Error::WriteInDoubt { range, .. } = &error else { panic!("{error}") };
    assert_eq!(*range, 8192..12288);
    assert_eq!(error.fault().unwrap().text, "no space left");
    assert!(disk.write_at(0, vec![1; 512].into()).await.is_err());
    assert!(disk.close().await.is_err());
    assert!(files.delete("[ds1] a").await.is_err());

    let mut files = shelf.connect(options(ClassicQuirks::default())).await.unwrap();
    let disk = files.open_disk(PATH, Mode::ReadWrite, MIB).await.unwrap();
    shelf.server.inject(Step::CloseFile, full());
    assert!(matches!(disk.close().await, Err(Error::Server { phase: Phase::Close, .. })));
}
