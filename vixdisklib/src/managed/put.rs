//! A disk's data to a new disk on a datastore, over port 902: the host makes the disk as it comes.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use vmdk::{AdapterType, descriptor::Descriptor};
use vsphere_nfc::{ClassicQuirks, DiskSpec, FilesOptions, NfcFiles, Provisioning, wire::classic_file::conversion};

use super::{
    ManagedPath, Way,
    upload::{IN_FLIGHT, Piece, Pieces},
};
use crate::{
    clone::CloneJob,
    create::{CreateSpec, DiskKind},
    error::Error,
    progress::tell,
    transport::{DatastoreTickets, SharedHandle},
};

/// Why a disk was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The source could not be read.
    #[error(transparent)]
    Source(Error),
    /// The host could not be reached, or did not take the disk.
    #[error(transparent)]
    Target(Error),
}

impl Failed {
    /// Whether another way to the target may do.
    pub(super) fn is_of_target(&self) -> bool {
        matches!(self, Self::Target(_))
    }

    pub(super) fn is_distrust(&self) -> bool {
        let (Self::Source(error) | Self::Target(error)) = self;
        error.is_distrust()
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Source(error) | Failed::Target(error) => error,
        }
    }
}

/// Connects to the host that stores the datastore's files.
pub(super) async fn connect(to: &ManagedPath, job: &CloneJob, way: &Way<'_>) -> Result<NfcFiles, Failed> {
    let tickets = DatastoreTickets::new(&to.vim, to.store.moref());
    let mut quirks = ClassicQuirks::default();
    if !job.options.overwrite {
        // There was none of that name a moment ago. One that somebody else has made since is not ours to replace.
        quirks.disk_conversion &= !conversion::CREATE_OVERWRITE;
    }
    let options = FilesOptions::new(way.options.clone()).quirks(quirks);
    NfcFiles::connect(&tickets, options).await.map_err(target("connecting to store", to))
}

/// Stores the disk: its disk database, its data, and a word for its holes.
pub(super) async fn send(
    nfc: &mut NfcFiles,
    to: &ManagedPath,
    job: &CloneJob,
    spec: &CreateSpec,
    descriptor: &Descriptor,
) -> Result<(), Failed> {
    let failed = || target("storing", to);
    let capacity = job.source.capacity();
    let source = Arc::clone(&job.source);
    let pieces = Pieces::of(job).await.map_err(Failed::Source)?;
    let mut pieces = stream::iter(pieces).map(move |piece| load(piece, Arc::clone(&source))).buffered(IN_FLIGHT);
    let mut disk = nfc.put_disk(&to.path.to_string(), &disk_spec(capacity, spec, descriptor)).await.map_err(failed())?;
    while let Some(loaded) = pieces.next().await {
        match loaded.map_err(Failed::Source)? {
            Loaded::Data(bytes) => disk.data(bytes).await,
            Loaded::Hole(len) => disk.zeros(len).await,
        }
        .map_err(failed())?;
        tell(job.options.progress.as_ref(), disk.position(), capacity);
    }
    disk.finish().await.map_err(failed())
}

/// What a host is told of a disk: provisioning and adapter, and all of them again in the disk database.
fn disk_spec(capacity: u64, spec: &CreateSpec, descriptor: &Descriptor) -> DiskSpec {
    let provisioning = match spec.kind {
        DiskKind::VmfsThin => Provisioning::Thin,
        _ => Provisioning::Thick,
    };
    let adapter = descriptor.ddb_get("adapterType");
    let adapter = adapter.as_deref().unwrap_or(AdapterType::LsiLogic.name());
    let disk = DiskSpec::new(capacity).provisioning(provisioning).adapter(adapter);
    descriptor.ddb().fold(disk, |disk, (key, value)| disk.metadata(&key, &value))
}

enum Loaded {
    Data(bytes::Bytes),
    Hole(u64),
}

async fn load(piece: Piece, source: SharedHandle) -> Result<Loaded, Error> {
    let len = piece.range.end - piece.range.start;
    if piece.is_hole {
        return Ok(Loaded::Hole(len));
    }
    let bytes = source.read_at(piece.range.start, usize::try_from(len).unwrap_or(usize::MAX)).await?;
    Ok(Loaded::Data(bytes))
}

fn target(operation: &'static str, to: &ManagedPath) -> impl FnOnce(vsphere_nfc::Error) -> Failed + use<> {
    let failed = Error::nfc(operation, &to.path.to_string());
    move |error| Failed::Target(failed(error))
}
