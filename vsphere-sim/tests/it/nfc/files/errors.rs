//! Row 26: errors of the classic layer, at any time and with any text.

use bytes::Bytes;
use vsphere_nfc::wire::classic_file::FileMessage;
use vsphere_nfc::{DiskSpec, Error, FilesOptions, Phase};
use vsphere_sim::nfc::{FaultAction, NfcServerConfig, Step};

use super::super::disk::{MIB, MemoryDisk, pattern};
use super::super::host::patient;
use super::store::Shelf;

const PATH: &str = "[ds1] web/web.vmdk";

fn broken(text: &str) -> FaultAction {
    FaultAction::Error { code: 42, text: text.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_within_a_fetched_disk_ends_it_with_the_servers_words() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    shelf.store.add_disk(PATH, MemoryDisk::filled(4 * MIB, 4 * MIB), &[]);
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    shelf.server.inject_after(Step::GetData, 3, broken("medium error"));
    let mut reader = files.get_disk(PATH).await.unwrap();
    let mut data = 0;
    let error = loop {
        match reader.next().await {
            Ok(Some(_)) => data += 1,
            Ok(None) => panic!("the disk is whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(data, 3);
    let Error::Server { phase: Phase::GetFile, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((fault.code, fault.text.as_str()), (Some(42), "medium error"));
    let error = files.get_disk(PATH).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_within_or_after_an_upload_is_heard() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    for (step, skip) in [(Step::PutFile, 0), (Step::PutData, 0), (Step::PutData, 5), (Step::PutDone, 0)] {
        let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
        shelf.server.inject_after(step, skip, broken("no space left"));
        let work = async {
            let mut upload = files.put_disk(PATH, &DiskSpec::new(8 * MIB)).await?;
            for part in pattern(0, 8 * MIB).chunks(MIB as usize) {
                upload.data(Bytes::copy_from_slice(part)).await?;
            }
            upload.finish().await
        };
        let error = work.await.unwrap_err();
        assert_eq!(error.fault().map(|fault| fault.text.as_str()), Some("no space left"), "{step:?}: {error:?}");
        assert!(files.delete(PATH).await.is_err());
    }
    // The store itself refuses.
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    let error = files.get_disk("[ds1] none.vmdk").await.unwrap_err();
    assert!(error.to_string().contains("File not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_any_length_and_form_is_bounded() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let long = vec![b'x'; 1 << 20];
    for (text_len, text, wanted) in [
        (0, &b""[..], 0),
        (1, b"\0", 0),
        (3, b"abc", 3),
        (6, b"ab\0cd\0", 2),
        (4, b"\xff\xfe\r\0", 3),
        (1 << 20, &long, 4096),
        (u32::MAX, &long, 4096),
        // What is told does not come.
        (100, b"abc", 3),
    ] {
        let message = FileMessage::Error { kind: 1, code: 42, text_len };
        let bytes = [&message.encode(), text].concat();
        for step in [Step::GetFile, Step::FileOperation] {
            let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
            shelf.server.inject(step, FaultAction::Bytes(bytes.clone()));
            let error = match step {
                Step::GetFile => files.get_file("[ds1] a").await.map(drop).unwrap_err(),
                _ => files.delete("[ds1] a").await.unwrap_err(),
            };
            let fault = error.fault().unwrap();
            assert_eq!((fault.code, fault.text.chars().count()), (Some(42), wanted), "{text_len}");
            assert!(!fault.text.contains(char::is_control));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_that_is_not_zero_is_an_error() {
    let shelf = Shelf::start(NfcServerConfig::default()).await;
    let mut files = shelf.connect(FilesOptions::new(patient())).await.unwrap();
    shelf.server.inject(Step::FileOperation, FaultAction::Bytes(FileMessage::Status { error: 12 }.encode().to_vec()));
    let error = files.delete("[ds1] a").await.unwrap_err();
    assert!(matches!(error, Error::Server { phase: Phase::FileOperation, .. }), "{error}");
    assert!(files.close().await.is_err());
}
