//! What is done for a request.

use bytes::Bytes;

use super::{
    device::DeviceError,
    volume::Volume,
    wire::{
        Errno,
        reply::Outcome,
        request::{Command, Refusal},
    },
};

/// Carries out a command; `data` is what came with a write.
pub(super) async fn carry_out(volume: &Volume, command: Command, data: Bytes) -> Outcome {
    attempt(volume, command, data).await.unwrap_or_else(|refusal| {
        tracing::debug!(?refusal, "a request failed");
        Outcome::Failed(refusal)
    })
}

async fn attempt(volume: &Volume, command: Command, data: Bytes) -> Result<Outcome, Refusal> {
    match command {
        Command::Read { range, whole } => Ok(Outcome::Data { pieces: volume.read(range).await?, whole }),
        Command::Write { range, fua } => done(volume.write(range.start, data).await, fua, volume).await,
        Command::Flush => done(volume.flush().await, false, volume).await,
        Command::Trim { range, fua } => done(volume.discard(range).await, fua, volume).await,
        Command::WriteZeroes { fast: true, hole, .. } if !(hole && volume.zeroes_fast()) => {
            Err(Refusal::new(Errno::NotSupported, "zeros would be written as bytes"))
        }
        Command::WriteZeroes { range, fua, hole, .. } => done(volume.zero(range, hole).await, fua, volume).await,
        // What is worth knowing early is where data is.
        Command::Cache { range } => {
            volume.status(range, MAX_EXTENTS).await;
            Ok(Outcome::Done)
        }
        Command::BlockStatus { range, one } => {
            Ok(Outcome::Status(volume.status(range, if one { 1 } else { MAX_EXTENTS }).await))
        }
    }
}

async fn done(result: Result<(), DeviceError>, fua: bool, volume: &Volume) -> Result<Outcome, Refusal> {
    result?;
    if fua {
        volume.flush().await?;
    }
    Ok(Outcome::Done)
}

/// The bytes of memory that a command takes until its reply is written.
pub(super) fn memory(command: &Command) -> u32 {
    let bytes = match command {
        Command::Read { range, .. } | Command::Write { range, .. } => range.end - range.start,
        Command::BlockStatus { .. } | Command::Cache { .. } => MAX_EXTENTS as u64 * 8,
        Command::WriteZeroes { .. } | Command::Flush | Command::Trim { .. } => 0,
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Extents told at once: 64 KiB on the wire, which any connection may have in flight.
const MAX_EXTENTS: usize = 8192;
