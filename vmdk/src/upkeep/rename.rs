//! Renaming a disk with all its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{own_files::OwnFiles, unlink::refuse_devices};
use crate::{
    create::{file_name, parent_hint, stem, sync_directory},
    descriptor::Descriptor,
    disk::PathPolicy,
    error::{Error, Result},
};

/// Renames the disk at `from`, with its extents and its change tracking file, to `to` in the same file system.
///
/// Files called after the disk are called after its new name; others keep theirs. The descriptor is rewritten, also
/// where the parent of a child is seen from another directory. Children of the disk are not: they name their parent
/// by its old path.
///
/// All files get their new names before the first loses its old one: a crash leaves the disk under one name or the
/// other, at worst with names of both. File systems without hard links have one name at a time; there a crash in
/// between must be cleaned up by hand.
///
/// # Errors
/// [`Error::Io`] with [`io::ErrorKind::AlreadyExists`] when one of the new files exists, [`Error::PathRefused`] for
/// extents outside of the disk's directory and parents outside of the new one; [`Error::InvalidInput`] as for
/// [`unlink`](super::unlink()). After a failure the disk has its old name.
#[doc(alias = "VixDiskLib_Rename")]
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>, paths: PathPolicy) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let own = OwnFiles::read(from, paths)?;
    refuse_devices(&own)?;
    let names = Names { from, to, old: stem(file_name(from)?), new: stem(file_name(to)?) };
    let descriptor = names.descriptor(&own, paths)?;
    let mut moves = Moves::default();
    for file in own.extent_files() {
        moves.add(file, &names.moved(file)?)?;
    }
    if let Some(name) = own.descriptor.change_track_path()? {
        let track = paths.locate(from, &name)?;
        if track.exists() {
            moves.add(&track, &names.moved(&track)?)?;
        }
    }
    // From here on the new files are the disk; their old names are removed.
    if own.embedded.is_some() {
        moves.add(from, to)?;
        OwnFiles { path: to.to_owned(), ..own }.store(&descriptor)?;
    } else {
        moves.write(to, &descriptor.to_bytes())?;
        moves.old.push(from.to_owned());
    }
    // On stable storage too, before the old names go.
    sync_directory(to);
    moves.finish();
    sync_directory(from);
    Ok(())
}

/// Old and new names of a disk.
struct Names<'a> {
    from: &'a Path,
    to: &'a Path,
    old: &'a str,
    new: &'a str,
}

impl Names<'_> {
    /// The descriptor with the new names.
    fn descriptor(&self, own: &OwnFiles, paths: PathPolicy) -> Result<Descriptor> {
        let mut descriptor = own.descriptor.clone();
        let mut extents = descriptor.extents()?;
        for line in &mut extents {
            line.file_name = line.file_name.as_deref().map(|name| self.renamed(name));
        }
        descriptor.set_extents(&extents)?;
        let track = descriptor.change_track_path()?.map(|name| self.renamed(&name));
        if let Some(name) = track {
            descriptor.set_value("changeTrackPath", &name)?;
        }
        let hint = descriptor.parent_file_name_hint()?.map(|hint| hint.into_owned());
        let is_moved = self.from.parent() != self.to.parent();
        if let Some(hint) =
            hint.filter(|hint| is_moved && own.is_child().unwrap_or(true) && !Path::new(hint).has_root())
        {
            let parent = paths.locate(self.from, &hint)?;
            descriptor.set_value("parentFileNameHint", &parent_hint(&parent, self.to, paths)?)?;
        }
        Ok(descriptor)
    }

    /// Where a file of the disk goes.
    fn moved(&self, file: &Path) -> Result<PathBuf> {
        if file.parent() != self.from.parent() {
            let (object, name) = (self.from.display().to_string(), file.display().to_string());
            let reason = "only files next to the descriptor are renamed with it";
            return Err(Error::PathRefused { object, name, reason });
        }
        Ok(self.to.with_file_name(self.renamed(file_name(file)?)))
    }

    /// A name that begins like the disk's is called after the new one.
    fn renamed(&self, name: &str) -> String {
        match name.strip_prefix(self.old) {
            Some(rest) if rest.starts_with(['-', '.']) || rest.is_empty() => format!("{}{rest}", self.new),
            _ => name.to_owned(),
        }
    }
}

/// Files that have their new names; taken back when dropped before the end.
#[derive(Default)]
struct Moves {
    /// Names to remove at the end.
    old: Vec<PathBuf>,
    /// Names to remove after a failure.
    linked: Vec<PathBuf>,
    /// Files to move back after a failure, from and to.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Moves {
    fn add(&mut self, from: &Path, to: &Path) -> Result<()> {
        if from == to {
            return Ok(());
        }
        match fs::hard_link(from, to) {
            Ok(()) => {
                self.linked.push(to.to_owned());
                self.old.push(from.to_owned());
                Ok(())
            }
            Err(error) if is_unsupported(&error) => self.move_alone(from, to),
            Err(error) => Err(Error::io("rename", format!("{} to {}", from.display(), to.display()), None, error)),
        }
    }

    /// For file systems without hard links.
    fn move_alone(&mut self, from: &Path, to: &Path) -> Result<()> {
        let object = || format!("{} to {}", from.display(), to.display());
        if to.exists() {
            return Err(Error::io("rename", object(), None, io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(from, to).map_err(|error| Error::io("rename", object(), None, error))?;
        self.moved.push((to.to_owned(), from.to_owned()));
        Ok(())
    }

    fn write(&mut self, to: &Path, bytes: &[u8]) -> Result<()> {
        let failed = |error| Error::io("create", to.display().to_string(), None, error);
        let mut file = fs::File::options().write(true).create_new(true).open(to).map_err(failed)?;
        self.linked.push(to.to_owned());
        io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()).map_err(failed)
    }

    fn finish(mut self) {
        self.linked.clear();
        self.moved.clear();
        for file in self.old.drain(..).rev() {
            // The disk is whole under its new name; an old name that stays is only a name.
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        for file in &self.linked {
            let _ = fs::remove_file(file);
        }
        for (from, to) in self.moved.iter().rev() {
            let _ = fs::rename(from, to);
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    // FAT says EPERM.
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks)
}
