//! The server: exports on an address, until it is stopped.

use std::{collections::HashSet, fmt, io, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    address::{Listener, NbdAddress},
    connection::{self, Shared},
    device::BlockDevice,
    export::{Export, OpenExport},
    limits::NbdLimits,
    wire::MAX_STRING,
};
use crate::error::{Error, Result};

/// An NBD server that is not running yet: an address and what is to be served there.
#[must_use]
pub struct NbdServer {
    address: NbdAddress,
    exports: Vec<Export>,
    limits: NbdLimits,
}

impl NbdServer {
    /// For an address such as `127.0.0.1:10809`, `127.0.0.1:0` or `/run/web.sock`.
    pub fn bind(address: impl Into<NbdAddress>) -> Self {
        Self { address: address.into(), exports: Vec::new(), limits: NbdLimits::default() }
    }

    /// Serves a device under a name. Clients that give no name get the first one.
    pub fn export(self, name: impl Into<String>, device: Arc<impl BlockDevice>) -> Self {
        self.export_as(Export::new(name, device))
    }

    /// The same with more to say about it.
    pub fn export_as(mut self, export: Export) -> Self {
        self.exports.push(export);
        self
    }

    /// Sets what clients are granted.
    pub fn limits(self, limits: NbdLimits) -> Self {
        Self { limits, ..self }
    }

    /// Listens, and serves clients in the background until [`RunningNbdServer::stop`].
    ///
    /// # Errors
    /// [`Error::Serve`] when the address cannot be had, there is nothing to serve, or names are wrong or not unique.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn serve(self) -> Result<RunningNbdServer> {
        let Self { address, exports, limits } = self;
        let failed = |operation, source| Error::Serve { operation, address: address.to_string(), source };
        check(&exports)
            .and_then(|()| limits.check())
            .map_err(|problem| failed("setting up", io::Error::new(io::ErrorKind::InvalidInput, problem)))?;
        let listener = Listener::bind(&address).await.map_err(|error| failed("listening on", error))?;
        let address = listener.address().map_err(|error| failed("listening on", error))?;
        let exports: Vec<_> = exports.into_iter().map(|export| Arc::new(export.open(&limits))).collect();
        let facts = exports.iter().map(|export| export.facts.clone()).collect();
        let shared = Arc::new(Shared { exports, facts, limits });
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), stopped));
        tracing::info!(%address, exports = shared.exports.len(), "serving NBD");
        Ok(RunningNbdServer { address, shared: Some(shared), stop, accepting })
    }
}

fn check(exports: &[Export]) -> Result<(), &'static str> {
    let mut names = HashSet::new();
    if exports.is_empty() {
        return Err("there is nothing to serve");
    }
    for name in exports.iter().map(Export::name) {
        if name.len() > MAX_STRING || name.contains('\0') {
            return Err("a name must have at most 4096 bytes and no NUL");
        }
        if !names.insert(name) {
            return Err("two exports have the same name");
        }
    }
    Ok(())
}

/// A server that is running. Dropping it cuts its clients off; [`stop`](Self::stop) lets them finish.
pub struct RunningNbdServer {
    address: NbdAddress,
    /// Taken when stopped.
    shared: Option<Arc<Shared>>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl RunningNbdServer {
    /// Where it listens; the port is the one that the system chose.
    pub fn address(&self) -> &NbdAddress {
        &self.address
    }

    /// The URI of an export: what `nbdinfo`, `qemu-img` and others take in place of a file.
    pub fn uri(&self, export: &str) -> String {
        self.address.uri(export, false)
    }

    /// The URIs of all exports, in the order in which they were given.
    pub fn uris(&self) -> Vec<String> {
        let facts = self.shared.iter().flat_map(|shared| &shared.facts);
        facts.map(|facts| self.uri(&facts.name)).collect()
    }

    /// The number of connections.
    pub fn connections(&self) -> usize {
        self.stop.receiver_count().saturating_sub(1)
    }

    /// Takes no more clients and no more requests, finishes those under way, flushes every device and closes those
    /// that nobody else has.
    ///
    /// # Errors
    /// [`Error::Serve`] with the first device that could not be flushed or closed.
    ///
    /// # Cancel safety
    /// Dropping the future cuts clients off; devices are then dropped, not closed.
    pub async fn stop(mut self) -> Result<()> {
        let _ = self.stop.send(true);
        let _ = (&mut self.accepting).await; // Ends by itself, within the time that clients have.
        let shared = self.shared.take().and_then(Arc::into_inner);
        let mut first = Ok(());
        for export in shared.map(|shared| shared.exports).unwrap_or_default() {
            first = first.and(close(export).await);
        }
        first.map_err(|source| Error::Serve {
            operation: "closing the disks of",
            address: self.address.to_string(),
            source,
        })
    }
}

impl Drop for RunningNbdServer {
    fn drop(&mut self) {
        self.accepting.abort();
        if self.shared.is_some() {
            tracing::warn!(address = %self.address, "an NBD server was dropped without stop(); its clients are cut off");
        }
    }
}

impl fmt::Debug for RunningNbdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningNbdServer").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn close(export: Arc<OpenExport>) -> io::Result<()> {
    match Arc::into_inner(export) {
        Some(export) => export.volume.close().await.map_err(io::Error::other),
        None => Err(io::Error::other("a request is still under way")),
    }
}

/// Accepts clients until stopped, then waits for those that are there.
async fn accept(listener: Listener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(usize::try_from(shared.limits.connections).unwrap_or(usize::MAX)));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => break,
            accepted = async { (Arc::clone(&places).acquire_owned().await, listener.accept().await) } => accepted,
        };
        while clients.try_join_next().is_some() {}
        match accepted {
            (Ok(place), Ok(stream)) => {
                let (shared, stop) = (Arc::clone(&shared), stop.clone());
                clients.spawn(async move {
                    if let Err(error) = connection::serve(stream, shared, stop).await {
                        tracing::debug!(%error, "a client was lost");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, most likely: clients that leave give some back.
            (_, Err(error)) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    let all = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.limits.stop, all).await.is_err() {
        tracing::warn!("clients were cut off: their requests took too long");
        clients.shutdown().await;
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
