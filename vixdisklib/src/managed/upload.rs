//! A disk's data to a new disk on a datastore: over port 902, or through the server's file service.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use vmdk::descriptor::Descriptor;
use vsphere_vim::{datastore::DatastorePath, transport::stream::Upload};

use super::{ManagedPath, Way, not_a_managed_kind, put};
use crate::{
    allocation::chunk_for,
    clone::CloneJob,
    create::DiskKind,
    error::{Attempt, Error, Result},
    https::upload::Made,
    mode::TransportMode,
    progress::tell,
    transport::SharedHandle,
};

/// Makes the disk `to` with the data of the job's source: over port 902, where holes stay holes, or over the file
/// service, which knows none. Only what the source calls data is read.
pub(crate) async fn receive(to: &ManagedPath, job: &CloneJob, way: &Way<'_>) -> Result<()> {
    let spec = job.spec(DiskKind::VmfsFlat);
    if !matches!(spec.kind, DiskKind::VmfsFlat | DiskKind::VmfsThin) {
        return Err(not_a_managed_kind());
    }
    let flat = extent_of(&to.path).ok_or_else(not_a_managed_kind)?;
    let exists = |path: &DatastorePath| Error::Exists { operation: "clone to", path: path.to_string() };
    for path in [&to.path, &flat] {
        let found = to.store.stat(path).await.map_err(|source| to.failed("looking for", source))?;
        match (found, job.options.overwrite) {
            (Some(_), false) => return Err(exists(path)),
            (Some(_), true) if *path == to.path => to.unlink().await?,
            _ => {}
        }
    }
    let descriptor = descriptor(to, job, &spec).await?;
    let mut half_made = Made::new(&to.store);
    let files = [flat.clone(), to.path.clone()];
    let put = match put::connect(to, job, way).await {
        Ok(mut nfc) => {
            half_made.files = files.to_vec();
            put::send(&mut nfc, to, job, &spec, &descriptor).await
        }
        Err(error) => Err(error),
    };
    let error = match put {
        Ok(()) => {
            half_made.keep();
            return Ok(());
        }
        Err(error) => error,
    };
    half_made.remove().await;
    // Another way does not mend the source, and none leads past a certificate that is not the expected one.
    if error.is_distrust() || !error.is_of_target() {
        return Err(error.into());
    }
    tracing::info!(to = %to.path, mode = %way.mode, %error, "the disk is not stored over port 902; it goes to /folder");
    half_made.files = files.to_vec();
    match send(to, &flat, job, descriptor.to_bytes()).await {
        Ok(()) => {
            half_made.keep();
            Ok(())
        }
        Err(last) => {
            half_made.remove().await;
            let first = Attempt { mode: way.mode, error: error.into() };
            let last = Attempt { mode: TransportMode::Https, error: last };
            Err(Error::of_attempts(to.path.to_string(), vec![first, last]))
        }
    }
}

/// First the bytes, then the descriptor that names them. Every byte travels, zeros too.
async fn send(to: &ManagedPath, flat: &DatastorePath, job: &CloneJob, descriptor: Vec<u8>) -> Result<()> {
    let capacity = job.source.capacity();
    let (source, progress) = (Arc::clone(&job.source), job.options.progress.clone());
    let pieces = stream::iter(Pieces::of(job).await?)
        .map(move |piece| piece.load(Arc::clone(&source)))
        .buffered(IN_FLIGHT)
        .inspect({
            let mut done = 0;
            move |piece: &io::Result<Bytes>| {
                done += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
                tell(progress.as_ref(), done, capacity);
            }
        });
    let upload = Upload::new(capacity, pieces);
    to.store.write(flat, upload).await.map_err(|source| to.failed("uploading the data of", source))?;

    let upload = Upload::from_bytes(descriptor);
    to.store.write(&to.path, upload).await.map_err(|source| to.failed("uploading the descriptor of", source))
}

