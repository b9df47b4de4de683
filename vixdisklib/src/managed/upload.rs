//! A disk's data to a new disk on a datastore, through the server's file service.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use vsphere_vim::{datastore::DatastorePath, transport::stream::Upload};

use super::{ManagedPath, not_a_managed_kind};
use crate::{
    allocation::chunk_for,
    clone::CloneJob,
    create::DiskKind,
    error::{Error, Result},
    progress::tell,
    transport::SharedHandle,
};

/// Makes the disk `to` with the data of the job's source: first the bytes, then the descriptor that names them.
///
/// Every byte travels, zeros too: the file service knows no holes. Only what the source calls data is read.
pub(crate) async fn receive(to: &ManagedPath, job: &CloneJob) -> Result<()> {
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
    let half_made = HalfMade::new(to, [to.path.clone(), flat.clone()]);
    let sent = send(to, &flat, job, &spec).await;
    match sent {
        Ok(()) => half_made.keep(),
        Err(_) => half_made.remove().await,
    }
    sent
}

async fn send(to: &ManagedPath, flat: &DatastorePath, job: &CloneJob, spec: &crate::CreateSpec) -> Result<()> {
    let capacity = job.source.capacity();
    let areas = job.source.allocated(0..capacity, chunk_for(capacity)).await?.areas;
    let (source, progress) = (Arc::clone(&job.source), job.options.progress.clone());
    let pieces = stream::iter(Pieces { at: 0, capacity, areas: areas.into() })
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

    let descriptor = descriptor(to, job, spec).await?;
    let upload = Upload::from_bytes(descriptor);
    to.store.write(&to.path, upload).await.map_err(|source| to.failed("uploading the descriptor of", source))
}

/// The descriptor, with the virtual hardware of the source where the caller says nothing.
async fn descriptor(to: &ManagedPath, job: &CloneJob, spec: &crate::CreateSpec) -> Result<Vec<u8>> {
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
    Ok(made.to_descriptor(to.path.file_name()).map_err(failed())?.to_bytes())
}

/// `web-flat.vmdk` for `web.vmdk`.
fn extent_of(path: &DatastorePath) -> Option<DatastorePath> {
    let stem = path.file_name().strip_suffix(".vmdk").filter(|stem| !stem.is_empty())?;
    path.parent()?.join(&format!("{stem}-flat.vmdk")).ok()
}

/// The disk in order, cut into pieces that are all data or all hole.
struct Pieces {
    at: u64,
    capacity: u64,
    areas: std::collections::VecDeque<Range<u64>>,
}

struct Piece {
    range: Range<u64>,
    is_hole: bool,
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

/// Files on a datastore that go away unless the work is done.
struct HalfMade {
    files: Option<(vsphere_vim::datastore::Datastore, [DatastorePath; 2])>,
}

impl HalfMade {
    fn new(to: &ManagedPath, files: [DatastorePath; 2]) -> Self {
        Self { files: Some((to.store.clone(), files)) }
    }

    fn keep(mut self) {
        self.files = None;
    }

    async fn remove(mut self) {
        if let Some((store, files)) = self.files.take() {
            remove(store, files).await;
        }
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        let Some((store, files)) = self.files.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(remove(store, files))),
            Err(_) => tracing::warn!(disk = %files[0], "a half-made disk was left on the datastore"),
        }
    }
}

async fn remove(store: vsphere_vim::datastore::Datastore, files: [DatastorePath; 2]) {
    for file in files {
        match store.stat(&file).await {
            Ok(None) => continue,
            _ => {
                if let Err(error) = store.delete(&file).await {
                    tracing::warn!(%file, %error, "a file of a half-made disk was left on the datastore");
                }
            }
        }
    }
}

/// Bytes of a piece, and how many are read ahead.
const PIECE: u64 = 1 << 20;
const IN_FLIGHT: usize = 8;
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
