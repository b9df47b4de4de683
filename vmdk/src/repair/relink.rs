//! Making the content ids of a chain agree again, by the owner's word that the parents are the right ones.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::{
    create::parent_hint,
    descriptor::{Cid, Descriptor},
    disk::{MAX_LINKS, PathPolicy},
    error::{ChainProblem, Error, Result},
    upkeep::OwnFiles,
};

/// A plan to re-link the disks of a chain on the local file system.
///
/// A child says which content its parent had. When the parent was touched by mistake, but reads as it did (a descriptor
/// edited, a disk opened and closed), the chain is refused though it is sound; this makes it open again. When the
/// parent's **data** were changed, nothing can help: the child then shows a mix of two disks, and re-linking only hides
/// that.
#[derive(Debug)]
#[must_use]
pub struct Relink {
    changes: Vec<(OwnFiles, RelinkedLink)>,
}

/// One link that is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelinkedLink {
    /// The child.
    pub link: PathBuf,
    /// Its parent.
    pub parent: PathBuf,
    /// The content id that it wants now.
    pub wanted: Cid,
    /// The content id that the parent has, and that it will want.
    pub found: Cid,
    /// `parentFileNameHint` as it will be, where that changes.
    pub hint: Option<String>,
}

impl Relink {
    /// Plans for the chain of the disk at `path`: every child takes the content id that its parent has. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when a link is not there, [`Error::Malformed`], [`Error::PathRefused`], and [`Error::Chain`] for a
    /// chain without an end or a link that does not name its parent.
    pub fn plan(path: impl AsRef<Path>, paths: PathPolicy) -> Result<Self> {
        let mut changes = Vec::new();
        let mut link = OwnFiles::read(path.as_ref(), paths)?;
        let mut seen = HashSet::from([identity(&link.path)?]);
        while link.is_child()? {
            let broken = |problem| Error::Chain { object: link.path.display().to_string(), problem };
            let wanted = link.descriptor.parent_cid()?;
            let parent = named_parent(&link, paths)?;
            if !seen.insert(identity(&parent)?) {
                return Err(broken(ChainProblem::Cycle { file: parent }));
            }
            if seen.len() > MAX_LINKS {
                return Err(broken(ChainProblem::TooDeep { limit: MAX_LINKS }));
            }
            let parent = OwnFiles::read(&parent, paths)?;
            let found = parent.descriptor.cid()?;
            let child = std::mem::replace(&mut link, parent);
            if found != wanted {
                let change =
                    RelinkedLink { link: child.path.clone(), parent: link.path.clone(), wanted, found, hint: None };
                changes.push((child, change));
            }
        }
        Ok(Self { changes })
    }

    /// Plans to give the disk at `child` the parent at `parent`, which need not be the one it names now.
    ///
    /// # Errors
    /// As [`Relink::plan`], and [`Error::InvalidInput`] when `child` is no child, or smaller than `parent`;
    /// [`Error::Chain`] when it is an ancestor of `parent`, or the chain under that is broken.
    pub fn to_parent(child: impl AsRef<Path>, parent: impl AsRef<Path>, paths: PathPolicy) -> Result<Self> {
        let child = OwnFiles::read(child.as_ref(), paths)?;
        let parent = OwnFiles::read(parent.as_ref(), paths)?;
        if !child.is_child()? {
            let problem = format!("{} is a base disk: all its data are its own", child.path.display());
            return Err(Error::invalid("child", problem));
        }
        if identity(&child.path)? == identity(&parent.path)? {
            return Err(Error::invalid("parent", "a disk cannot be its own parent"));
        }
        let (size, parent_size) = (child.descriptor.capacity()?, parent.descriptor.capacity()?);
        if parent_size > size {
            return Err(Error::invalid("parent", format!("it has {parent_size} bytes, the child {size}")));
        }
        refuse_ancestor(&child, &parent, paths)?;
        let (wanted, found) = (child.descriptor.parent_cid()?, parent.descriptor.cid()?);
        let hint = parent_hint(&parent.path, &child.path, paths)?;
        let is_same = child.descriptor.parent_file_name_hint()?.as_deref() == Some(&*hint);
        let mut changes = Vec::new();
        if wanted != found || !is_same {
            let hint = Some(hint).filter(|_| !is_same);
            let change = RelinkedLink { link: child.path.clone(), parent: parent.path, wanted, found, hint };
            changes.push((child, change));
        }
        Ok(Self { changes })
    }

    /// What would be changed, the disk itself first; empty when all agree.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = &RelinkedLink> {
        self.changes.iter().map(|(_, change)| change)
    }

    /// Writes the changed descriptors, base first: after each the chain is whole up to there. A text descriptor is
    /// replaced as a whole, an embedded one written over in one piece.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::InvalidInput`] when an embedded descriptor has no room for the parent's name.
    pub fn apply(&self) -> Result<()> {
        for (files, change) in self.changes.iter().rev() {
            let mut descriptor: Descriptor = files.descriptor.clone();
            descriptor.set_value("parentCID", &change.found.to_string())?;
            if let Some(hint) = &change.hint {
                descriptor.set_value("parentFileNameHint", hint)?;
            }
            files.store(&descriptor)?;
        }
        Ok(())
    }
}

/// The file that a child names as its parent.
fn named_parent(link: &OwnFiles, paths: PathPolicy) -> Result<PathBuf> {
    let wanted = link.descriptor.parent_cid()?;
    let hint = link.descriptor.parent_file_name_hint()?.ok_or_else(|| Error::Chain {
        object: link.path.display().to_string(),
        problem: ChainProblem::NoParentHint { wanted },
    })?;
    paths.locate(&link.path, &hint)
}

/// Refuses a parent whose chain leads back to the child.
fn refuse_ancestor(child: &OwnFiles, parent: &OwnFiles, paths: PathPolicy) -> Result<()> {
    let broken = |problem| Error::Chain { object: child.path.display().to_string(), problem };
    let mut seen = HashSet::from([identity(&child.path)?, identity(&parent.path)?]);
    let mut next = if parent.is_child()? { Some(named_parent(parent, paths)?) } else { None };
    while let Some(file) = next {
        if !seen.insert(identity(&file)?) {
            return Err(broken(ChainProblem::Cycle { file }));
        }
        if seen.len() > MAX_LINKS {
            return Err(broken(ChainProblem::TooDeep { limit: MAX_LINKS }));
        }
        let link = OwnFiles::read(&file, paths)?;
        next = if link.is_child()? { Some(named_parent(&link, paths)?) } else { None };
    }
    Ok(())
}

fn identity(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::io("resolve", path.display().to_string(), None, error))
}
