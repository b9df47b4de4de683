//! Repairing disks: first a plan, then the work, in a copy or in place.
//!
//! ```no_run
//! use vmdk::{check::CheckOptions, repair::Repair};
//!
//! # fn main() -> vmdk::Result<()> {
//! let repair = Repair::plan("web.vmdk", &CheckOptions::new())?;
//! for action in repair.actions() {
//!     println!("{action}");
//! }
//! let left = repair.apply_to_copy("repaired")?;
//! assert!(left.is_clean(), "{left}");
//! # Ok(())
//! # }
//! ```
//!
//! Only what is safe by construction is done: a grain that could be read reads the same afterwards, whatever happens in
//! between. Where two things claim one place, both get what they read now, and the plan says so; nothing is decided in
//! silence. What is in no copy, such as data behind a cut, stays lost.
//!
//! - Hosted sparse extents: the two directories and their tables repair each other. In place this is crash-safe: new
//!   copies are on stable storage before anything points to them, and every single write leads from one readable state
//!   to another. An interrupted repair is taken up by the next.
//! - Streams: the markers beside the grains say where they belong, and everything else is made again from them. In
//!   place, the old tables behind the last grain are overwritten: when that is interrupted the stream needs the repair
//!   again, which finds all grains, for they are never touched.
//! - Chains: [`Relink`] writes the content ids of the parents into their children. No repair does that by itself: only
//!   the owner knows that the parent is the right one.
//!
//! Nobody may have the disk open.

mod action;
mod copies;
mod medium;
mod relink;
mod sparse;
mod stream;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use self::{action::Ledger, medium::Medium, sparse::Mender};
pub use self::{
    action::{Action, ActionKind},
    relink::{Relink, RelinkedLink},
};
use crate::{
    check::{
        CheckOptions, Report, check,
        internal::{inspect, read_footer},
    },
    descriptor::{Descriptor, ExtentType},
    disk::{Access, read_descriptor},
    error::{Error, Result},
    extent::Backing,
    layout::{HEADER_BYTES, MAX_DIRECTORY_ENTRIES, Magic, SparseHeader},
};

/// A repair of one link of a disk: of all sparse files that its descriptor names. Parents are never changed.
#[derive(Debug)]
#[must_use]
pub struct Repair {
    path: PathBuf,
    options: CheckOptions,
    files: Vec<PathBuf>,
    before: Report,
    actions: Vec<Action>,
}

impl Repair {
    /// Checks the link at `path` and finds out what can be done; changes nothing.
    ///
    /// # Errors
    /// As [`check`], and [`Error::NotSupported`] when a repair would make a file larger than its format allows.
    #[doc(alias = "VixDiskLib_CheckRepair")]
    pub fn plan(path: impl AsRef<Path>, options: &CheckOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let options = options.clone().single_link(true);
        let before = check(&path, &options)?;
        let files = if before.is_clean() { Vec::new() } else { sparse_files(&path, &options)? };
        let mut actions = Vec::new();
        for file in &files {
            let ledger = mend(open(file, &options, Access::ReadOnly)?, &options, true)?;
            actions.extend(ledger.into_actions(&file.display().to_string()));
        }
        Ok(Self { path, options, files, before, actions })
    }

    /// What would be done. Empty when nothing is wrong, or nothing can be done about it.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What is wrong with the link.
    pub fn report(&self) -> &Report {
        &self.before
    }

    /// Repairs the files themselves. Returns what is wrong afterwards.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] when the storage cannot be written; [`Error::Io`], after which the repair may be
    /// planned and applied again.
    pub fn apply_in_place(&self) -> Result<Report> {
        for file in self.files.iter().filter(|file| self.concerns(file)) {
            mend(open(file, &self.options, Access::ReadWrite)?, &self.options, false)?;
        }
        check(&self.path, &self.options)
    }

