//! Row 28: closing.

use std::time::Duration;

use vsphere_nfc::{Error, Mode, Phase};
use vsphere_sim::nfc::{FaultAction, Step};

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_returns_within_its_time_with_the_first_error() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let mut options = patient();
    options.timeouts.close = Duration::from_millis(200);
    for step in [Step::CloseFile, Step::CloseSession] {
        let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
        host.server.inject(step, FaultAction::Stall);
        assert!(matches!(disk.close().await, Err(Error::Timeout { phase: Phase::Close, .. })), "{step:?}");
        let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
        host.server.inject(step, FaultAction::Error { code: 7, text: "not now".into() });
        let error = disk.close().await.unwrap_err();
        assert!(error.to_string().contains("not now"), "{step:?}: {error}");
    }
    host.server.configure(|config| config.answer_session_complete = false);
    host.open(Mode::ReadOnly, options).await.unwrap().close().await.unwrap();
    host.assert_no_connections().await;
}