/// The descriptor, with the virtual hardware of the source where the caller says nothing.
async fn descriptor(to: &ManagedPath, job: &CloneJob, spec: &crate::CreateSpec) -> Result<Descriptor> {
    let failed = || Error::file("describing", to.path.path());
    let mut spec = spec.clone();
    if spec.adapter.is_none() {
        spec.adapter = job.source.metadata("adapterType").await?.map(|name| vmdk::AdapterType::from_name(&name));
    }
    let mut made = spec.for_vmdk().ok_or_else(not_a_managed_kind)?;
    if let (None, Some(version)) = (spec.hardware_version, job.source.metadata("virtualHWVersion").await?)
        && let Ok(version) = version.trim().parse()
    {
        made = made.hardware_version(version);
    }
    made.to_descriptor(to.path.file_name()).map_err(failed())
}

/// `web-flat.vmdk` for `web.vmdk`.
fn extent_of(path: &DatastorePath) -> Option<DatastorePath> {
    let stem = path.file_name().strip_suffix(".vmdk").filter(|stem| !stem.is_empty())?;
    path.parent()?.join(&format!("{stem}-flat.vmdk")).ok()
}

/// The disk in order, cut into pieces that are all data or all hole.
pub(super) struct Pieces {
    at: u64,
    capacity: u64,
    areas: std::collections::VecDeque<Range<u64>>,
}

pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) is_hole: bool,
}

impl Pieces {
    /// Those of the job's source.
    pub(super) async fn of(job: &CloneJob) -> Result<Self> {
        let capacity = job.source.capacity();
        let areas = job.source.allocated(0..capacity, chunk_for(capacity)).await?.areas;
        Ok(Self { at: 0, capacity, areas: areas.into() })
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.areas.front().is_some_and(|area| area.end <= self.at) {
            self.areas.pop_front();
        }
        let (is_hole, end) = match self.areas.front() {
            Some(area) if area.start <= self.at => (false, area.end),
            Some(area) => (true, area.start),
            None => (true, self.capacity),
        };
        let range = self.at..end.min(self.at.saturating_add(PIECE)).min(self.capacity);
        self.at = range.end;
        (!range.is_empty()).then_some(Piece { range, is_hole })
    }
}

impl Piece {
    async fn load(self, source: SharedHandle) -> io::Result<Bytes> {
        let len = usize::try_from(self.range.end - self.range.start).unwrap_or(0);
        if self.is_hole {
            return Ok(Bytes::from_static(&ZEROS).slice(..len));
        }
        source.read_at(self.range.start, len).await.map_err(io::Error::other)
    }
}

/// Bytes of a piece, and how many are read ahead.
const PIECE: u64 = 1 << 20;
pub(super) const IN_FLIGHT: usize = 8;
static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_disk_in_order_and_are_data_or_hole() {
        let areas = [0..100, PIECE..PIECE * 2 + 10, PIECE * 4 - 1..PIECE * 4].to_vec();
        let pieces: Vec<_> = Pieces { at: 0, capacity: PIECE * 5, areas: areas.into() }.collect();
        let mut at = 0;
        let mut data = 0;
        for piece in &pieces {
            assert_eq!(piece.range.start, at);
            assert!(piece.range.end - at <= PIECE);
            at = piece.range.end;
            data += if piece.is_hole { 0 } else { piece.range.end - piece.range.start };
        }
        assert_eq!((at, data), (PIECE * 5, 100 + PIECE + 10 + 1));
    }

    #[test]
    fn extents_are_called_after_their_descriptor() {
        let extent = |path: &str| extent_of(&path.parse().unwrap()).map(|path| path.to_string());
        assert_eq!(extent("[ds1] web/web.vmdk").as_deref(), Some("[ds1] web/web-flat.vmdk"));
        assert_eq!(extent("[ds1] web/web"), None);
        assert_eq!(extent("[ds1] .vmdk"), None);
    }
}
