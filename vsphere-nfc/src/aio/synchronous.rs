//! A disk on the synchronous layer, behind the same requests: for hosts without the asynchronous one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connection::{Connection, Queue};
use super::pending::{Failure, Pending, Reply, Shared, Work};
use crate::classic::NfcFiles;
use crate::disk::Mode;
use crate::error::{Blame, Error, Phase, Result};
use crate::ladder::{Found, Setup, Target};
use crate::options::Buffers;
use crate::ticket::Ticket;
use crate::wire::file::{Geometry, OpenFileReply, TYPE_DISK};

/// Bytes in a sector: this layer does not tell.
const SECTOR: u32 = 512;

impl Connection {
    /// Goes all the way from a ticket to a disk that is open for reading.
    pub(super) async fn open_synchronous(
        blame: Blame,
        ticket: &Ticket,
        target: &Target,
        setup: &Setup,
        found: &mut Found,
    ) -> Result<Self> {
        let options = &target.options;
        let refused =
            |reason: &str| Error::StartRefused { endpoint: Arc::clone(&blame.endpoint), reason: reason.into() };
        let Some(capacity) = target.capacity() else {
            return Err(refused("its synchronous layer does not tell the disk's size, and nobody else does"));
        };
        if target.mode == Mode::ReadWrite {
            return Err(refused("its synchronous layer is used for reading only"));
        }
        if options.single_link {
            return Err(refused("its synchronous layer is not known to open files without their parents"));
        }
        let quirks = options.classic_quirks.clone();
        // One request is under way at a time.
        let size = setup.buffers.size.min(quirks.max_request).max(SECTOR) / SECTOR * SECTOR;
        let setup = Setup { buffers: Buffers { size, count: 1 }, ..*setup };
        let files = NfcFiles::over(ticket, options, quirks, found).await?;
        let tls_version = files.tls_version().map(str::to_owned);

        let shared = Arc::new(Shared::new(blame, setup.buffers.budget()));
        let (queue, operations) = mpsc::unbounded_channel();
        let (opened, opening) = oneshot::channel();
        let disk = Disk { path: Arc::clone(&target.path), capacity };
        let task = tokio::spawn(run(files, disk, opened, operations, Arc::clone(&shared)));
        shared.adopt(task.abort_handle());
        // From here on, dropping it ends the task.
        let mut this = Self::over(Arc::clone(&shared), Queue::Operations(queue), tls_version, &setup, options, 0);
        this.legacy_tls = found.legacy_tls;
        opening.await.unwrap_or_else(|_| Err(shared.failure(Phase::OpenFile)))?;
        this.disk = OpenFileReply {
            handle: 0,
            file_type: TYPE_DISK,
            flags: 0,
            capacity,
            sector_size: SECTOR,
            geometry: Geometry::for_capacity(capacity),
        };
        Ok(this)
    }
}

/// What is to be opened.
struct Disk {
    path: Arc<str>,
    capacity: u64,
}

/// Opens the disk and serves requests one after the other, until one closes it or fails.
///
/// Callers that are gone do not matter here: what they asked for is read all the same, so that the
/// connection stays in step.
async fn run(
    mut files: NfcFiles,
    disk: Disk,
    opened: oneshot::Sender<Result<()>>,
    mut operations: mpsc::UnboundedReceiver<u32>,
    shared: Arc<Shared>,
) {
    let mut disk = match files.open_disk(&disk.path, Mode::ReadOnly, disk.capacity).await {
        Ok(disk) => disk,
        Err(error) => {
            shared.fail(Failure::Lost("the disk was not opened".to_owned()));
            let _ = opened.send(Err(error));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    let last = loop {
        let Some(operation) = operations.recv().await else { return };
        // Requests of a connection that has failed were answered.
        let Some(mut pending) = shared.take(operation) else { return };
        let Work::Read { offset, assembly } = &mut pending.work else { break pending };
        let total = assembly.total();
        // A length of requests fits.
        let read = disk.read_at(*offset, total as usize).await;
        let whole = read.and_then(|bytes| {
            let slot = assembly.slot(0, total).map_err(|error| shared.blame.wire(Phase::Read, &error))?;
            slot.extend_from_slice(&bytes);
            Ok(std::mem::replace(assembly, super::assembly::Assembly::empty()).finish())
        });
        let failed = whole.is_err();
        answer(&shared, pending, whole.map(Reply::Read));
        if failed {
            return;
        }
    };
    let closed = match disk.close().await {
        Ok(()) => files.close().await,
        Err(error) => Err(error),
    };
    answer(&shared, last, closed.map(|()| Reply::Call { payload: Vec::new(), extra: Vec::new() }));
}

/// Answers a request. After an error the connection is of no further use, and whoever hears the error
/// may look at once whether it is.
fn answer(shared: &Shared, pending: Pending, result: Result<Reply>) {
    if let Err(error) = &result {
        shared.fail(Failure::Lost(format!("a request failed: {error}")));
    }
    shared.done();
    let Pending { reply, hold, .. } = pending;
    drop(hold);
    // A caller that is gone has no use for the bytes.
    let _ = reply.send(result);
}
