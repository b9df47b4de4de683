//! Row 21: servers that are slow or silent.

use std::time::Duration;

use vsphere_nfc::{Error, Mode, Phase};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_is_a_time_out_and_the_connection_is_dropped() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let mut options = patient();
    options.timeouts.read = Duration::from_millis(200);
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    host.server.inject(Step::Read, FaultAction::Stall);
    let error = disk.read_at(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::Read, .. }), "{error}");
    host.assert_no_connections().await;
}
