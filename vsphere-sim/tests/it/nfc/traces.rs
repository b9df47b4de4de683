//! Traces: what a recorder keeps, and that it can be played to a client again. On one thread: a trace is one order of what
//! may overtake each other, and the player knows no other.

use std::sync::Arc;

use vsphere_nfc::trace::{Recorder, Trace};
use vsphere_nfc::{CompressionWish, Error, Mode, NfcDisk, NfcOptions};
use vsphere_sim::nfc::NfcServerConfig;

use super::disk::{MIB, MemoryDisk};
use super::host::{Host, PATH, patient};

/// What is done while the recorder listens, and again when its trace is played. Reads one after the other: their order
/// on the line is then the same.
async fn session(host: &Host, path: &str, options: NfcOptions) -> Result<(u64, Vec<u8>), Error> {
    let disk = NfcDisk::open(host.tickets(), path, Mode::ReadWrite, options).await?;
    assert!(disk.metadata("comment").await?.is_some());
    let bytes = disk.read_at(MIB, 128 * 1024).await?;
    disk.write_at(2 * MIB, vec![7; 64 * 1024].into()).await?;
    let capacity = disk.capacity();
    disk.close().await?;
    Ok((capacity, bytes.to_vec()))
}

fn one_buffer() -> NfcOptions {
    patient().buffers(64 * 1024, 2)
}

async fn recorded(options: NfcOptions) -> Trace {
    let host = Host::writing(MemoryDisk::filled(8 * MIB, 4 * MIB)).await;
    let recorder = Recorder::new();
    session(&host, PATH, options.trace(&recorder)).await.unwrap();
    recorder.traces().pop().unwrap()
}

async fn replaying(trace: Trace) -> Host {
    let mut config = NfcServerConfig::default();
    config.replay = Some(Arc::new(trace));
    Host::start(MemoryDisk::new(MIB), true, config).await
}

#[tokio::test]
async fn recorded_session_holds_no_data_and_no_name_and_can_be_played_again() {
    let trace = recorded(one_buffer()).await;
    assert!(!trace.cut_short);
    let text = trace.to_string();
    assert!(text.len() < 20_000, "data is counted, not written: {} bytes", text.len());
    let has = |needle: &str| {
        trace.events.iter().any(|event| event.bytes.windows(needle.len()).any(|at| at == needle.as_bytes()))
    };
    assert!(has("[xx1] xxx/xxx.vmdk") && !has("web") && !has("ds1"));

    let host = replaying(text.parse().unwrap()).await;
    // Another path of the same form and length: the trace has none of its own.
    let (capacity, bytes) = session(&host, "[ab1] cde/fgh.vmdk", one_buffer()).await.unwrap();
    assert_eq!((capacity, bytes), (8 * MIB, vec![0; 128 * 1024]));
}

#[tokio::test]
async fn compressed_data_is_recorded_as_raw_zeros() {
    let trace = recorded(one_buffer().compression(CompressionWish::Zlib)).await;
    assert!(!trace.cut_short);
    let zeros: u64 = trace.events.iter().map(|event| event.zeros).sum();
    assert_eq!(zeros, 128 * 1024 + 64 * 1024);
}

#[tokio::test]
async fn client_that_says_something_else_than_the_trace_is_cut_off() {
    let host = replaying(recorded(one_buffer()).await).await;
    let error = session(&host, "[ab1] longer/path.vmdk", one_buffer()).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
}
