//! Rows 14 and 15: session buffers and the NFC memory of a host.

use vsphere_nfc::{Buffers, Error, Mode, Phase};
use vsphere_sim::nfc::NfcServerConfig;

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

    let mut options = patient();
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
