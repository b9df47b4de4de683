//! A whole disk put into a datastore, as a descriptor and a flat extent.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use vmdk::{
    AdapterType, CreateType,
    descriptor::{ExtentLine, ExtentType, NewDescriptor},
};
use vsphere_vim::{
    datastore::{Datastore, DatastorePath},
    transport::stream::{Upload, UploadSender},
};

use super::HttpsError;
use crate::{
    Progress,
    disk::Disk,
    error::{Error, Result},
    lease::{Piece, Pieces},
    transport::https::look_at,
};

/// How [`upload_disk`] works.
#[derive(Clone, Default)]
#[must_use]
pub struct UploadOptions {
    adapter: Option<AdapterType>,
    hardware_version: Option<u32>,
    progress: Option<Progress>,
}

/// What [`upload_disk`] has made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadedDisk {
    /// The descriptor: what a VM's device names.
    pub descriptor: DatastorePath,
    /// The file with the bytes.
    pub flat: DatastorePath,
    /// Bytes sent of it: the disk's size.
    pub bytes: u64,
}

impl UploadOptions {
    /// Adapter and hardware of the source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the adapter that the geometry is made for.
    pub fn adapter(self, adapter: AdapterType) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    /// Sets the virtual hardware version.
    pub fn hardware_version(self, version: u32) -> Self {
        Self { hardware_version: Some(version), ..self }
    }

