//! Rows 14 and 15: session buffers and the NFC memory of a host.

use std::time::Duration;

use vsphere_nfc::{Buffers, Error, Mode, NfcOptions, Phase, Retry, Timeouts};
use vsphere_sim::nfc::{FaultAction, NfcServerConfig, OverLimit, Step};

use super::disk::{MIB, MemoryDisk, pattern};
use super::host::{Host, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_buffers_lead_to_smaller_ones_on_a_new_connection_with_a_new_ticket() {
    let mut config = NfcServerConfig::default();
    config.max_buffer_size = 512 * 1024;
    let host = Host::start(MemoryDisk::filled(MIB, MIB), false, config).await;
    let disk = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(disk.session_info().buffers, Buffers { size: 64 * 1024, count: 4 });
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    assert_eq!(host.server.counters().connections_total(), 2);

    let mut options = patient().retry(Retry::never());
    options.fallback_buffers = None;
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::OpenSession, .. }), "{error}");
    assert!(error.is_retryable() && error.hint().is_some());
    host.server.configure(|config| config.session_refusal_code = 77);
    let mut options = patient();
    options.fallback_buffers = None;
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::SessionRefused { buffer_size: 1_048_576, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_without_nfc_memory_is_waited_for_with_ever_fewer_buffers_and_then_reported() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    let full = || FaultAction::Error { code: 5, text: "Failed to allocate the requested 1048600 bytes".into() };
    let options = patient().retry(Retry { attempts: 3, pause: Duration::from_millis(20), ..Retry::default() });
    for step in [Step::OpenSession, Step::OpenSession, Step::OpenFile] {
        host.server.inject(step, full());
    }
    let started = std::time::Instant::now();
    let disk = host.open(Mode::ReadOnly, options.clone()).await.unwrap();
    // At once, after 20 ms, after 40 ms.
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!(disk.session_info().buffers, Buffers { size: 64 * 1024, count: 1 });
    assert_eq!(host.server.counters().connections_total(), 4);

    // Also a read gives up its buffers for another try.
    host.server.inject(Step::Read, full());
    assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    disk.close().await.unwrap();

    (0..4).for_each(|_| host.server.inject(Step::OpenSession, full()));
    let error = host.open(Mode::ReadOnly, options).await.unwrap_err();
    assert!(matches!(error, Error::OutOfNfcMemory { phase: Phase::OpenSession, .. }), "{error}");
    assert!(error.to_string().contains("1048600"), "{error}");
    host.assert_no_connections().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_the_nfc_memory_of_the_host() {
    let host = Host::reading(MemoryDisk::filled(MIB, MIB)).await;
    host.server.configure(|config| config.memory = Some(9 << 20));
    let counters = host.server.counters();
    let first = host.open(Mode::ReadOnly, patient()).await.unwrap();
    let second = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert_eq!(counters.memory_in_use(), 8 << 20);
    // 4 MiB are not left, but smaller buffers fit.
    let third = host.open(Mode::ReadOnly, patient()).await.unwrap();
    assert!(third.session_info().buffers.budget() <= 1 << 20);
    for disk in [&first, &second, &third] {
        assert!(disk.read_at(0, MIB as usize).await.unwrap() == pattern(0, MIB));
    }
    for disk in [first, second, third] {
        disk.close().await.unwrap();
    }
    host.assert_no_connections().await;
    assert_eq!(counters.memory_in_use(), 0);
    assert_eq!(counters.files_open(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_is_one_too_many_is_refused_in_words_that_say_try_later() {
    let host = Host::reading(MemoryDisk::new(MIB)).await;
    let quick = NfcOptions::default().timeouts(Timeouts::all(Duration::from_millis(500))).retry(Retry::never());
    for via_vcenter in [false, true] {
        host.server.configure(|config| {
            config.max_connections = (!via_vcenter).then_some(2);
            config.max_connections_via_vcenter = via_vcenter.then_some(2);
        });
        let one = host.open(Mode::ReadOnly, patient()).await.unwrap();
        let two = host.open(Mode::ReadOnly, patient()).await.unwrap();
        for answer in [OverLimit::Line, OverLimit::Close, OverLimit::Silence] {
            host.server.configure(|config| config.over_limit = answer);
            let error = host.open(Mode::ReadOnly, quick.clone()).await.unwrap_err();
            let expected = match answer {
                OverLimit::Line => matches!(&error, Error::AuthdRefused { line, .. } if line.starts_with("421")),
                OverLimit::Close => matches!(error, Error::Disconnected { phase: Phase::Authd, .. }),
                _ => matches!(error, Error::Timeout { phase: Phase::Authd, .. }),
            };
            assert!(expected, "{answer:?}: {error}");
            assert!(error.is_retryable(), "{answer:?}");
        }
        // A place that was given up is taken by the next.
        one.close().await.unwrap();
        two.close().await.unwrap();
        host.assert_no_connections().await;
        host.open(Mode::ReadOnly, patient()).await.unwrap().close().await.unwrap();
        host.assert_no_connections().await;
    }
    assert_eq!(host.server.counters().handed_over(), 0);
}
