//! Rows 9 and 24: the classic messages that start a session.

use std::time::Duration;

use vsphere_nfc::{Error, Ladder, Mode, NfcOptions, Phase, Retry, Rung, ThumbprintSha2, Timeouts};
use vsphere_sim::nfc::{FaultAction, HostVersion, NfcServerConfig, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn esxi_7_without_thumbprint_sha2_works_without_message_43() {
    let mut config = NfcServerConfig::default();
    config.version = HostVersion::Esxi70;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.session_info().server_version, 7);
    assert!(disk.read_at(0, 512).await.unwrap() == pattern(0, 512));
    disk.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn optional_steps_can_be_left_out() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let mut options = patient();
    options.quirks.thumbprint_sha2 = ThumbprintSha2::Never;
    options.quirks.ask_banner = true;
    options.quirks.connection_data_since = u32::MAX;
    options.quirks.features_since = u32::MAX;
    options.quirks.set_sock_opts = false;
    options.quirks.set_res_pool = None;
    options.quirks.await_session_complete = true;
    let disk = host.open(Mode::ReadOnly, options).await.unwrap();
    assert!(disk.read_at(512, 512).await.unwrap() == pattern(512, 512));
    disk.close().await.unwrap();
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_the_start_that_is_refused_closed_or_silent_names_its_phase() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let quick = NfcOptions::default().timeouts(Timeouts::all(Duration::from_millis(300)));
    let quick = quick.ladder(Ladder::Only(Rung::Full)).retry(Retry::never());
    for (step, phase) in [
        (Step::Banner, Phase::Banner),
        (Step::ThumbprintSha2, Phase::Authd),
        (Step::Proxy, Phase::Authd),
        (Step::SessionStart, Phase::SessionStart),
        (Step::Version, Phase::SessionStart),
        (Step::AioOpen, Phase::SessionStart),
        (Step::OpenSession, Phase::OpenSession),
        (Step::OpenFile, Phase::OpenFile),
    ] {
        let mut options = quick.clone();
        options.fallback_buffers = None;
        host.server.inject(step, FaultAction::Close);
        match host.open(Mode::ReadOnly, options.clone()).await.unwrap_err() {
            Error::Disconnected { phase: at, .. } => assert_eq!(at, phase, "{step:?}"),
            other => panic!("{step:?}: {other}"),
        }
        host.server.inject(step, FaultAction::Stall);
        match host.open(Mode::ReadOnly, options.clone()).await.unwrap_err() {
            Error::Timeout { phase: at, .. } => assert_eq!(at, phase, "{step:?}"),
            other => panic!("{step:?}: {other}"),
        }
        host.server.inject(step, FaultAction::Error { code: 421, text: "busy".into() });
        let error = host.open(Mode::ReadOnly, options.clone()).await;
        match (step, error) {
            // Not every host knows it: the session goes on without.
            (Step::ThumbprintSha2, Ok(disk)) => disk.close().await.unwrap(),
            (_, Err(error)) => assert!(error.to_string().contains("busy"), "{step:?}: {error}"),
            (_, Ok(_)) => panic!("{step:?} was not refused"),
        }
        host.server.inject(step, FaultAction::Bytes(vec![0xFF; 300]));
        assert!(host.open(Mode::ReadOnly, options).await.is_err(), "{step:?}");
    }
    host.server.inject(Step::SessionStart, FaultAction::Complete);
    let error = host.open(Mode::ReadOnly, quick).await.unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    host.assert_no_connections().await;
}
