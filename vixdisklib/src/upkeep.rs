//! Disks that nobody has open: making, removing, growing, renaming and checking them.

use vmdk::{PathPolicy, check::Report};

use crate::{
    Progress,
    connection::Connection,
    create::CreateSpec,
    error::{Attempt, Error, Result},
    transport::{BoxFuture, Transport, blocking, check_path},
};

/// What a check found, and what was left after a repair.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckOutcome {
    /// What was wrong.
    pub found: Report,
    /// What is wrong after the repair; `None` when there was none to do, or none was asked for.
    pub left: Option<Report>,
}

impl CheckOutcome {
    /// Whether nothing is wrong now.
    pub fn is_clean(&self) -> bool {
        self.left.as_ref().unwrap_or(&self.found).is_clean()
    }
}

impl Connection {
    /// Makes a new disk that reads as zeros, with the files of its kind. What was made before a failure is removed.
    ///
    /// # Errors
    /// [`Error::NotOffered`] for kinds and transports that cannot, [`Error::ReadOnly`], and those of the transport: one
    /// of the files exists already.
    ///
    /// # Cancel safety
    /// A dropped future may have made the disk.
    #[doc(alias = "VixDiskLib_Create")]
    pub async fn create(&self, path: &str, spec: &CreateSpec) -> Result<()> {
        self.check_writable("create", path)?;
        self.first_of(path, |transport| transport.create(path, spec)).await
    }

    /// Removes a disk with all its files. Its parents stay.
    ///
    /// # Errors
    /// [`Error::NotOffered`], [`Error::ReadOnly`], and those of the transport.
    ///
    /// # Cancel safety
    /// A dropped future may have removed the disk.
    #[doc(alias = "VixDiskLib_Unlink")]
    pub async fn unlink(&self, path: &str) -> Result<()> {
        self.check_writable("remove", path)?;
        self.first_of(path, |transport| transport.unlink(path)).await
    }

    /// Makes a disk larger; what is added reads as zeros. `update_geometry` lets the number of cylinders follow.
    ///
    /// # Errors
    /// [`Error::NotOffered`], [`Error::ReadOnly`], and those of the transport: a size that is smaller than the disk's,
    /// a disk that has a parent.
    ///
    /// # Cancel safety
    /// A dropped future may have grown the disk.
    #[doc(alias = "VixDiskLib_Grow")]
    pub async fn grow(
        &self,
        path: &str,
        capacity: u64,
        update_geometry: bool,
        progress: Option<Progress>,
    ) -> Result<()> {
        self.check_writable("grow", path)?;
        self.first_of(path, |transport| transport.grow(path, capacity, update_geometry, progress.clone())).await
    }

    /// Tells what is wrong with a disk, and with `repair` puts right what can be without loss.
    ///
    /// # Errors
    /// [`Error::NotOffered`], [`Error::ReadOnly`] for a repair, and those of the storage. What is wrong with the disk is
    /// an answer, and no error.
    ///
    /// # Cancel safety
    /// The work goes on when the future is dropped.
    #[doc(alias = "VixDiskLib_CheckRepair")]
    pub async fn check_repair(&self, path: &str, repair: bool) -> Result<CheckOutcome> {
        if repair {
            self.check_writable("repair", path)?;
        }
        self.first_of(path, |transport| transport.check_repair(path, repair)).await
    }

    /// The first transport that offers an operation does it; its answer counts, whatever it is.
    pub(crate) async fn first_of<'a, T>(
        &'a self,
        path: &str,
        work: impl Fn(&'a dyn Transport) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut attempts = Vec::new();
        for transport in self.slots() {
            let (mode, error) = match transport {
                Err(unavailable) => (unavailable.mode, Error::from(*unavailable)),
                Ok(transport) => match work(&**transport).await {
                    Err(error @ (Error::NotOffered { .. } | Error::WrongPath { .. })) => (transport.mode(), error),
                    done => return done,
                },
            };
            attempts.push(Attempt { mode, error });
        }
        Err(Error::of_attempts(path.to_owned(), attempts))
    }
}

/// Renames a disk of this machine with all its files, also to another directory of the same file system.
///
/// # Errors
/// [`Error::WrongPath`] for datastore paths, [`Error::File`] when one of the new files exists. After a failure the disk
/// has its old name.
///
/// # Cancel safety
/// The work goes on when the future is dropped.
#[doc(alias = "VixDiskLib_Rename")]
pub async fn rename(from: &str, to: &str) -> Result<()> {
    check_path(from)?;
    check_path(to)?;
    let names = (from.to_owned(), to.to_owned());
    blocking("renaming", from, move || vmdk::rename(names.0, names.1, PathPolicy::SameDirectory)).await
}
