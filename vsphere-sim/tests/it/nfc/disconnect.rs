//! Row 20: the connection ends anywhere.

use std::time::Duration;

use vsphere_nfc::{Error, Ladder, Mode, NfcOptions, Rung, Timeouts};
use vsphere_sim::nfc::Cut;

use super::disk::{MemoryDisk, pattern};
use super::host::Host;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cut_anywhere_gives_an_error_or_the_right_bytes_and_never_hangs() {
    let host = Host::reading(MemoryDisk::filled(256 * 1024, 256 * 1024)).await;
    let mut options = NfcOptions::default().buffers(64 * 1024, 4).timeouts(Timeouts::all(Duration::from_secs(5)));
    options.fallback_buffers = None;
    options.reconnect = false;
    options.ladder = Ladder::Only(Rung::Full);
    let mut whole = 0;
    for reset in [false, true] {
        for at in (0..6000).step_by(97).chain((6000..280_000).step_by(9973)) {
            for cut in [Cut::Sent(at), Cut::Received(at)] {
                host.server.configure(|config| {
                    config.cut = Some(cut);
                    config.reset_on_cut = reset;
                });
                let work = async {
                    let disk = host.open(Mode::ReadOnly, options.clone()).await?;
                    let bytes = disk.read_at(0, 256 * 1024).await?;
                    assert!(bytes == pattern(0, 256 * 1024));
                    disk.close().await
                };
                match tokio::time::timeout(Duration::from_secs(4), work).await {
                    Ok(Ok(())) => whole += 1,
                    Ok(Err(Error::Connect { .. } | Error::Disconnected { .. } | Error::Tls { .. })) => {}
                    Ok(Err(other)) => panic!("{cut:?}: {other:?}"),
                    Err(_) => panic!("{cut:?}: no end"),
                }
            }
        }
    }
    assert!(whole > 0, "no cut was behind the end of the session");
    host.assert_no_connections().await;
}
