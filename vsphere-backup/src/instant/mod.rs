//! Instant access: a disk of a recovery point as a [`vixdisklib::Disk`], to be read at once or to be written over
//! without changing the point.
//!
//! ```no_run
//! # async fn example(point: vsphere_backup::repository::RecoveryPoint) -> Result<(), Box<dyn std::error::Error>> {
//! use vsphere_backup::{FileFormat, instant::{InstantOptions, Overlay}};
//!
//! let disk = point.open_disk(2000, InstantOptions::copy_on_write(Overlay::Folder("/var/tmp".into()))).await?;
//! // Serve it: `vixdisklib::nbd::NbdServer::bind("/run/web.sock").export("web", disk.disk().clone())`.
//! disk.disk().write_at(0, vec![0; 512].into()).await?;
//! disk.export("web-mended.vmdk", FileFormat::VmdkSparse).await?;
//! disk.close().await?;
//! # Ok(())
//! # }
//! ```

mod blocks;
mod chunks;
mod disk;
mod overlay;

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use vixdisklib::{Access, Disk};

pub use self::overlay::Overlay;
use self::{
    chunks::Chunks,
    disk::{Backend, Layers},
    overlay::Changes,
};
use crate::{
    cancel::CancelToken,
    engine::DiskTarget,
    error::{DiskError, Error, Result},
    repository::RecoveryPoint,
    restore::{FileFormat, NewImage},
};

/// How a disk of a recovery point is opened.
#[derive(Clone, Debug)]
#[must_use]
pub struct InstantOptions {
    overlay: Option<Overlay>,
    cache: u64,
    pin: bool,
    cancel: CancelToken,
}

impl InstantOptions {
    /// For reading.
    pub fn read_only() -> Self {
        Self { overlay: None, cache: 32 << 20, pin: true, cancel: CancelToken::new() }
    }

    /// For reading and writing; what is written goes into the overlay, never into the point.
    pub fn copy_on_write(overlay: Overlay) -> Self {
        Self { overlay: Some(overlay), ..Self::read_only() }
    }

    /// Sets how many bytes of the point are kept in memory: 32 MiB by default, at least 8 chunks.
    pub fn cache(mut self, bytes: u64) -> Self {
        self.cache = bytes;
        self
    }

    /// States whether the point is [pinned](RecoveryPoint::pin) while the disk is open: yes by default. A repository
    /// that cannot be written to takes no pins.
    pub fn pin(mut self, yes: bool) -> Self {
        self.pin = yes;
        self
    }

    /// Lets a token end all reads of the point, with an error.
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }
}

/// An open disk of a recovery point.
///
/// The [disk](Self::disk) may be shared, and lives until its last owner drops it; what was written lives as long.
pub struct InstantDisk {
    disk: Arc<Disk>,
    layers: Arc<Layers>,
    name: String,
}

impl RecoveryPoint {
    /// Opens a disk of the point as if it were a disk of `vixdisklib`: for the NBD server, for `vixmntapi`, for copies.
    ///
    /// Every chunk is checked before a byte of it is returned; damage is an error of the read that meets it.
    ///
    /// # Errors
    /// [`Error::DiskNotFound`], [`Error::Storage`], [`Error::PointNotFound`] when it was deleted meanwhile;
    /// [`Error::File`] when the overlay's file cannot be made.
    ///
    /// # Cancel safety
    /// When dropped, nothing stays open.
    pub async fn open_disk(&self, key: i32, options: InstantOptions) -> Result<InstantDisk> {
        let pin = match options.pin {
            true => Some(self.pin().await?),
            false => None,
        };
        let reader = self.disk(key).await?;
        let capacity = reader.capacity();
        let changes = match options.overlay {
            None => None,
            Some(overlay) => {
                let made = overlay.clone();
                let made = tokio::task::spawn_blocking(move || Changes::new(&made, capacity)).await;
                let made = made.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                Some(made.map_err(|error| Error::File {
                    operation: "creating an overlay in",
                    path: match overlay {
                        Overlay::Folder(folder) => folder,
                        Overlay::Memory { .. } => PathBuf::new(),
                    },
                    source: error.into(),
                })?)
            }
        };
        let access = if changes.is_some() { Access::ReadWrite } else { Access::ReadOnly };
        let layers =
            Arc::new(Layers { point: Chunks::new(reader, options.cache), changes, pin, cancel: options.cancel });
        let name = format!("disk {key} of {}", self.id());
        let disk = Disk::from_backend(&name, access, Box::new(Backend(Arc::clone(&layers))));
        Ok(InstantDisk { disk: Arc::new(disk), layers, name })
    }
}

