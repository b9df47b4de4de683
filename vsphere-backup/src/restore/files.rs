//! Into files.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use super::{FileFormat, ImageTarget, Restore, RestoreReport, RestoredDiskReport, transfer::Prior};
use crate::{
    engine::Budget,
    error::{Error, Result},
};

impl Restore {
    /// Restores one disk into a new file.
    ///
    /// # Errors
    /// [`Error::DiskNotFound`]; [`Error::File`], also when the file exists and
    /// [`overwrite`](Self::overwrite) does not allow to replace it; otherwise as
    /// [`to_vm`](Self::to_vm). After an error the file is removed.
    ///
    /// # Cancel safety
    /// When dropped, an incomplete file stays.
    pub async fn to_file(self, key: i32, path: impl Into<PathBuf>, format: FileFormat) -> Result<RestoreReport> {
        let (begun, path) = (Instant::now(), path.into());
        if format == FileFormat::VmdkStreamOptimized {
            return self.to_stream(key, path).await;
        }
        let pin = self.hold().await?;
        let reader = self.point.disk(key).await?;
        if self.overwrite {
            remove(&path, format)?;
        }
        let target = ImageTarget::create(path.clone(), format, reader.capacity()).await?;
        self.started(reader.record(), "into a file", "file");
        let budget = Budget::new(self.memory);
        let done = self.one(&reader, &target, &Prior::NEW, &budget).await;
        drop(target);
        let (bytes, verified) = match done {
            Ok(done) => done,
            Err(error) => {
                if let Err(left) = remove(&path, format) {
                    self.events.warn(format!("an incomplete image stays: {left}"));
                }
                return Err(error);
            }
        };
        if let Some(pin) = pin {
            pin.release().await;
        }
        let report = RestoredDiskReport {
            key,
            capacity: reader.capacity(),
            bytes,
            verified,
            transport: "file".into(),
            elapsed: begun.elapsed(),
        };
        Ok(RestoreReport { disks: vec![report], elapsed: begun.elapsed() })
    }
}

/// Removes an image's files, if they are there.
fn remove(path: &Path, format: FileFormat) -> Result<()> {
    let mut files = vec![path.to_owned()];
    if format == FileFormat::VmdkFlat {
        let mut flat = path.file_stem().unwrap_or_default().to_owned();
        flat.push("-flat.vmdk");
        files.push(path.with_file_name(flat));
    }
    for file in files {
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::File { operation: "removing an image", path: file, source: error.into() });
            }
        }
    }
    Ok(())
}
