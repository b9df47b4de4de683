//! The asynchronous layer from the server's side: one task takes requests, others work on them,
//! and one queue of replies leads back to the client.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vsphere_nfc::wire::aio::{Kind, message};
use vsphere_nfc::wire::classic::{MESSAGE_LEN, Message};
use vsphere_nfc::wire::fault::Fault;

use super::authd::{ReadHalf, WriteHalf};
use super::backend::Grant;
use super::buffers::Buffers;
use super::config::{FaultAction, NfcServerConfig, Step};
use super::requests::Requests;
use super::server::{Shared, ended, violation};
use super::start;

/// The code of an error that has no known code on real hosts; made up.
pub(super) const CODE_INVALID: u32 = 4;
/// The type of all errors; real values are not known.
const ERROR_KIND: u32 = 1;
/// Replies that wait for the connection.
const QUEUE: usize = 4;

/// A reply: header and payload, and data.
pub(super) type Frame = (BytesMut, Data);

/// The data of a reply.
pub(super) enum Data {
    /// In a buffer of the connection, which gets it back.
    Own(Vec<u8>),
    /// Where the disk has it.
    Resident(Bytes),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(data) => data,
            Self::Resident(data) => data,
        }
    }
}

impl From<Vec<u8>> for Data {
    fn from(data: Vec<u8>) -> Self {
        Self::Own(data)
    }
}

/// Serves requests until the client says goodbye.
pub(super) async fn serve(
    reader: ReadHalf,
    mut writer: WriteHalf,
    shared: &Arc<Shared>,
    config: &Arc<NfcServerConfig>,
    grant: Grant,
) -> io::Result<()> {
    let (sender, mut queue) = mpsc::channel::<Frame>(QUEUE);
    let buffers = Arc::<Buffers>::default();
    let replies = Replies(Arc::new(Outbox {
        buffers: Arc::clone(&buffers),
        shared: Arc::clone(shared),
        config: Arc::clone(config),
        queue: sender,
        working: AtomicU64::new(0),
    }));
    // A task of its own: else replies would wait while the other one decrypts what keeps arriving.
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        while let Some((head, data)) = queue.recv().await {
            writer.write_all_buf(&mut head.chain(&*data)).await?;
            writer.flush().await?;
            if let Data::Own(data) = data {
                buffers.give(data);
            }
        }
        io::Result::Ok(writer)
    });
    let mut requests = Requests::new(reader, grant, replies);
    let received = tokio::select! {
        // The queue outlives the requests, so this is an error.
        Some(sent) = sending.join_next() => return sent.map_err(io::Error::other)?.map(drop),
        received = requests.run() => received,
    };
    received?;
    // With the last sender the queue ends, after the replies in it are sent.
    let reader = requests.into_reader();
    let Some(sent) = sending.join_next().await else { return Err(ended("nobody sends replies")) };
    let writer = sent.map_err(io::Error::other)??;
    goodbye(reader, writer, config).await
}

/// The classic message 4, and its answer.
async fn goodbye(mut reader: ReadHalf, mut writer: WriteHalf, config: &NfcServerConfig) -> io::Result<()> {
    let mut bytes = [0; MESSAGE_LEN];
    reader.read_exact(&mut bytes).await?;
    if Message::decode(&bytes) != Message::SessionComplete {
        return Err(violation("the last message is not 4"));
    }
    if config.answer_session_complete {
        // A client need not wait for it, and may be gone.
        let _ = start::send(&mut writer, &Message::SessionComplete).await;
    }
    let _ = writer.shutdown().await;
    Ok(())
}

/// Where replies go: shared by everything that works on requests of one connection.
#[derive(Clone)]
pub(super) struct Replies(Arc<Outbox>);

struct Outbox {
    shared: Arc<Shared>,
    config: Arc<NfcServerConfig>,
    queue: mpsc::Sender<Frame>,
    buffers: Arc<Buffers>,
    /// Requests that are worked on.
    working: AtomicU64,
}

impl Replies {
    pub(super) fn config(&self) -> &NfcServerConfig {
        &self.0.config
    }

    /// Buffers for data.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.0.buffers
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Counts a request as worked on until the guard is dropped.
    pub(super) fn working(&self) -> Working {
        let working = self.0.working.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.shared.counters.in_flight(working);
        Working(self.clone())
    }

    /// Sends a reply.
    pub(super) async fn send(&self, kind: Kind, op_id: u32, payload: &[u8], data: impl Into<Data>) -> io::Result<()> {
        let data = data.into();
        if !self.0.config.delay.is_zero() {
            tokio::time::sleep(self.0.config.delay).await;
        }
        let frame = (message(kind, op_id, payload, b""), data);
        self.0.queue.send(frame).await.map_err(|_| ended("the connection is gone"))
    }

    /// Sends an error in the configured layout.
    pub(super) async fn error(&self, op_id: u32, code: u32, text: impl Into<String>) -> io::Result<()> {
        let (payload, extra) = Fault::new(ERROR_KIND, code, text).encode(self.0.config.error_layout);
        self.send(Kind::Error, op_id, &payload, extra).await
    }

    /// Does the fault that waits for `step`, and returns whether there was one.
    pub(super) async fn struck(&self, step: Step, op_id: u32) -> io::Result<bool> {
        match self.0.shared.injected.take(step) {
            None => return Ok(false),
            Some(FaultAction::Error { code, text }) => self.error(op_id, code, text).await?,
            Some(FaultAction::Bytes(bytes)) => {
                let frame = (BytesMut::new(), bytes.into());
                self.0.queue.send(frame).await.map_err(|_| ended("the connection is gone"))?;
            }
            Some(FaultAction::Close | FaultAction::Complete) => return Err(ended("closed by an injected fault")),
            // The request is forgotten; others go on.
            Some(FaultAction::Stall) => {}
        }
        Ok(true)
    }
}

/// A request that is worked on.
pub(super) struct Working(Replies);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.working.fetch_sub(1, Ordering::SeqCst);
    }
}
