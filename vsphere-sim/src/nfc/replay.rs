//! Plays a recorded conversation to a client that says the same again.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vsphere_nfc::trace::{Event, Messages, Side, Trace};

use super::authd::{ReadHalf, WriteHalf};
use super::server::violation;

/// Bytes of zeros that are sent at once.
const PIECE: usize = 64 << 10;

/// Answers as the trace says, as long as the client says what the trace says: message by message, scrubbed alike.
pub(super) async fn serve(mut reader: ReadHalf, mut writer: WriteHalf, trace: &Trace) -> io::Result<()> {
    let mut heard = Messages::of(Side::Client);
    let mut waiting: std::collections::VecDeque<Event> = Default::default();
    let mut buffer = vec![0; PIECE];
    for (at, event) in trace.events.iter().enumerate() {
        match event.from {
            Side::Server => {
                writer.write_all(&event.bytes).await?;
                let mut left = event.zeros;
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                    writer.write_all(&[0; PIECE][..part]).await?;
                    left -= part as u64;
                }
                writer.flush().await?;
            }
            Side::Client => {
                while waiting.is_empty() {
                    let read = reader.read(&mut buffer).await?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    waiting.extend(heard.feed(&buffer[..read]).map_err(violation)?);
                }
                if waiting.pop_front().as_ref() != Some(event) {
                    return Err(violation(format!("message {} differs from the trace's", at + 1)));
                }
            }
        }
    }
    let _ = writer.shutdown().await;
    Ok(())
}
