//! Questions about NFC sessions: which start is taken, which buffers, how fast, in which compression.

use std::error::Error;
use std::time::Instant;

use futures_util::future::try_join_all;
use vsphere_nfc::{Channel, CompressionWish, Ladder, NfcDisk, NfcOptions, Quirks, Retry, Rung};

use crate::report::Report;
use crate::subject::Subject;

pub(crate) const TOPIC: &str = "NFC over port 902";
/// Read for one measurement.
const SAMPLE: u64 = 64 << 20;
/// Read in one call.
const PIECE: u64 = 1 << 20;

/// Asks all of them.
pub(crate) async fn run(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    for (name, channel) in [("nbdssl", Channel::Tls), ("nbd", Channel::Clear)] {
        let opened = subject.open(subject.options().channel(channel)).await;
        let detail = match &opened {
            Ok(disk) => {
                let told = disk.session_info();
                format!("{:?}, library {}, {:?}, {:?}", told.rung, told.server_version, told.buffers, told.tls_version)
            }
            Err(error) => told(error),
        };
        report.holds(TOPIC, format!("{name} with everything as VDDK 8 does"), opened.is_ok(), detail);
        if let Ok(disk) = opened {
            disk.close().await?;
        }
    }
    starts(subject, report).await;
    let Ok(disk) = subject.open(subject.options()).await else { return Ok(()) };
    let whole = sample(&disk, 1).await?;
    report.holds(TOPIC, "several reads in flight give the same bytes", sample(&disk, 8).await? == whole, "");
    disk.close().await?;
    compressions(subject, report, &whole).await;
    buffers(subject, report).await;
    Ok(())
}

/// Which messages of the start a host can do without.
async fn starts(subject: &Subject, report: &mut Report) {
    type Change = fn(&mut Quirks);
    let variants: [(&str, Change); 5] = [
        ("without message 54 (who the client is)", |quirks| quirks.connection_data_since = u32::MAX),
        ("without message 55 (what the client can do)", |quirks| quirks.features_since = u32::MAX),
        ("with 0 in message 55", |quirks| quirks.features = 0),
        ("without SET_SOCK_OPTS", |quirks| quirks.set_sock_opts = false),
        ("without SET_RES_POOL", |quirks| quirks.set_res_pool = None),
    ];
    for (name, change) in variants {
        let mut quirks = Quirks::default();
        change(&mut quirks);
        // Else it would settle for a start that the host does take.
        let only = subject.options().ladder(Ladder::Only(Rung::Full)).retry(Retry::never());
        let opened = subject.open(only.quirks(quirks)).await;
        let detail = close(opened).await;
        report.seen(TOPIC, format!("a start {name}"), detail);
    }
}

async fn compressions(subject: &Subject, report: &mut Report, whole: &[u8]) {
    for wish in [CompressionWish::Zlib, CompressionWish::FastLz, CompressionWish::SkipZ] {
        let compressed = async {
            let disk = subject.open(NfcOptions::default().compression(wish)).await?;
            let begun = Instant::now();
            let bytes = sample(&disk, 4).await?;
            let took = begun.elapsed();
            disk.close().await?;
            Ok::<_, vsphere_nfc::Error>((bytes, took))
        };
        match compressed.await {
            Ok((bytes, took)) => {
                let speed = speed(bytes.len(), took);
                report.holds(TOPIC, format!("{wish:?} gives the same bytes"), bytes == whole, speed);
            }
            Err(error) => report.holds(TOPIC, format!("{wish:?} gives the same bytes"), false, told(&error)),
        }
    }
}

async fn buffers(subject: &Subject, report: &mut Report) {
    for (size, count) in [(64 << 10, 4), (1 << 20, 4), (1 << 20, 8), (2 << 20, 4), (2 << 20, 8), (4 << 20, 4)] {
        let mut options = NfcOptions::default().buffers(size, count).retry(Retry::never());
        options.fallback_buffers = None;
        let measured = async {
            let disk = subject.open(options).await?;
            let mut speeds = Vec::new();
            for depth in [1, 2 * u64::from(count)] {
                let begun = Instant::now();
                let bytes = sample(&disk, depth).await?;
                speeds.push(format!("{} with {depth} reads under way", speed(bytes.len(), begun.elapsed())));
            }
            disk.close().await?;
            Ok::<_, vsphere_nfc::Error>(speeds.join(", "))
        };
        let detail = measured.await.unwrap_or_else(|error| told(&error));
        report.seen(TOPIC, format!("{count} buffers of {size} bytes"), detail);
    }
}

/// Reads the start of the disk, `depth` calls at a time.
async fn sample(disk: &NfcDisk, depth: u64) -> vsphere_nfc::Result<Vec<u8>> {
    let end = SAMPLE.min(disk.capacity()) / PIECE * PIECE;
    let mut bytes = Vec::new();
    let mut offset = 0;
    while offset < end {
        let round = (offset..end.min(offset + depth * PIECE)).step_by(1 << 20);
        for piece in try_join_all(round.map(|at| disk.read_at(at, 1 << 20))).await? {
            offset += piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "shown without digits")]
fn speed(bytes: usize, took: std::time::Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64())
}

/// Closes what was opened, and says what came of both.
async fn close(opened: vsphere_nfc::Result<NfcDisk>) -> String {
    match opened {
        Ok(disk) => match disk.close().await {
            Ok(()) => "taken".to_owned(),
            Err(error) => format!("taken, but closing: {}", told(&error)),
        },
        Err(error) => format!("refused: {}", told(&error)),
    }
}

/// An error with its causes.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
