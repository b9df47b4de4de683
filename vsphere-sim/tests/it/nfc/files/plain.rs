//! Plain files, directories, and the life of the connection.

use std::time::Duration;

use bytes::Bytes;
use vsphere_nfc::{Ancestors, Channel, Error, FilesOptions, NfcFiles, NfcOptions, Phase, Timeouts};
use vsphere_sim::nfc::{Cut, FaultAction, HostVersion, NfcServerConfig, Step};

use super::super::disk::pattern;
use super::super::host::patient;
use super::store::{REFUSED, Shelf};

async fn fetch(files: &mut NfcFiles, path: &str) -> Result<Vec<u8>, Error> {
    let mut reader = files.get_file(path).await?;
    let mut content = Vec::new();
    while let Some(bytes) = reader.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

async fn store(files: &mut NfcFiles, path: &str, content: &[u8]) -> Result<(), Error> {
    let mut writer = files.put_file(path, content.len() as u64).await?;
    for part in content.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(part)).await?;
    }
    writer.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_and_come_back_over_one_connection() {
    for version in [HostVersion::Apache2015, HostVersion::Esxi60, HostVersion::Esxi80] {
        for channel in [Channel::Tls, Channel::Clear] {
            let mut config = NfcServerConfig::default();
            config.version = version;
            let shelf = Shelf::start(config).await;
            let mut files = shelf.connect(FilesOptions::new(patient().channel(channel))).await.unwrap();
            assert_eq!(files.tls_version().is_some(), channel == Channel::Tls);
            for len in [0, 8, 262_144, 262_152, 1 << 20] {
                let content = pattern(0, len);
                store(&mut files, "[ds1] web/x.log", &content).await.unwrap();
                assert!(shelf.store.files.lock().unwrap()["[ds1] web/x.log"] == content);
                assert!(
                    fetch(&mut files, "[ds1] web/x.log").await.unwrap() == content,
                    "{version:?} {channel:?} {len}"
                );
            }
            files.close().await.unwrap();
            assert_eq!(shelf.server.counters().connections_total(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_made_and_files_deleted() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    shelf.add_file("[ds1] web/old.log", b"x");
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    files.make_directory("[ds1] a/b", Ancestors::Make).await.unwrap();
    files.make_directory("[ds1] a/b", Ancestors::Expect).await.unwrap();
    assert_eq!(shelf.store.directories.lock().unwrap().len(), 2);
    files.delete("[ds1] web/old.log").await.unwrap();
    assert!(shelf.store.files.lock().unwrap().is_empty());
    let error = files.delete("[ds1] web/old.log").await.unwrap_err();
    let Error::Server { phase: Phase::FileOperation, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((fault.code, fault.text.as_str()), (Some(REFUSED), "File not found"));
    // What follows an error is not certain.
    let error = files.make_directory("[ds1] c", Ancestors::Make).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    for path in ["", "a\0b"] {
        let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
        assert!(matches!(files.delete(path).await, Err(Error::InvalidRequest { .. })));
        files.make_directory("[ds1] d", Ancestors::Make).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_and_rate_control_are_passed_over() {
    let mut config = NfcServerConfig::default();
    config.interjections = vec![8, 6, 8];
    let shelf = Shelf::start(config).await;
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    for _ in 0..10 {
        store(&mut files, "[ds1] a", b"hello").await.unwrap();
        assert_eq!(fetch(&mut files, "[ds1] a").await.unwrap(), b"hello");
    }
    shelf.server.configure(|config| config.interjections = vec![8; 100]);
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    assert!(matches!(fetch(&mut files, "[ds1] a").await, Err(Error::Protocol { phase: Phase::GetFile, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_reads_lose_nothing_and_an_abandoned_file_ends_the_connection() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let content = pattern(0, 2 << 20);
    shelf.add_file("[ds1] a", &content);
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    let mut cancelled = 0;
    // Whether a read has to wait is the machine's to say: a file that was there at once proves nothing.
    for _ in 0..100 {
        let mut reader = files.get_file("[ds1] a").await.unwrap();
        assert_eq!(reader.announced_len(), 2 << 20);
        let mut read = Vec::new();
        loop {
            tokio::select! {
                biased;
                part = reader.next() => match part.unwrap() {
                    Some(bytes) => read.extend_from_slice(&bytes),
                    None => break,
                },
                () = tokio::task::yield_now() => cancelled += 1,
            }
        }
        assert!(read == content);
        if cancelled > 0 {
            break;
        }
    }
    assert!(cancelled > 0, "nothing was cancelled");
    files.get_file("[ds1] a").await.map(|_abandoned| ()).unwrap();
    let error = files.get_file("[ds1] a").await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    assert!(files.close().await.is_err());

    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    let mut writer = files.put_file("[ds1] b", 10).await.unwrap();
    assert!(matches!(writer.write(vec![0; 11].into()).await, Err(Error::InvalidRequest { .. })));
    assert!(matches!(writer.finish().await, Err(Error::InvalidRequest { .. })));
    assert!(!shelf.store.files.lock().unwrap().contains_key("[ds1] b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_a_time_out_in_its_phase() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    shelf.add_file("[ds1] a", b"hello");
    let quick = NfcOptions::default().timeouts(Timeouts::all(Duration::from_millis(300)));
    for (step, wanted) in [
        (Step::GetFile, Phase::GetFile),
        (Step::GetData, Phase::GetFile),
        (Step::PutFile, Phase::PutFile),
        (Step::PutDone, Phase::PutFile),
        (Step::FileOperation, Phase::FileOperation),
    ] {
        let mut files = shelf.connect(FilesOptions::new(quick.clone())).await.unwrap();
        shelf.server.inject(step, FaultAction::Stall);
        let end = match wanted {
            Phase::GetFile => fetch(&mut files, "[ds1] a").await.map(drop),
            Phase::PutFile => store(&mut files, "[ds1] b", b"hello").await,
            _ => files.delete("[ds1] a").await,
        };
        assert!(matches!(end, Err(Error::Timeout { phase, .. }) if phase == wanted), "{step:?}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_for_files_cut_anywhere_gives_an_error_or_the_right_bytes() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let content = pattern(0, 4096);
    shelf.add_file("[ds1] a", &content);
    let timeouts = Timeouts::all(Duration::from_secs(5));
    let options = NfcOptions::default().channel(Channel::Clear).timeouts(timeouts);
    let mut whole = 0;
    for reset in [false, true] {
        for at in (0..8000).step_by(61) {
            for cut in [Cut::Sent(at), Cut::Received(at)] {
                shelf.server.configure(|config| (config.cut, config.reset_on_cut) = (Some(cut), reset));
                let work = async {
                    let mut files = shelf.connect(FilesOptions::new(options.clone())).await?;
                    assert!(fetch(&mut files, "[ds1] a").await? == content);
                    store(&mut files, "[ds1] b", &content).await?;
                    files.close().await
                };
                match tokio::time::timeout(Duration::from_secs(4), work).await {
                    Ok(Ok(())) => whole += 1,
                    Ok(Err(Error::Connect { .. } | Error::Disconnected { .. } | Error::Tls { .. })) => {}
                    Ok(Err(other)) => panic!("{cut:?}: {other:?}"),
                    Err(_) => panic!("{cut:?}: no end"),
                }
            }
        }
    }
    assert!(whole > 0, "no cut was behind the end of the session");
}
