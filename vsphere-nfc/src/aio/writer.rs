//! The writer task: puts whole messages on the connection, one caller's after the other's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::pending::{Failure, Shared};
use crate::dial::WriteHalf;

/// What the writer task is given.
///
/// The queue has no limit of its own: data in it is bounded by the session's budget, the rest by
/// the number of callers.
pub(crate) enum Outgoing {
    /// A message without data.
    Message(BytesMut),
    /// The fragments of one write, ascending: header and data. Nothing comes between them. The flag
    /// is set before the tail of the last one: a reply that is here earlier is none.
    Write(Vec<(BytesMut, Bytes)>, Arc<AtomicBool>),
    /// The last bytes; then the sending side is shut down.
    Finish(Bytes, oneshot::Sender<()>),
}

/// Small messages are joined up to this many bytes into one write.
const BATCH: usize = 16 * 1024;

/// The part of a write that is sent after its flag is set: one TLS record.
///
/// Setting it after the last byte would be too late, because the reply may be here before the
/// writer task runs again.
const TAIL: usize = 16 * 1024;
/// How long the reader task may take to find out why the server hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs until the queue ends, the connection breaks or the task is aborted.
pub(crate) async fn run(mut writer: WriteHalf, mut queue: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    while let Some(outgoing) = queue.recv().await {
        if let Err(error) = send(&mut writer, outgoing, &mut queue).await {
            // A server that closes on an error has said so before, and the reader task ends this one
            // when it finds that; its words are worth more than "broken pipe".
            tokio::time::sleep(LAST_WORDS).await;
            return shared.fail(Failure::Lost(error.to_string()));
        }
    }
}

/// Sends one item, and joins to it what small messages are waiting behind it.
async fn send(
    writer: &mut WriteHalf,
    outgoing: Outgoing,
    queue: &mut mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    let mut next = Some(outgoing);
    while let Some(outgoing) = next.take() {
        match outgoing {
            Outgoing::Message(mut batch) => {
                while next.is_none() && batch.len() < BATCH {
                    match queue.try_recv() {
                        Ok(Outgoing::Message(message)) => batch.extend_from_slice(&message),
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                writer.write_all(&batch).await?;
            }
            Outgoing::Write(mut fragments, sent) => {
                let last = fragments.pop();
                for (head, data) in fragments {
                    writer.write_all_buf(&mut head.chain(data)).await?;
                }
                if let Some((head, data)) = last {
                    let mut rest = head.chain(data);
                    let before = rest.remaining().saturating_sub(TAIL);
                    writer.write_all_buf(&mut (&mut rest).take(before)).await?;
                    sent.store(true, Ordering::Release);
                    writer.write_all_buf(&mut rest).await?;
                }
            }
            Outgoing::Finish(bytes, done) => {
                writer.write_all(&bytes).await?;
                writer.flush().await?;
                writer.shutdown().await?;
                let _ = done.send(());
            }
        }
    }
    writer.flush().await
}
