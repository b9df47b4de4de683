//! Rows 26 and 27: errors that the server reports.

use vsphere_nfc::{Error, Mode, Phase};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_of_one_read_fails_the_others_and_the_next_read_connects_again() {
    let host = Host::reading(MemoryDisk::filled(4 * MIB, 4 * MIB)).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    host.server.inject(Step::Read, FaultAction::Error { code: 42, text: "medium error".into() });
    let error = disk.read_at(0, 512).await.unwrap_err();
    let Error::Server { phase: Phase::Read, fault, .. } = &error else { panic!("{error}") };
    assert_eq!((fault.code, fault.text.as_str()), (Some(42), "medium error"));
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().connections_total(), 2);

    host.server.disconnect_all();
    host.assert_no_connections().await;
    assert!(disk.read_at(MIB, MIB as usize).await.unwrap() == pattern(MIB, MIB));
    assert_eq!(host.server.counters().connections_total(), 3);

    let mut options = patient();
    options.reconnect = false;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.disconnect_all();
    let mut errors = 0;
    for _ in 0..2 {
        errors += u32::from(matches!(disk.read_at(0, 512).await, Err(Error::Disconnected { .. })));
    }
    assert_eq!(errors, 2);
}
