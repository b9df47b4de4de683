//! Removing a disk with all its files.

use std::{fs, io, path::Path};

use super::own_files::OwnFiles;
use crate::{
    create::sync_directory,
    descriptor::ExtentType,
    disk::PathPolicy,
    error::{Error, Result},
};

/// Removes the disk at `path`: its extents, its change tracking file, and at last its descriptor.
///
/// Parents stay; children, which nobody can find from here, are left without a parent. Files that are missing already
/// are no failure, so that a removal that was interrupted can be repeated.
///
/// # Errors
/// [`Error::InvalidInput`] for a file that is no descriptor and holds none, [`Error::PathRefused`] for a descriptor
/// that names files elsewhere, [`Error::NotSupported`] for extents on devices; nothing is removed then.
/// [`Error::Io`] when a file cannot be removed.
#[doc(alias = "VixDiskLib_Unlink")]
pub fn unlink(path: impl AsRef<Path>, paths: PathPolicy) -> Result<()> {
    let path = path.as_ref();
    let own = OwnFiles::read(path, paths)?;
    refuse_devices(&own)?;
    let track = own.descriptor.change_track_path()?.map(|name| paths.locate(path, &name)).transpose()?;
    for file in own.extent_files().into_iter().chain(track.as_deref()) {
        remove(file)?;
    }
    // Last: as long as there is a file, there is a descriptor that names it.
    remove(path)?;
    sync_directory(path);
    Ok(())
}

/// Refuses disks whose bytes are on devices: their names must not be removed from `/dev`.
pub(super) fn refuse_devices(own: &OwnFiles) -> Result<()> {
    for (line, file) in &own.extents {
        let is_special = |file: &Path| fs::metadata(file).is_ok_and(|found| !found.is_file());
        if matches!(line.kind, ExtentType::VmfsRaw) || file.as_deref().is_some_and(is_special) {
            let format = format!("the extent {line}");
            let object = own.path.display().to_string();
            return Err(Error::not_supported(object, format, "it is no file of the disk alone"));
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path.display().to_string(), None, error))
        }
        _ => Ok(()),
    }
}
