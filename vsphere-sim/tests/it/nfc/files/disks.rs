//! Row 25: disks as streams, in every legal form and in illegal ones.

use bytes::Bytes;
use vsphere_nfc::wire::classic_file::{FileMessage, FilePut, FileType};
use vsphere_nfc::wire::disk_stream::{MAX_RUN, Writer};
use vsphere_nfc::wire::frames::{MAX_LEN, head};
use vsphere_nfc::{ClassicQuirks, DiskPart, DiskSpec, Error, FilesOptions, NfcFiles, Phase, Provisioning};
use vsphere_sim::nfc::{FaultAction, NfcServerConfig, Step};

use super::super::disk::{MIB, MemoryDisk, pattern};
use super::super::host::patient;
use super::store::Shelf;

const PATH: &str = "[ds1] web/web.vmdk";

/// A whole disk: entries, bytes, and how many bytes were told to be zeros.
async fn fetch(files: &mut NfcFiles, path: &str) -> Result<(Vec<(String, String)>, Vec<u8>, u64), Error> {
    let mut reader = files.get_disk(path).await?;
    let (mut entries, mut zeros) = (Vec::new(), 0);
    let mut content = vec![0; reader.capacity() as usize];
    let mut at = 0;
    while let Some(part) = reader.next().await? {
        match part {
            DiskPart::Metadata(more) => entries.extend(more),
            DiskPart::Data { offset, bytes } => {
                assert_eq!(offset, at);
                content[at as usize..][..bytes.len()].copy_from_slice(&bytes);
                at += bytes.len() as u64;
            }
            DiskPart::Zeros(range) => {
                assert_eq!(range.start, at);
                zeros += range.end - range.start;
                at = range.end;
            }
        }
    }
    assert_eq!(at, content.len() as u64);
    Ok((entries, content, zeros))
}

