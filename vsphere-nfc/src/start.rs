//! The classic messages between the daemon's hand-over and the asynchronous layer.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dial::Dialled;
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Rung};
use crate::options::NfcOptions;
use crate::wire::classic::{MESSAGE_LEN, Message, number};
use crate::wire::fault::{self, Fault};

/// Starts the session and returns the server's version.
pub(crate) async fn start(
    blame: &Blame,
    stream: &mut Dialled,
    options: &NfcOptions,
    rung: Rung,
    found: &mut Found,
) -> Result<u32> {
    let quirks = &options.quirks;
    let mut noise = quirks.max_noise;
    let mut batch = Vec::new();
    if stream.send_client_random {
        found.client_random = true;
        let word = quirks.client_random.clone().into_bytes();
        push(blame, &mut batch, &Message::ClientRandom(word))?;
    }
    push(blame, &mut batch, &Message::SessionParameters)?;
    send(blame, stream, &batch).await?;
    match receive(blame, stream, &mut noise).await? {
        Message::SessionReady { version_follows: 0 } if quirks.require_version_flag => {
            return Err(refused(blame, "the server announces no version, so it is too old"));
        }
        Message::SessionReady { version_follows } => {
            tracing::debug!(endpoint = %blame.endpoint, version_follows, "NFC session ready");
        }
        Message::SessionComplete => {
            return Err(refused(blame, "the server ended the session at once"));
        }
        other => return Err(unexpected(blame, &other)),
    }

    batch.clear();
    push(blame, &mut batch, &Message::Version(quirks.version))?;
    send(blame, stream, &batch).await?;
    let version = match receive(blame, stream, &mut noise).await? {
        Message::Version(version) => version,
        Message::SessionComplete => return Err(refused(blame, "the server has no version message")),
        other => return Err(unexpected(blame, &other)),
    };
    found.server_version = Some(version);
    // Both sides use the lower of the two.
    let common = version.min(quirks.version);

    batch.clear();
    let may_tell = rung < Rung::WithoutConnectionData;
    if may_tell && common >= quirks.connection_data_since {
        found.connection_data = true;
        let (name, id) = (quirks.client_name.as_bytes(), options.operation_id.as_bytes());
        // Lengths were checked with the options.
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default();
        let message = Message::ConnectionData { name_len: length(name), operation_id_len: length(id) };
        push(blame, &mut batch, &message)?;
        batch.extend_from_slice(name);
        batch.extend_from_slice(id);
    }
    if may_tell && common >= quirks.features_since {
        found.connection_data = true;
        push(blame, &mut batch, &Message::Features(quirks.features))?;
    }
    push(blame, &mut batch, &Message::AioOpen)?;
    send(blame, stream, &batch).await?;
    match receive(blame, stream, &mut noise).await? {
        Message::AioOpen => Ok(version),
        Message::SessionComplete => Err(refused(blame, "the server has no asynchronous layer")),
        other => Err(unexpected(blame, &other)),
    }
}

fn push(blame: &Blame, batch: &mut Vec<u8>, message: &Message) -> Result<()> {
    let bytes = message.encode().map_err(|error| blame.invalid(error.to_string()))?;
    batch.extend_from_slice(&bytes);
    Ok(())
}

async fn send(blame: &Blame, stream: &mut Dialled, bytes: &[u8]) -> Result<()> {
    let sent = async {
        stream.writer.write_all(bytes).await?;
        stream.writer.flush().await
    };
    sent.await.map_err(|error| blame.io(Phase::SessionStart, &error))
}

/// Reads a message; an error message becomes an error. PING and RATE_CONTROL, whose uses are not
/// known, are passed over without an answer, `noise` of them at most.
async fn receive(blame: &Blame, stream: &mut Dialled, noise: &mut u32) -> Result<Message> {
    let failed = |error: std::io::Error| blame.io(Phase::SessionStart, &error);
    let mut bytes = [0; MESSAGE_LEN];
    let message = loop {
        stream.reader.read_exact(&mut bytes).await.map_err(failed)?;
        let message = Message::decode(&bytes);
        if *noise == 0 || !matches!(message.number(), number::PING | number::RATE_CONTROL) {
            break message;
        }
        *noise -= 1;
        tracing::debug!(endpoint = %blame.endpoint, number = message.number(), "passing over a classic message");
    };
    let Message::Error { kind, code, text_len } = message else {
        return Ok(message);
    };
    let mut text = Vec::new();
    // A text that is missing or slow does not hide the code.
    let limit = u64::from(text_len).min(fault::MAX_TEXT as u64);
    let rest = (&mut stream.reader).take(limit);
    let _ = tokio::time::timeout(fault::TEXT_LIMIT, { rest }.read_to_end(&mut text)).await;
    Err(blame.server(Phase::SessionStart, Fault::new(kind, code, "").with_text(&text)))
}

fn refused(blame: &Blame, reason: &str) -> Error {
    Error::StartRefused { endpoint: Arc::clone(&blame.endpoint), reason: reason.to_owned() }
}

fn unexpected(blame: &Blame, message: &Message) -> Error {
    let what = format!("an unexpected classic message {}", message.number());
    blame.protocol(Phase::SessionStart, what)
}
