//! What an open disk takes of memory while it is read as fast as it goes.

use std::error::Error;
use std::process::Command;

use bytes::BytesMut;
use futures_util::future::try_join_all;

use super::client::{self, Way};
use super::peer::Peer;
use super::{BUFFER, BUFFERS, Channel};
use crate::{process, verdict};

/// Open at once; VMware's limit for a host is 50.
const DISKS: u64 = 32;
/// Read of each.
const BYTES: u64 = 64 << 20;

/// Prints what each further disk takes.
pub(super) fn per_disk() -> Result<(), Box<dyn Error>> {
    for channel in [Channel::Tls, Channel::Clear] {
        let peak = |disks: u64| -> Result<u64, Box<dyn Error>> {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["nfc", "--hold", channel.name(), &disks.to_string()]);
            let (printed, _) = process::run(&mut command)?;
            let line = printed.lines().find_map(|line| line.strip_prefix("peak: "));
            Ok(line.ok_or("no peak was printed")?.parse()?)
        };
        let each = peak(1 + DISKS)?.saturating_sub(peak(1)?) / DISKS;
        let allowed = BUFFER * BUFFERS + (8 << 20);
        println!(
            "figure: nfc {} memory of an open disk under full load {:.1} MiB of {:.0} (buffers and 8 MiB: {})",
            channel.name(),
            mebibytes(each),
            mebibytes(allowed),
            verdict(each <= allowed)
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Opens disks, reads them all at once, closes them; prints the peak. Runs in a process of its own.
pub(super) fn hold(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let channel = match arguments.next().as_deref() {
        Some("nbd") => Channel::Clear,
        _ => Channel::Tls,
    };
    let disks: u64 = arguments.next().ok_or("--hold wants a number of disks")?.parse()?;
    let peer = Peer::start(std::time::Duration::ZERO)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..disks {
            open.push(client::open(&peer, channel, Way::Read, None).await.map_err(|error| error.to_string())?);
        }
        let len = usize::try_from(BUFFER)?;
        // Callers hold no buffer of their own longer than the bytes are on their way: that is the disk's memory.
        let reading = open.iter().flat_map(|disk| {
            (0..BUFFERS).map(move |lane| async move {
                let mut offset = lane * BUFFER;
                while offset < BYTES {
                    drop(disk.read_into(offset, len, BytesMut::new()).await?);
                    offset += BUFFERS * BUFFER;
                }
                Ok::<_, vsphere_nfc::Error>(())
            })
        });
        try_join_all(reading).await?;
        for disk in open {
            disk.close().await?;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("peak: {}", process::high_water().ok_or("the kernel does not tell the peak")?);
    Ok(())
}
