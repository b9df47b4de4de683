//! Whole disks put into a datastore.

use std::{sync::Arc, time::Duration};

use vixdisklib::{
    Access, Connection, Disk, Error,
    https::{HttpsError, HttpsOptions, UploadOptions, upload_disk},
};
use vmdk::{CreateKind, CreateSpec};
use vsphere_sim::{FileOptions, Injection, Power};
use vsphere_vim::datastore::Datastore;

use super::{MIB, Site, https_error};
use crate::lab::Random;

const PATH: &str = "[ds1] restored/restored.vmdk";

/// A sparse disk of this machine with data at both ends, and its bytes.
async fn source(folder: &tempfile::TempDir) -> (Disk, Vec<u8>) {
    let path = folder.path().join("source.vmdk");
    let spec = CreateSpec::new(9 * MIB + 512, CreateKind::MonolithicSparse).adapter_type(vmdk::AdapterType::BusLogic);
    let image = vmdk::create(&path, &spec).unwrap();
    let mut content = vec![0; 9 * MIB as usize + 512];
    for (at, len) in [(100, 3_000_000), (9 * MIB as usize, 512)] {
        content[at..at + len].copy_from_slice(&Random::new(at as u64).bytes(len));
        image.write_at(at as u64, &content[at..at + len]).unwrap();
    }
    image.close().unwrap();
    let disk = Connection::local(Access::ReadOnly).open(path.to_str().unwrap()).await.unwrap();
    (disk, content)
}

async fn nothing_is_there(store: &Datastore) {
    for file in ["restored/restored.vmdk", "restored/restored-flat.vmdk"] {
        for _ in 0..1000 {
            if store.stat(&store.path(file).unwrap()).await.unwrap().is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(store.stat(&store.path(file).unwrap()).await.unwrap(), None, "{file}");
    }
}

#[tokio::test]
async fn a_disk_that_was_put_there_is_the_source() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let (source, content) = source(&folder).await;
    let store = site.vim.find_datastore("ds1", None).await.unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let progress = Arc::clone(&told);
    let options = UploadOptions::new().progress(Arc::new(move |percent| progress.lock().unwrap().push(percent)));
    let put = upload_disk(&store, &PATH.parse().unwrap(), &source, &options).await.unwrap();
    assert_eq!((put.bytes, put.flat.to_string().as_str()), (content.len() as u64, "[ds1] restored/restored-flat.vmdk"));
    let told = told.lock().unwrap().clone();
    assert!(told.is_sorted() && told.last() == Some(&100), "{told:?}");
    let disk = site.connect(HttpsOptions::new()).await.open(PATH).await.unwrap();
    assert!(disk.read_at(0, content.len()).await.unwrap() == content);
    assert_eq!(disk.info().await.unwrap().adapter_type.as_deref(), Some("buslogic"));
    // Nothing is replaced.
    let again = https_error(upload_disk(&store, &PATH.parse().unwrap(), &source, &options).await.unwrap_err());
    assert!(matches!(again, HttpsError::Exists { .. }), "{again}");
    assert!(disk.read_at(0, content.len()).await.unwrap() == content);
    site.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_head_is_asked_otherwise() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let (source, content) = source(&folder).await;
    let store = site.vim.find_datastore("ds1", None).await.unwrap();
    // Twice before, and after each of the files.
    for _ in 0..4 {
        site.sim.faults().inject("HEAD /folder", Injection::Http(405));
    }
    upload_disk(&store, &PATH.parse().unwrap(), &source, &UploadOptions::new()).await.unwrap();
    let disk = site.connect(HttpsOptions::new()).await.open(PATH).await.unwrap();
    assert!(disk.read_at(0, content.len()).await.unwrap() == content);
    site.close().await;
}

#[tokio::test]
async fn what_fails_or_is_given_up_leaves_nothing() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let (source, _) = source(&folder).await;
    let store = site.vim.find_datastore("ds1", None).await.unwrap();
    let path = PATH.parse().unwrap();
    let options = UploadOptions::new();
    // The server answers an error, after the flat file and after the descriptor.
    site.sim.faults().inject("PUT /folder", Injection::Http(507));
    assert!(matches!(upload_disk(&store, &path, &source, &options).await, Err(Error::Https { .. })));
    nothing_is_there(&store).await;
    site.sim.faults().inject("PUT /folder", Injection::DropAfter);
    assert!(upload_disk(&store, &path, &source, &options).await.is_err());
    nothing_is_there(&store).await;
    // The caller goes away in the middle.
    site.sim.faults().inject("PUT /folder", Injection::Delay(Duration::from_millis(300)));
    let given_up = tokio::time::timeout(Duration::from_millis(100), upload_disk(&store, &path, &source, &options));
    assert!(given_up.await.is_err());
    tokio::time::sleep(Duration::from_millis(400)).await;
    nothing_is_there(&store).await;
    for wrong in ["[ds1] restored/restored", "[ds1] a-flat.vmdk"] {
        let refused = upload_disk(&store, &wrong.parse().unwrap(), &source, &options).await;
        assert!(matches!(refused, Err(Error::WrongPath { .. })), "{wrong}");
    }
    site.close().await;
}