    /// Copies all files of the link into `directory` on the local file system, which must exist, and repairs the copy.
    /// Returns what is wrong with it afterwards. A parent that is named relative to the link is not found from there: a chain is
    /// copied as a whole, link by link.
    ///
    /// # Errors
    /// [`Error::Io`], with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) when `directory` has a file of that
    /// name: nothing is overwritten, and what was copied before a failure is removed.
    pub fn apply_to_copy(&self, directory: impl AsRef<Path>) -> Result<Report> {
        let options = self.options.clone().local();
        copies::copy_link(&self.path, &self.options, directory.as_ref(), |copy| {
            for file in &sparse_files(copy, &options)? {
                mend(open(file, &options, Access::ReadWrite)?, &options, false)?;
            }
            check(copy, &options)
        })
    }

    fn concerns(&self, file: &Path) -> bool {
        let name = file.display().to_string();
        self.actions.iter().any(|action| action.file == name)
    }
}

/// The sparse files of a link, each once.
fn sparse_files(path: &Path, options: &CheckOptions) -> Result<Vec<PathBuf>> {
    let backing = open(path, options, Access::ReadOnly)?;
    let mut start = vec![0; backing.len()?.min(4096) as usize];
    backing.read(0, &mut start)?;
    let is_descriptor = Magic::of(&start).is_none() && Descriptor::probe(&start);
    if !is_descriptor {
        return Ok(vec![path.to_owned()]);
    }
    let lines = read_descriptor(&backing, 0, backing.len()?).and_then(|found| found.extents()).unwrap_or_default();
    let names =
        lines.iter().filter(|line| line.kind == ExtentType::Sparse).filter_map(|line| line.file_name.as_deref());
    let mut seen = HashSet::new();
    // A name that is refused, or of no file, is a finding of the check.
    let files = names.filter_map(|name| options.paths.locate(path, name).ok());
    Ok(files
        .filter(|file| options.resolver.open(file, Access::ReadOnly).is_ok())
        .filter(|file| options.resolver.identity(file).is_ok_and(|identity| seen.insert(identity)))
        .collect())
}

fn open(path: &Path, options: &CheckOptions, access: Access) -> Result<Backing> {
    let name = path.display().to_string();
    match options.resolver.open(path, access) {
        Ok(handle) => Ok(Backing::new(name, handle)),
        Err(error) => Err(Error::io("open", name, None, error)),
    }
}

/// Repairs one sparse file, or finds out what a repair would do.
fn mend(backing: Backing, options: &CheckOptions, is_dry: bool) -> Result<Ledger> {
    let mut medium = Medium::new(backing, is_dry)?;
    if let Some(header) = usable_header(&mut medium)? {
        if header.is_stream_optimized() {
            stream::mend_stream(&mut medium, header, options)?;
        } else {
            let found = inspect(&medium.backing, &header, &header, options.memory_bytes)?;
            // Without any directory there is nothing to repair from.
            if found.first.is_some() || found.redundant.is_some() {
                let mut mender = Mender::new(&mut medium, header, found, None, options.memory_bytes);
                mender.prepare()?;
                mender.mend_plain()?;
            }
        }
    }
    Ok(medium.ledger)
}

/// The header, from the footer where it is damaged.
fn usable_header(medium: &mut Medium) -> Result<Option<SparseHeader>> {
    let backing = &medium.backing;
    if backing.len()? < HEADER_BYTES as u64 * 2 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    backing.read(0, &mut bytes)?;
    let header = match SparseHeader::parse(&bytes, &backing.name) {
        Ok(header) => Some(header),
        // A file that went through a text-mode transfer has changed data, and newer versions are not damaged.
        Err(Error::Malformed { .. }) if !bytes.starts_with(b"KDMV") || SparseHeader::kept_newlines(&bytes) => {
            stream::restore_header(medium, read_footer)?
        }
        Err(_) => None,
    };
    Ok(header.filter(|header| header.directory_entries() <= MAX_DIRECTORY_ENTRIES))
}