    /// Sets what is told how far the work is, in percent.
    pub fn progress(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

/// Puts a disk of any transport into a datastore: `web.vmdk` and `web-flat.vmdk`.
///
/// The flat file is sent first, as one request, and its size is checked; then comes the descriptor, so that there is
/// never one without its bytes. **Zeros travel as bytes**: `/folder` has no request for a hole, and the file takes all
/// of its space. For thin disks, or a slow line, write over `nbdssl` or through a lease.
///
/// The disk belongs to no VM afterwards; attach it.
///
/// # Errors
/// [`Error::WrongPath`] for a name that is not `….vmdk`; [`Error::Https`] when there is a file of that name (nothing is
/// replaced), when the server refuses or the connection breaks, and when the file has another size then; those of
/// reading `source`. What was made is removed.
///
/// # Privileges
/// `Datastore.Browse` and `Datastore.FileManagement`.
///
/// # Cancel safety
/// Dropping the future breaks the transfer off and removes what was made, in the background.
pub async fn upload_disk(
    store: &Datastore,
    path: &DatastorePath,
    source: &Disk,
    options: &UploadOptions,
) -> Result<UploadedDisk> {
    let plan = Plan::new(path)?;
    let descriptor = descriptor(&plan.flat, source, options).await?;
    for file in [&plan.descriptor, &plan.flat] {
        if look_at(store, file, None).await.map_err(plan.failed("looking for"))?.is_some() {
            return Err(Error::https("putting", &path.to_string())(HttpsError::Exists { file: file.to_string() }));
        }
    }
    let mut made = Made::new(store);
    match plan.put(&mut made, source, descriptor, options).await {
        Ok(()) => {
            made.keep();
            Ok(UploadedDisk { descriptor: plan.descriptor, flat: plan.flat, bytes: source.capacity() })
        }
        Err(error) => {
            made.remove().await;
            Err(error)
        }
    }
}

/// Where the files go.
struct Plan {
    descriptor: DatastorePath,
    flat: DatastorePath,
}

impl Plan {
    fn new(path: &DatastorePath) -> Result<Self> {
        let wrong = || {
            let expected = "the name of a disk ends with `.vmdk`, and not with `-flat.vmdk`";
            Error::WrongPath { mode: crate::TransportMode::Https, path: path.to_string(), expected }
        };
        let stem = path.path().strip_suffix(".vmdk").filter(|stem| !stem.ends_with("-flat")).ok_or_else(wrong)?;
        let flat = DatastorePath::new(path.datastore(), &format!("{stem}-flat.vmdk")).map_err(|_| wrong())?;
        Ok(Self { descriptor: path.clone(), flat })
    }

    async fn put(&self, made: &mut Made, source: &Disk, descriptor: Vec<u8>, options: &UploadOptions) -> Result<()> {
        let (sender, upload) = Upload::channel(source.capacity(), DEPTH);
        made.files.push(self.flat.clone());
        let store = made.store.clone();
        let (sent, fed) = tokio::join!(store.write(&self.flat, upload), feed(source, sender, options));
        match (sent, fed) {
            // The source's own failure says more than that the server was left alone.
            (_, Err(Fed::Source(error))) => return Err(error),
            (Err(error), _) => return Err(self.failed("putting")(error)),
            (Ok(()), Ok(()) | Err(Fed::NotTaken)) => {}
        }
        self.check_size(&store, &self.flat, source.capacity()).await?;
        made.files.push(self.descriptor.clone());
        let len = descriptor.len() as u64;
        let written = store.write(&self.descriptor, Upload::from_bytes(descriptor)).await;
        written.map_err(self.failed("putting the descriptor of"))?;
        self.check_size(&store, &self.descriptor, len).await
    }

    async fn check_size(&self, store: &Datastore, file: &DatastorePath, expected: u64) -> Result<()> {
        let seen = look_at(store, file, None).await.map_err(self.failed("looking for"))?;
        let found = seen.and_then(|(size, _)| size);
        if found == Some(expected) {
            return Ok(());
        }
        let wrong = HttpsError::WrongSize { file: file.to_string(), expected, found };
        Err(Error::https("putting", &self.descriptor.to_string())(wrong))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(vsphere_vim::Error) -> Error + '_ {
        move |source| {
            let error = HttpsError::of_server(&self.flat, 0..0, source);
            Error::https(operation, &self.descriptor.to_string())(error)
        }
    }
}

/// Why a source stopped to feed an upload.
enum Fed {
    Source(Error),
    /// The exchange has ended and says why.
    NotTaken,
}

async fn feed(source: &Disk, sender: UploadSender, options: &UploadOptions) -> Result<(), Fed> {
    let zeros = Bytes::from(vec![0; ZEROS]);
    let not_taken = |_: io::Error| Fed::NotTaken;
    let mut told = None;
    let mut pieces = Pieces::of(source);
    while let Some(piece) = pieces.next().await.map_err(Fed::Source)? {
        let end = piece.range().end;
        match piece {
            Piece::Data { bytes, .. } => sender.send(bytes).await.map_err(not_taken)?,
            Piece::Zeros(range) => {
                let mut left = range.end - range.start;
                while left > 0 {
                    let part = zeros.slice(..left.min(ZEROS as u64) as usize);
                    left -= part.len() as u64;
                    sender.send(part).await.map_err(not_taken)?;
                }
            }
        }
        let percent = (u128::from(end) * 100 / u128::from(source.capacity().max(1))) as u8;
        if let Some(progress) = options.progress.as_ref().filter(|_| told != Some(percent)) {
            told = Some(percent);
            progress(percent);
        }
    }
    sender.finish().await.map_err(not_taken)
}

/// The descriptor of the new disk, with what the source says of itself.
async fn descriptor(flat: &DatastorePath, source: &Disk, options: &UploadOptions) -> Result<Vec<u8>> {
    let name = flat.to_string();
    let adapter = match &options.adapter {
        Some(adapter) => Some(adapter.clone()),
        None => source.info().await?.adapter_type.as_deref().map(AdapterType::from_name),
    };
    let hardware = match options.hardware_version {
        Some(version) => Some(version),
        None => source.metadata("virtualHWVersion").await?.and_then(|version| version.trim().parse().ok()),
    };
    let extent = ExtentLine::new(ExtentType::Vmfs, source.capacity() / vmdk::SECTOR, flat.file_name());
    let mut new = NewDescriptor::new(CreateType::Vmfs, vec![extent]);
    if let Some(adapter) = adapter {
        new = new.adapter(adapter);
    }
    if let Some(version) = hardware {
        new = new.hardware_version(version);
    }
    Ok(new.build().map_err(Error::file("describing", &name))?.to_bytes())
}

/// Files that go away again, unless the list is cleared.
pub(crate) struct Made {
    store: Datastore,
    pub(crate) files: Vec<DatastorePath>,
    /// A task has it already: a runtime that shuts down drops the task, and would drop the next one at once.
    in_background: bool,
}

impl Made {
    pub(crate) fn new(store: &Datastore) -> Self {
        Self { store: store.clone(), files: Vec::new(), in_background: false }
    }

    /// The files stay.
    pub(crate) fn keep(&mut self) {
        self.files.clear();
    }

    /// What was not removed when the future is dropped goes away in the background.
    pub(crate) async fn remove(&mut self) {
        while let Some(file) = self.files.last() {
            if !self.is_removed(file).await {
                tracing::warn!(%file, "a part of an upload stays behind");
            }
            self.files.pop();
        }
    }

    /// Deletes a file until it stays away: a server that has not noticed yet that its client is gone may be about to
    /// make it.
    async fn is_removed(&self, file: &DatastorePath) -> bool {
        let mut absent = 0;
        for _ in 0..REMOVALS {
            match self.store.delete(file).await {
                Ok(()) => tracing::info!(%file, "removed"),
                Err(error) if error.is_fault("FileNotFound") => {}
                Err(error) => tracing::debug!(%file, %error, "not removed yet"),
            }
            tokio::time::sleep(BETWEEN_REMOVALS).await;
            let there = !matches!(look_at(&self.store, file, None).await, Ok(None));
            absent = if there { 0 } else { absent + 1 };
            if absent == 2 {
                return true;
            }
        }
        false
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let files = std::mem::take(&mut self.files);
        match tokio::runtime::Handle::try_current().ok().filter(|_| !self.in_background) {
            Some(runtime) => {
                let mut rest = Self { store: self.store.clone(), files, in_background: true };
                drop(runtime.spawn(async move { rest.remove().await }));
            }
            None => tracing::warn!(?files, "the runtime has ended; parts of an upload stay behind"),
        }
    }
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions")
            .field("adapter", &self.adapter)
            .field("hardware_version", &self.hardware_version)
            .finish_non_exhaustive()
    }
}

/// Pieces on their way, of 4 MiB at most.
const DEPTH: usize = 2;

/// How often a part of an upload is removed, and how long after each time it is looked for.
const REMOVALS: u32 = 20;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(250);

/// Zeros that are sent at once.
const ZEROS: usize = 1 << 20;