fn options(run_sectors: u16) -> FilesOptions {
    let mut quirks = ClassicQuirks::default();
    quirks.run_sectors = run_sectors;
    FilesOptions::new(patient()).quirks(quirks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_go_and_come_back_with_their_database() {
    for run_sectors in [1, 7, MAX_RUN] {
        let mut config = NfcServerConfig::default();
        (config.run_sectors, config.metadata_frames) = (run_sectors, 2);
        let shelf = Shelf::start(config).await;
        let mut files = shelf.connect(options(run_sectors)).await.unwrap();
        let capacity = 40 * MIB + 512;
        let spec =
            DiskSpec::new(capacity).adapter("ide").metadata("uuid", "60 00 C2 9a").metadata("adapterType", "ide");
        let spec = spec.metadata("comment", "ä".repeat(1000).as_str());
        let mut upload = files.put_disk(PATH, &spec).await.unwrap();
        let data = pattern(0, 3 * MIB + 512);
        upload.zeros(20 * MIB).await.unwrap();
        upload.data(Bytes::from(data.clone())).await.unwrap();
        assert_eq!(upload.position(), 23 * MIB + 512);
        upload.finish().await.unwrap();
        let stored = shelf.store.disk(PATH);
        let new = stored.new.clone().unwrap();
        assert_eq!((new.capacity, new.thin, new.adapter, new.overwrite), (capacity, true, Some("ide"), true));
        assert_eq!(*stored.ddb.lock().unwrap(), spec.metadata);
        assert!(stored.memory.bytes(20 * MIB..23 * MIB + 512) == data);
        assert_eq!(stored.memory.flushes.load(std::sync::atomic::Ordering::SeqCst), 1);

        let (entries, content, zeros) = fetch(&mut files, PATH).await.unwrap();
        assert_eq!(entries, spec.metadata);
        assert!(content == stored.memory.bytes(0..capacity));
        assert!(zeros >= 30 * MIB, "{zeros} bytes of zeros were not sent");
        files.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeros_of_a_huge_disk_cost_next_to_nothing() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let mut files = shelf.connect(options(1)).await.unwrap();
    let capacity = 64 << 30;
    let upload = files.put_disk(PATH, &DiskSpec::new(capacity).provisioning(Provisioning::Thick)).await.unwrap();
    upload.finish().await.unwrap();
    assert!(!shelf.store.disk(PATH).new.as_ref().unwrap().thin);
    let mut reader = files.get_disk(PATH).await.unwrap();
    let mut at = 0;
    while let Some(part) = reader.next().await.unwrap() {
        let DiskPart::Zeros(range) = part else { panic!("{part:?}") };
        assert_eq!(range.start, at);
        at = range.end;
    }
    assert_eq!(at, capacity);
    files.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_frame_behind_a_disk_is_passed_over_once() {
    let mut config = NfcServerConfig::default();
    config.empty_frame_after_disk = true;
    let shelf = Shelf::start(config).await;
    shelf.store.add_disk(PATH, MemoryDisk::filled(MIB, MIB), &[("uuid", "1")]);
    shelf.add_file("[ds1] a", b"hello");
    let mut files = shelf.connect(options(1)).await.unwrap();
    for _ in 0..3 {
        assert!(fetch(&mut files, PATH).await.unwrap().1 == pattern(0, MIB));
    }
    let mut plain = files.get_file("[ds1] a").await.unwrap();
    assert_eq!(plain.next().await.unwrap().unwrap(), "hello");
    assert_eq!(plain.next().await.unwrap(), None);
    fetch(&mut files, PATH).await.unwrap();
    files.close().await.unwrap();

    let mut options = options(1);
    options.quirks.skip_empty_frame = false;
    let mut files = shelf.connect(options).await.unwrap();
    fetch(&mut files, PATH).await.unwrap();
    assert!(matches!(files.get_file("[ds1] a").await, Err(Error::Protocol { phase: Phase::GetFile, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_disk_is_refused_unless_allowed() {
    let mut config = NfcServerConfig::default();
    config.answers_delta_disk = true;
    let shelf = Shelf::start(config).await;
    shelf.store.add_disk(PATH, MemoryDisk::filled(MIB, MIB), &[]);
    let mut files = shelf.connect(options(1)).await.unwrap();
    let error = files.get_disk(PATH).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol { what, .. } if what.contains("type 3")), "{error}");
    let mut options = options(1);
    options.quirks.take_delta_disk = true;
    let mut files = shelf.connect(options).await.unwrap();
    assert!(fetch(&mut files, PATH).await.unwrap().1 == pattern(0, MIB));
}

/// The answer to a GET of a disk of two sectors, with `frames` behind it.
fn answer(file_type: FileType, frames: &[u8]) -> FaultAction {
    let put = |path_len| FileMessage::Put(FilePut { file_type, conversion: 0, path_len, size: 1024, space: 1024 });
    FaultAction::Bytes([&FileMessage::with_path(PATH, put).unwrap(), frames].concat())
}

/// A frame with `sectors` of data.
fn sectors(sectors: usize) -> Vec<u8> {
    let mut writer = Writer::new(MAX_RUN);
    assert_eq!(writer.data(&mut Bytes::from(vec![7; sectors * 512])), None);
    writer.finish().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_is_not_the_announced_one_is_refused() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let end = head(0);
    let two = sectors(2);
    for (what, legal, frames) in [
        ("two sectors", true, two.clone()),
        ("two frames", true, [sectors(1), sectors(1)].concat()),
        ("too few", false, [sectors(1).as_slice(), &end].concat()),
        ("none", false, end.to_vec()),
        ("too many", false, sectors(3)),
        ("too many frames", false, [sectors(1), sectors(2)].concat()),
        ("long frame", false, head(MAX_LEN as u32 + 1).to_vec()),
        ("no frame", false, FileMessage::PutDone.encode().to_vec()),
        ("end of session", false, FileMessage::SessionComplete.encode().to_vec()),
    ] {
        shelf.server.inject(Step::GetFile, answer(FileType::Disk, &frames));
        let mut files = shelf.connect(options(1)).await.unwrap();
        match fetch(&mut files, PATH).await {
            Ok((_, content, _)) => assert!(legal && content == [7; 1024], "{what}"),
            Err(Error::Protocol { phase: Phase::GetFile, .. }) => assert!(!legal, "{what}"),
            Err(other) => panic!("{what}: {other}"),
        }
    }
    for (what, legal, frames) in [
        ("whole", true, [head(1024).as_slice(), &[7; 1024], &end].concat()),
        ("in two", true, [head(1000).as_slice(), &[7; 1000], &head(24), &[7; 24], &end].concat()),
        ("a frame of 256 KiB", true, [head(MAX_LEN as u32).as_slice(), &vec![7; MAX_LEN], &end].concat()),
        ("short", false, [head(1023).as_slice(), &[7; 1023], &end].concat()),
    ] {
        shelf.server.inject(Step::GetFile, answer(FileType::Raw, &frames));
        let mut files = shelf.connect(options(1)).await.unwrap();
        let mut reader = files.get_file(PATH).await.unwrap();
        let end = loop {
            match reader.next().await {
                Ok(Some(bytes)) => assert!(bytes.iter().all(|byte| *byte == 7)),
                end => break end,
            }
        };
        assert_eq!(end.is_ok(), legal, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_beyond_the_capacity_is_refused_before_it_is_sent() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let mut files = shelf.connect(options(1)).await.unwrap();
    assert!(matches!(files.put_disk(PATH, &DiskSpec::new(1000)).await, Err(Error::InvalidRequest { .. })));
    let mut upload = files.put_disk(PATH, &DiskSpec::new(1024)).await.unwrap();
    for len in [100, 1536] {
        assert!(matches!(upload.data(vec![1; len].into()).await, Err(Error::InvalidRequest { .. })));
        assert!(matches!(upload.zeros(len as u64).await, Err(Error::InvalidRequest { .. })));
    }
    upload.data(vec![1; 512].into()).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(shelf.store.disk(PATH).memory.bytes(0..1024), [vec![1; 512], vec![0; 512]].concat());
}
