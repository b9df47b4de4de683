//! Row 16: opening a disk is refused.

use bytes::Bytes;
use vsphere_nfc::{Error, Mode, NfcDisk, Phase, Retry};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_errors_are_told_apart() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let error = host.open(Mode::ReadWrite, patient()).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { fault: Some(_), .. }), "{error}");
    let error = NfcDisk::open(host.tickets(), "[ds1] none.vmdk", Mode::ReadOnly, patient()).await.unwrap_err();
    let Error::OpenRefused { path, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((&**path, fault.code, fault.text.as_str()), ("[ds1] none.vmdk", Some(99), "File not found"));
    host.server.inject(Step::OpenFile, FaultAction::Error { code: 5, text: "pool".into() });
    let error = host.open(Mode::ReadOnly, patient().retry(Retry::never())).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::OpenFile, .. }), "{error}");
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let error = disk.write_at(0, Bytes::from(vec![0; 512])).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { fault: None, .. }), "{error}");
    drop(disk);
    host.assert_no_connections().await;
}
