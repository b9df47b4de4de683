//! Into files that are written at random, and gone on with.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;
use vmdk::Disk;

use super::{
    FileFormat, ImageTarget, Restore, RestoreReport, RestoredDiskReport, image,
    transfer::{Prior, Target},
    workplace::{Record, Workplace},
};
use crate::{
    engine::{Budget, DiskTarget, RestoredDisk},
    error::{DiskError, Error, Result, in_one_line},
    repository::DiskReader,
    step::{Step, SteppedDisk},
    thread,
};

impl Restore {
    /// Restores one disk into a new file.
    ///
    /// The file is made in a folder beside it, its name with `.restoring`, and moved out when it is whole, durable and,
    /// with [`verify`](Self::verify), compared: no half file ever has its name. When the restore ends early, the folder
    /// stays with a record of how far it came, and the same restore goes on there: what lies below is compared by
    /// hashes and mended, above it is written. What the folder has of another point or disk is not believed but
    /// removed. Whoever does not want to go on removes the folder.
    ///
    /// [`FileFormat::VmdkStreamOptimized`] begins again: such a file is known to be right only by unpacking all of it,
    /// which costs what packing it anew does. After an error its folder is removed.
    ///
    /// # Errors
    /// [`Error::DiskNotFound`]; [`Error::File`], also when the file exists and [`overwrite`](Self::overwrite) does not
    /// allow to replace it, and when another restore makes it now; otherwise as [`to_vm`](Self::to_vm).
    ///
    /// # Cancel safety
    /// When dropped, the folder stays; run it again.
    pub async fn to_file(self, key: i32, path: impl Into<PathBuf>, format: FileFormat) -> Result<RestoreReport> {
        let path = path.into();
        if format == FileFormat::VmdkStreamOptimized {
            return self.to_stream(key, path).await;
        }
        let begun = Instant::now();
        let pin = self.hold().await?;
        let done = self.image_of(key, &path, format).await;
        if let Some(pin) = pin {
            pin.release().await;
        }
        let (capacity, (bytes, verified)) = done?;
        let elapsed = begun.elapsed();
        let report = RestoredDiskReport { key, capacity, bytes, verified, transport: "file".into(), elapsed };
        Ok(RestoreReport { disks: vec![report], elapsed })
    }

    /// Removes a folder with nothing in it that can be gone on with.
    pub(super) fn discard(&self, place: &Workplace) {
        if let Err(error) = place.discard() {
            self.events.warn(format!("an incomplete file stays: {}", in_one_line(&error)));
        }
    }

    /// Makes the image and gives it its name.
    async fn image_of(&self, key: i32, path: &Path, format: FileFormat) -> Result<(u64, (RestoredDisk, bool))> {
        let reader = self.point.disk(key).await?;
        let capacity = reader.capacity();
        let place = Arc::new(Workplace::open(path, format.others(path), self.overwrite).await?);
        let work = Record::new(self.point.repository(), self.point.id(), key, capacity, format.name());
        let mut making = Making::begin(&place, work, format).await?;
        let done = self.write_image(&mut making, &reader).await;
        if done.is_err() {
            // How far it came, as far as that is durable; with nothing to go on with, nothing stays.
            match making.keep().await {
                Ok(true) => {}
                Ok(false) => self.discard(&place),
                Err(error) => {
                    self.events.warn(format!("the restore goes on from further below: {}", in_one_line(&error)));
                }
            }
            return done.map(|done| (capacity, done));
        }
        let record = making.finish().await?;
        thread::run("naming a file", move || place.place(Some(&record))).await??;
        done.map(|done| (capacity, done))
    }

