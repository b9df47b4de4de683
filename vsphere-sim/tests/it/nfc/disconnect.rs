//! Row 20 over real sockets: the connection ends anywhere, behind TLS too. Every byte of the layers
//! above TLS has its turn in `vsphere-nfc`, where the line is in memory.

use std::time::Duration;

use bytes::Bytes;
use vsphere_nfc::{Channel, Error, Ladder, Mode, NfcOptions, Phase, Retry, Rung, Timeouts};
use vsphere_sim::nfc::Cut;

use super::disk::{CHUNK, MIB, MemoryDisk, pattern};
use super::host::Host;

const LEN: u64 = 1024;

/// A whole session: open, allocation, metadata, reads and writes that are in flight together, close.
async fn session(host: &Host, options: NfcOptions) -> Result<(), Error> {
    let disk = host.open(Mode::ReadWrite, options).await?;
    disk.query_allocated(0..MIB, CHUNK).await?;
    disk.metadata("adapterType").await?;
    let (one, two) = tokio::join!(disk.read_at(0, LEN as usize), disk.read_at(8192, LEN as usize));
    assert!(one? == pattern(0, LEN));
    assert!(two? == pattern(8192, LEN));
    let data = |at| Bytes::from(pattern(at, LEN));
    let (one, two) = tokio::join!(disk.write_at(0, data(0)), disk.write_at(8192, data(8192)));
    one.and(two)?;
    disk.close().await
}

fn options(channel: Channel) -> NfcOptions {
    let mut options = NfcOptions::default().channel(channel).timeouts(Timeouts::all(Duration::from_secs(20)));
    options.fallback_buffers = None;
    // What is lost stays lost: no other start, no other try.
    options.ladder = Ladder::Only(Rung::Full);
    options.retry(Retry::never())
}

/// The phase of a session that was lost; a write in doubt was lost in the write.
fn lost_in(error: &Error) -> Option<Phase> {
    match error {
        Error::Disconnected { phase, .. } => Some(*phase),
        // A reset may be here before the connection is used.
        Error::Connect { .. } => Some(Phase::Connect),
        // The handshake library may be the first to notice.
        Error::Tls { phase, .. } => Some(*phase),
        Error::WriteInDoubt { source, .. } => lost_in(source),
        _ => None,
    }
}

fn rank(phase: Phase) -> usize {
    let order = [
        Phase::Connect,
        Phase::Banner,
        Phase::AuthdTls,
        Phase::Authd,
        Phase::ServiceTls,
        Phase::SessionStart,
        Phase::OpenSession,
        Phase::OpenFile,
        Phase::QueryAllocated,
        Phase::Metadata,
        Phase::Read,
        Phase::Write,
        Phase::Close,
    ];
    order.iter().position(|known| *known == phase).unwrap()
}

/// Cuts sessions at every `step`th byte until one comes through, and returns how many were lost.
async fn cut_everywhere(channel: Channel, step: usize) -> u32 {
    let host = Host::writing(MemoryDisk::filled(MIB, MIB)).await;
    let mut lost = 0;
    for reset in [false, true] {
        for cut in [Cut::Sent as fn(u64) -> Cut, Cut::Received] {
            let mut latest = 0;
            for at in (0..).step_by(step) {
                host.server.configure(|config| {
                    config.cut = Some(cut(at));
                    config.reset_on_cut = reset;
                });
                let what = format!("{channel:?} {:?} reset {reset}", cut(at));
                let end = tokio::time::timeout(Duration::from_secs(10), session(&host, options(channel))).await;
                let Err(error) = end.unwrap_or_else(|_| panic!("{what}: no end")) else { break };
                let Some(phase) = lost_in(&error) else { panic!("{what}: {error:?}") };
                // Cut later, lost later. A reset may take with it what was sent before.
                assert!(reset || rank(phase) + 1 >= latest, "{what}: {error:?} after rank {latest}");
                latest = latest.max(rank(phase));
                lost += 1;
            }
            assert!(latest >= rank(Phase::Write), "{channel:?}: the session was never cut in its last phases");
        }
    }
    host.server.configure(|config| config.cut = None);
    session(&host, options(channel)).await.unwrap();
    host.assert_no_connections().await;
    assert_eq!(host.server.counters().files_open(), 0);
    assert!(host.backend.tickets.lock().unwrap().len() as u32 <= lost, "tickets were made that nobody used");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cut_anywhere_gives_an_error_or_the_right_bytes_and_never_hangs() {
    for channel in [Channel::Clear, Channel::Tls] {
        // A prime, so that no field's size divides it.
        assert!(cut_everywhere(channel, 97).await > 100);
    }
}

/// Takes minutes: `cargo test -p vsphere-sim --test it -- --ignored every_byte_of_the_line`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn every_byte_of_the_line_is_cut_at() {
    for channel in [Channel::Clear, Channel::Tls] {
        println!("{channel:?}: {} sessions were cut", cut_everywhere(channel, 1).await);
    }
}
