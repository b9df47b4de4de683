//! Copying the files of a link, holes included, before they are repaired.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::open;
use crate::{
    check::CheckOptions,
    copy::{CopyOptions, copy},
    create::NewFiles,
    descriptor::{Descriptor, ExtentType},
    disk::{Access, Disk, read_descriptor},
    error::{Error, Result},
    layout::Magic,
    source::{FileSource, Handle},
};

/// Copies the link at `path` into `directory` and does `then` with the copy; after a failure nothing stays.
pub(super) fn copy_link<T>(
    path: &Path,
    options: &CheckOptions,
    directory: &Path,
    then: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let base = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().ok_or_else(|| Error::invalid("path", format!("{} has no name", path.display())))?;
    let target = directory.join(name);
    let mut made = NewFiles::default();
    for file in link_files(path, options)? {
        // A file that the descriptor names somewhere else has no place in the copy.
        let relative = file.strip_prefix(base).ok().filter(|relative| stays_below(relative)).ok_or_else(|| {
            let reason = "the copy could not name it: repair it in place";
            Error::not_supported(path.display().to_string(), format!("the extent {}", file.display()), reason)
        })?;
        let to = directory.join(relative);
        if let Some(parent) = to.parent() {
            let made = fs::create_dir_all(parent);
            made.map_err(|error| Error::io("create", parent.display().to_string(), None, error))?;
        }
        copy_file(&file, &to, options, &mut made)?;
    }
    made.keep(|| then(&target), &target)
}

fn stays_below(relative: &Path) -> bool {
    relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// All files of a link, its own first.
fn link_files(path: &Path, options: &CheckOptions) -> Result<Vec<PathBuf>> {
    let backing = open(path, options, Access::ReadOnly)?;
    let mut files = vec![path.to_owned()];
    let mut start = vec![0; backing.len()?.min(4096) as usize];
    backing.read(0, &mut start)?;
    if Magic::of(&start).is_some() || !Descriptor::probe(&start) {
        return Ok(files);
    }
    for line in read_descriptor(&backing, 0, backing.len()?)?.extents()? {
        let Some(name) = line.file_name.filter(|_| line.kind != ExtentType::Zero) else { continue };
        let file = options.paths.locate(path, &name)?;
        if !files.contains(&file) {
            files.push(file);
        }
    }
    Ok(files)
}

fn copy_file(from: &Path, to: &Path, options: &CheckOptions, made: &mut NewFiles) -> Result<()> {
    let source = open(from, options, Access::ReadOnly)?;
    made.create(to)?.set_len(source.len()?)?;
    let failed = |error| Error::io("open", to.display().to_string(), None, error);
    let target = FileSource::open_rw(to).map_err(failed)?;
    let target = Disk::from_source(to.display().to_string(), Handle::ReadWrite(Arc::new(target)))?;
    let source = Disk::from_source(from.display().to_string(), source.into_handle())?;
    copy(&source, &target, &CopyOptions::new())?;
    target.flush()
}
