//! The classic messages that start a session, from the server's side.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vsphere_nfc::wire::classic::{MESSAGE_LEN, Message};

use super::authd::{self, ReadHalf, WriteHalf};
use super::config::{FaultAction, NfcServerConfig, Step};
use super::server::{Shared, ended, violation};

/// The longest string of message 54 that is taken.
const MAX_STRING: u32 = 4096;
/// The type of classic errors; real values are not known.
const ERROR_KIND: u32 = 1;

/// Answers classic messages until the client asks for the asynchronous layer.
pub(super) async fn serve(
    reader: &mut ReadHalf,
    writer: &mut WriteHalf,
    shared: &Arc<Shared>,
    config: &NfcServerConfig,
    expect_client_random: bool,
) -> io::Result<()> {
    let mut started = false;
    let mut versioned = false;
    loop {
        let mut bytes = [0; MESSAGE_LEN];
        reader.read_exact(&mut bytes).await?;
        let (step, answer) = match Message::decode(&bytes) {
            Message::ClientRandom(_) if expect_client_random && !started => continue,
            Message::ClientRandom(_) => {
                // As 6.7 and 6.0 do.
                send(writer, &Message::SessionComplete).await?;
                return Err(ended("message 43 was not expected"));
            }
            Message::SessionParameters => {
                started = true;
                (Step::SessionStart, Message::SessionReady { version_follows: 1 })
            }
            Message::Version(_) if started => {
                versioned = true;
                (Step::Version, Message::Version(config.version.library_version()))
            }
            Message::ConnectionData { name_len, operation_id_len } if versioned => {
                if name_len > MAX_STRING || operation_id_len > MAX_STRING {
                    return Err(violation("the strings of message 54 are too long"));
                }
                let mut strings = Vec::new();
                let len = u64::from(name_len) + u64::from(operation_id_len);
                if (&mut *reader).take(len).read_to_end(&mut strings).await? as u64 != len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                tracing::debug!(client = %String::from_utf8_lossy(&strings), "NFC connection data");
                continue;
            }
            Message::Features(_) if versioned => continue,
            Message::AioOpen if versioned => (Step::AioOpen, Message::AioOpen),
            Message::SessionComplete => {
                send(writer, &Message::SessionComplete).await?;
                return Err(ended("the client left before the asynchronous layer"));
            }
            other => {
                fail(writer, 1, "unexpected message").await?;
                return Err(violation(format!("an unexpected classic message {}", other.number())));
            }
        };
        match shared.injected.take(step) {
            None => send(writer, &answer).await?,
            Some(FaultAction::Error { code, text }) => {
                fail(writer, code, &text).await?;
                return Err(ended("ended by an injected error"));
            }
            Some(FaultAction::Complete) => {
                send(writer, &Message::SessionComplete).await?;
                return Err(ended("ended by an injected fault"));
            }
            Some(FaultAction::Close) => return Err(ended("closed by an injected fault")),
            Some(FaultAction::Stall) => return authd::stall(reader).await,
            Some(FaultAction::Bytes(bytes)) => {
                writer.write_all(&bytes).await?;
                writer.flush().await?;
            }
        }
        if step == Step::AioOpen {
            return Ok(());
        }
    }
}

/// Sends a classic message.
pub(super) async fn send(writer: &mut WriteHalf, message: &Message) -> io::Result<()> {
    writer.write_all(&message.encode().map_err(violation)?).await?;
    writer.flush().await
}

async fn fail(writer: &mut WriteHalf, code: u32, text: &str) -> io::Result<()> {
    let text = [text.as_bytes(), b"\0"].concat();
    let text_len = u32::try_from(text.len()).map_err(violation)?;
    let message = Message::Error { kind: ERROR_KIND, code, text_len };
    writer.write_all(&message.encode().map_err(violation)?).await?;
    writer.write_all(&text).await?;
    writer.flush().await
}