impl InstantDisk {
    /// The disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The parts that were written or zeroed, in blocks of 4096 bytes.
    pub fn changed(&self) -> Vec<Range<u64>> {
        let whole = 0..self.disk.capacity();
        self.layers.changes.as_ref().map(|changes| changes.changed(&whole)).unwrap_or_default()
    }

    /// How many bytes the overlay keeps.
    pub fn overlay_bytes(&self) -> u64 {
        self.layers.changes.as_ref().map_or(0, Changes::kept)
    }

    /// Drops what was written: the disk is the point's again.
    ///
    /// # Errors
    /// [`Error::Disk`] when the overlay's file fails.
    ///
    /// # Cancel safety
    /// When dropped, call it again.
    pub async fn discard_changes(&self) -> Result<()> {
        let Some(changes) = &self.layers.changes else { return Ok(()) };
        let _alone = changes.partial.write().await;
        changes.reset().await.map_err(|error| self.failed("resetting", 0..0, DiskError::new(error)))
    }

    /// Writes the disk as it is now, point and changes, into a new file.
    ///
    /// Writes meanwhile may or may not be in it. It is made in a folder beside it, its name with `.restoring`, and moved
    /// out when it is whole and durable: no half file ever has its name.
    ///
    /// # Errors
    /// [`Error::File`], also when the file exists, and when somebody else makes it; [`Error::Disk`]; [`Error::Invalid`] for
    /// [`FileFormat::VmdkStreamOptimized`]. After an error nothing is left.
    ///
    /// # Cancel safety
    /// When dropped, the folder stays; the next export to that name begins again in it.
    pub async fn export(&self, path: impl Into<PathBuf>, format: FileFormat) -> Result<()> {
        let image = NewImage::create(&path.into(), format, self.disk.capacity()).await?;
        let made = self.copy_to(image.target()).await;
        image.end(made).await
    }

    /// Copies what is not a hole, and flushes.
    async fn copy_to(&self, target: &dyn DiskTarget) -> Result<()> {
        let capacity = self.disk.capacity();
        let areas = self.disk.allocated(0..capacity).await;
        let areas = areas.map_err(|error| self.failed("mapping", 0..capacity, crate::server::disk_error(error)))?.areas;
        for area in areas {
            for start in area.clone().step_by(PIECE as usize) {
                let piece = start..area.end.min(start + PIECE);
                let read = self.disk.read_at(piece.start, (piece.end - piece.start) as usize).await;
                let bytes =
                    read.map_err(|error| self.failed("reading", piece.clone(), crate::server::disk_error(error)))?;
                target.write_at(piece.start, bytes).await.map_err(|error| self.failed("exporting", piece, error))?;
            }
        }
        target.flush().await.map_err(|error| self.failed("flushing the export of", 0..capacity, error))
    }

    /// Closes the disk, drops what was written, and gives the pin back, unless the disk has other owners: then that
    /// happens when the last of them drops it.
    ///
    /// # Errors
    /// [`Error::Disk`].
    ///
    /// # Cancel safety
    /// When dropped, the pin is given back in the background.
    pub async fn close(self) -> Result<()> {
        let Self { disk, layers, .. } = self;
        let key = layers.point.reader().record().key;
        if let Some(disk) = Arc::into_inner(disk) {
            disk.close().await.map_err(|error| Error::Disk {
                operation: "closing",
                disk: key,
                offset: 0,
                len: 0,
                source: crate::server::disk_error(error),
            })?;
        }
        if let Some(pin) = Arc::into_inner(layers).and_then(|layers| layers.pin) {
            pin.release().await;
        }
        Ok(())
    }

    fn failed(&self, operation: &'static str, range: Range<u64>, source: DiskError) -> Error {
        let disk = self.layers.point.reader().record().key;
        Error::Disk { operation, disk, offset: range.start, len: range.end - range.start, source }
    }
}

impl fmt::Debug for InstantDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstantDisk")
            .field("name", &self.name)
            .field("capacity", &self.disk.capacity())
            .field("overlay_bytes", &self.overlay_bytes())
            .finish_non_exhaustive()
    }
}

/// What is copied at once by an export, in bytes.
const PIECE: u64 = 4 << 20;
