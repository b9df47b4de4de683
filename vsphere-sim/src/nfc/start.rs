//! The classic messages that start a session, from the server's side.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vsphere_nfc::wire::classic::{MESSAGE_LEN, Message};

use super::authd::{self, ReadHalf, WriteHalf};
use super::classic;
use super::config::{FaultAction, NfcServerConfig, Step};
use super::server::{Shared, ended, violation};

/// The longest string of message 54 that is taken.
const MAX_STRING: u32 = 4096;
/// The type of classic errors; real values are not known.
const ERROR_KIND: u32 = 1;

/// What the client wants once it has started.
pub(super) enum Started {
    /// The asynchronous layer.
    Asynchronous,
    /// What this message, the first one, asks for.
    Classic(Box<[u8; MESSAGE_LEN]>),
}

/// Answers classic messages until the client asks for the asynchronous layer, or for something that
/// needs none.
pub(super) async fn serve(
    reader: &mut ReadHalf,
    writer: &mut WriteHalf,
    shared: &Arc<Shared>,
    config: &NfcServerConfig,
    expect_client_random: bool,
) -> io::Result<Started> {
    let gates = config.gates();
    let mut started = false;
    let mut versioned = false;
    loop {
        let mut bytes = [0; MESSAGE_LEN];
        reader.read_exact(&mut bytes).await?;
        let message = Message::decode(&bytes);
        if !versioned && classic::is_operation(message.number()) {
            return Ok(Started::Classic(Box::new(bytes)));
        }
        let (step, answer) = match message {
            Message::ClientRandom(_) if expect_client_random && !started => continue,
            // As 6.7 and 6.0 do.
            Message::ClientRandom(_) => return unknown(writer, "message 43 was not expected").await,
            Message::SessionParameters => {
                started = true;
                let version_follows = u32::from(gates.announces_version);
                (Step::SessionStart, Message::SessionReady { version_follows })
            }
            Message::Version(_) if started => match gates.library_version {
                Some(version) if gates.announces_version => {
                    versioned = true;
                    (Step::Version, Message::Version(version))
                }
                _ => return unknown(writer, "message 51 is not known").await,
            },
            Message::ConnectionData { .. } if !gates.connection_data => {
                return unknown(writer, "message 54 is not known").await;
            }
            Message::Features(_) if !gates.features => return unknown(writer, "message 55 is not known").await,
            Message::AioOpen if !gates.asynchronous => return unknown(writer, "message 52 is not known").await,
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
        for number in &config.interjections {
            let mut bytes = Box::new([0; MESSAGE_LEN]);
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            send(writer, &Message::Other(bytes)).await?;
        }
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
            Some(FaultAction::Stall) => authd::stall(reader).await?,
            Some(FaultAction::Bytes(bytes)) => {
                writer.write_all(&bytes).await?;
                writer.flush().await?;
            }
        }
        if step == Step::AioOpen {
            return Ok(Started::Asynchronous);
        }
    }
}

/// Ends the session as a host does that does not know the message.
async fn unknown(writer: &mut WriteHalf, why: &'static str) -> io::Result<Started> {
    send(writer, &Message::SessionComplete).await?;
    Err(ended(why))
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
