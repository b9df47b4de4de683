//! The same bytes over every transport.

use std::error::Error;

use vixdisklib::{Access, Connection, TransportMode};

use crate::nfc::told;
use crate::report::{Report, Verdict};
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "Transports";
/// Looked at, spread over the disk.
const PIECES: u64 = 32;
const PIECE: usize = 256 << 10;

/// Reads a sample with each and compares.
pub(crate) async fn run(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let Some(path) = subject.readable(TOPIC, report) else { return Ok(()) };
    let mut first: Option<(TransportMode, Vec<u8>)> = None;
    for mode in [TransportMode::NbdSsl, TransportMode::Nbd, TransportMode::Https] {
        let read = async {
            let connection =
                Connection::connect(&subject.vim, &subject.vm.moref, Access::ReadOnly, mode.name()).await?;
            let disk = connection.open(path).await?;
            let mut bytes = Vec::new();
            for piece in 0..PIECES {
                let at = disk.capacity() / PIECES * piece / (64 << 10) * (64 << 10);
                let len = PIECE.min(usize::try_from(disk.capacity() - at).unwrap_or(PIECE));
                bytes.extend_from_slice(&disk.read_at(at, len).await?);
            }
            disk.close().await?;
            Ok::<_, vixdisklib::Error>(bytes)
        };
        match (read.await, &first) {
            (Err(error), _) => report.add(TOPIC, format!("{mode}"), Verdict::Seen, told(&error)),
            (Ok(bytes), None) => {
                report.add(TOPIC, format!("{mode}"), Verdict::Holds, format!("{} bytes read", bytes.len()));
                first = Some((mode, bytes));
            }
            (Ok(bytes), Some((other, expected))) => {
                report.holds(TOPIC, format!("{mode} reads the same as {other}"), bytes == *expected, "");
            }
        }
    }
    Ok(())
}