    /// Writes all that is missing.
    async fn write_image(&self, making: &mut Making, reader: &DiskReader) -> Result<(RestoredDisk, bool)> {
        let steps = self.steps(&making.place.path().display().to_string());
        let from = making.record.position;
        let image = making.image.clone();
        let open = async {
            match making.resumed {
                true => image.holes().await.map_err(|error| making.wrong("looking for holes", error)),
                false => Ok(Vec::new()),
            }
        };
        let holes = steps.once(Step::OpenDisk, open).await?;
        let reason = if making.resumed { format!("into a file, from byte {from} on") } else { "into a file".into() };
        self.started(reader.record(), &reason, "file");
        let (reached, further) = (making.reached.clone(), Notify::new());
        let on_position = |position| {
            reached.store(position, Ordering::Relaxed);
            further.notify_one();
        };
        let target = if making.resumed { Target::Begun } else { Target::New };
        let prior = Prior { target, areas: None, holes, below: from, on_position: Some(&on_position) };
        let (budget, target) = (Budget::new(self.memory), SteppedDisk::new(reader.record().key, &image, &steps));
        let done = tokio::select! {
            biased;
            done = self.one(reader, &target, &prior, &budget) => done?,
            never = making.note_positions(&further) => match never? {},
        };
        Ok(done)
    }
}

/// An image that is being made.
struct Making {
    place: Arc<Workplace>,
    disk: Arc<Disk>,
    image: ImageTarget,
    record: Record,
    /// Whether an earlier restore began it.
    resumed: bool,
    reached: Arc<AtomicU64>,
}

impl Making {
    /// Opens what an earlier restore left, or begins anew.
    async fn begin(place: &Arc<Workplace>, work: Record, format: FileFormat) -> Result<Self> {
        let (path, capacity) = (place.path(), work.capacity);
        let mut begun = None;
        if let Some(left) = place.resume(&work) {
            match image::reopen(path.clone(), format).await {
                Ok(disk) if disk.capacity() == capacity => begun = Some((disk, Record { placing: false, ..left })),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "an incomplete file is not gone on with");
                }
            }
        }
        let resumed = begun.is_some();
        let (disk, record) = match begun {
            Some(begun) => begun,
            None => {
                place.clear()?;
                (image::create(path, format, capacity).await?, work)
            }
        };
        let (place, disk) = (place.clone(), Arc::new(disk));
        let image = ImageTarget::new(disk.clone()).holding(place.lock());
        let reached = Arc::new(AtomicU64::new(record.position));
        let made = Self { place, disk, image, record, resumed, reached };
        made.note(&made.record).await?;
        Ok(made)
    }

    /// Notes positions now and then, once all below them is durable.
    ///
    /// # Errors
    /// Those of the file. One that says that writes were lost is said once only, and must end the restore.
    async fn note_positions(&mut self, further: &Notify) -> Result<Infallible> {
        loop {
            further.notified().await;
            if self.reached.load(Ordering::Relaxed) >= self.record.position.saturating_add(STEP) {
                self.advance().await?;
            }
        }
    }

    /// Makes durable what is written, and notes how far that is.
    async fn advance(&mut self) -> Result<()> {
        let position = self.reached.load(Ordering::Relaxed);
        self.image.flush().await.map_err(|error| self.wrong("flushing", error))?;
        let record = Record { position, ..self.record.clone() };
        self.note(&record).await?;
        self.record = record;
        Ok(())
    }

    /// Notes how far it came; tells whether there is anything to go on with.
    async fn keep(mut self) -> Result<bool> {
        if self.reached.load(Ordering::Relaxed) > self.record.position {
            self.advance().await?;
        }
        Ok(self.record.position > 0)
    }

    /// Closes the image, which is whole.
    async fn finish(self) -> Result<Record> {
        let Self { place, disk, image: open, record, .. } = self;
        drop(open);
        image::close(disk, place.path()).await?;
        Ok(Record { position: record.capacity, ..record })
    }

    async fn note(&self, record: &Record) -> Result<()> {
        let (place, record) = (self.place.clone(), record.clone());
        thread::run("noting a position", move || place.note(&record)).await?
    }

    fn wrong(&self, operation: &'static str, error: DiskError) -> Error {
        Error::Disk { operation, disk: self.record.disk, offset: 0, len: 0, source: error }
    }
}

/// A position is noted anew after so many bytes: what is written is made durable for it.
const STEP: u64 = 64 << 20;
