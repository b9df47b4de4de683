//! The links of a chain: which file is whose parent, and whether their content ids agree.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use super::{
    CheckOptions,
    extents::LinkFacts,
    problem::Problem,
    report::{Place, Report},
};
use crate::{
    descriptor::Cid,
    disk::{Access, MAX_LINKS},
    error::{Error, Result},
    extent::Backing,
};

/// A check under way.
pub(super) struct Checker<'a> {
    pub(super) options: &'a CheckOptions,
    pub(super) report: Report,
    /// Extent files that were walked, so that a descriptor cannot have one file checked a thousand times.
    pub(super) walked: HashSet<PathBuf>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(options: &'a CheckOptions) -> Self {
        Self { options, report: Report::new(options.findings_per_kind), walked: HashSet::new() }
    }

    pub(super) fn finish(self) -> Report {
        self.report
    }

    /// Checks the link at `path` and those under it.
    pub(super) fn chain(&mut self, path: &Path) -> Result<()> {
        let mut links = HashSet::from([self.identity(path)?]);
        let mut name = path.to_owned();
        let mut backing = self.open(path)?;
        let mut facts = self.link(&name, &backing)?;
        while let Some((wanted, parent)) = self.parent(&name, &facts, links.len())? {
            if !links.insert(self.identity(&parent)?) {
                let detail = format!("{} appears twice", parent.display());
                self.report.add(Problem::Cycle, &name.display().to_string(), Place::default(), detail);
                return Ok(());
            }
            backing = self.open(&parent)?;
            let found = self.link(&parent, &backing)?;
            self.compare(&name, wanted, &facts, &parent, &found);
            (name, facts) = (parent, found);
        }
        Ok(())
    }

    /// The file of the parent and the content id that it must have; `None` at the end of the chain and where it
    /// cannot be followed.
    fn parent(&mut self, link: &Path, facts: &LinkFacts, depth: usize) -> Result<Option<(Cid, PathBuf)>> {
        let name = link.display().to_string();
        if self.options.single_link || facts.parent_cid == Cid::NONE {
            return Ok(None);
        }
        let Some(hint) = &facts.hint else {
            let detail = format!("its parentCID is {}", facts.parent_cid);
            self.report.add(Problem::NoParentHint, &name, Place::default(), detail);
            return Ok(None);
        };
        if depth >= MAX_LINKS {
            self.report.add(Problem::TooDeep, &name, Place::default(), format!("more than {MAX_LINKS} links"));
            return Ok(None);
        }
        let Some(parent) = self.locate(link, hint) else { return Ok(None) };
        match self.options.resolver.open(&parent, Access::ReadOnly) {
            Ok(_) => Ok(Some((facts.parent_cid, parent))),
            Err(error) => self.missing(&name, &parent, error).map(|()| None),
        }
    }

    fn compare(&mut self, child: &Path, wanted: Cid, facts: &LinkFacts, parent: &Path, found: &LinkFacts) {
        let name = child.display().to_string();
        let place = Place::default();
        match found.cid {
            Some(cid) if cid == wanted => {}
            Some(cid) => {
                let detail = format!("it wants a parent with content id {wanted}, but {} has {cid}", parent.display());
                self.report.add(Problem::CidMismatch, &name, place, detail);
            }
            // What is wrong with the parent's descriptor was said already, but a raw file has none.
            None => {
                let detail = format!("{} has no content id", parent.display());
                self.report.add(Problem::CidMismatch, &name, place, detail);
            }
        }
        if let (Some(child), Some(parent)) = (facts.capacity, found.capacity)
            && parent > child
        {
            let detail = format!("the parent has {parent} bytes, its child {child}");
            self.report.add(Problem::ParentLarger, &name, place, detail);
        }
    }

    /// Where a file named in a descriptor is; a name that is refused is a finding.
    pub(super) fn locate(&mut self, descriptor: &Path, name: &str) -> Option<PathBuf> {
        let problem = match self.options.paths.locate(descriptor, name) {
            Ok(path) => return Some(path),
            Err(error @ Error::PathRefused { .. }) => (Problem::PathRefused, error),
            Err(error) => (Problem::NotSupported, error),
        };
        self.report.add(problem.0, &descriptor.display().to_string(), Place::default(), problem.1.to_string());
        None
    }

    /// A file that is not there is a finding; storage that fails is an error.
    pub(super) fn missing(&mut self, link: &str, file: &Path, error: io::Error) -> Result<()> {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory => {
                let detail = format!("{}: {error}", file.display());
                self.report.add(Problem::FileMissing, link, Place::default(), detail);
                Ok(())
            }
            _ => Err(Error::io("open", file.display().to_string(), None, error)),
        }
    }

    pub(super) fn open(&self, path: &Path) -> Result<Backing> {
        let name = path.display().to_string();
        match self.options.resolver.open(path, Access::ReadOnly) {
            Ok(handle) => Ok(Backing::new(name, handle)),
            Err(error) => Err(Error::io("open", name, None, error)),
        }
    }

    pub(super) fn identity(&self, path: &Path) -> Result<PathBuf> {
        self.options
            .resolver
            .identity(path)
            .map_err(|error| Error::io("resolve", path.display().to_string(), None, error))
    }
}
