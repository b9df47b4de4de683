//! Copies files and trees out of a guest into a folder of this computer.

mod folder;
mod names;
mod tree;

use std::{fmt, ops::ControlFlow, path::Path, sync::Arc};

pub use self::names::Names;
use self::{folder::Folder, tree::Copier};
pub use crate::progress::Progress;
use crate::{
    error::{Error, Result},
    fs::{FileName, FileSystem, NodeId},
    progress::OnProgress,
};

/// Copies a file, or a tree with all that is in it, into a folder.
///
/// What a guest says is not trusted: everything is made within the folder, whatever names and links say, and no link
/// in the folder is followed, be it the guest's or there before. Permissions, times to the nanosecond, attributes
/// named `user.*`, links, hard links and holes are kept. Owners, setuid and setgid, devices and pipes, and the other
/// attributes (which may be privileges, as `security.capability`) are left out unless they are asked for. So are alternate
/// streams and security descriptors of Windows, which the report counts; its other attributes (hidden, archive), short
/// names and times of creation have no place here.
///
/// A file is written under another name and gets its own when it is whole. So a copy that was ended anywhere goes on
/// where it was by being run again: what is there with its size and time is taken for done.
///
/// ```
/// # use std::{ops::ControlFlow, sync::Arc};
/// # use vixmntapi::{Result, copy::CopyOut, fs::{FileSystem, NodeId}};
/// # fn copy(files: &Arc<dyn FileSystem>, node: NodeId) -> Result<()> {
/// let report = CopyOut::of(files, node)
///     .on_progress(|progress| {
///         println!("{} {}", progress.bytes, progress.path);
///         ControlFlow::Continue(())
///     })
///     .run("/srv/restored")?;
/// assert_eq!(report.failed, 0, "{:?}", report.failures);
/// # Ok(()) }
/// ```
#[must_use = "nothing is copied before `run`"]
pub struct CopyOut<'a> {
    files: Arc<dyn FileSystem>,
    start: NodeId,
    name: Option<FileName>,
    keep: Keep,
    names: Names,
    streams: Streams,
    overwrite: bool,
    max_bytes: u64,
    on_progress: OnProgress<'a>,
}

/// What to do with alternate streams of Windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Streams {
    /// They are left out.
    #[default]
    LeftOut,
    /// They become extended attributes, `user.` and the stream's name: what ntfs-3g shows of them, and takes for them when
    /// the folder is on NTFS. They may have 64 KiB, and less on most other file systems.
    Attributes,
    /// They become files beside their own, of any size, named `file:stream` as Windows writes them; for a file with several
    /// names beside the first of these. NTFS, which has streams by such names, does not take such files.
    Files,
}

/// What is kept only where it is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Keep {
    owners: bool,
    set_id: bool,
    special: bool,
    all_xattrs: bool,
    descriptors: bool,
}

impl<'a> CopyOut<'a> {
    /// Of all of a file system.
    pub fn new(files: &Arc<dyn FileSystem>) -> Self {
        Self::of(files, files.root())
    }

    /// Of what is in a directory; or of a file, which needs a [name](CopyOut::named).
    pub fn of(files: &Arc<dyn FileSystem>, start: NodeId) -> Self {
        Self {
            files: files.clone(),
            start,
            name: None,
            keep: Keep::default(),
            names: Names::Refused,
            streams: Streams::LeftOut,
            overwrite: false,
            max_bytes: u64::MAX,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// Puts the file or directory itself into the folder, by this name.
    pub fn named(mut self, name: impl Into<FileName>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Keeps owners and groups by their numbers; that takes the right to.
    pub fn keep_owners(mut self) -> Self {
        self.keep.owners = true;
        self
    }

    /// Keeps setuid and setgid: whose numbers the owners are is told on this computer.
    pub fn keep_set_id(mut self) -> Self {
        self.keep.set_id = true;
        self
    }

    /// Makes devices, named pipes and sockets; that takes the right to.
    pub fn keep_special_files(mut self) -> Self {
        self.keep.special = true;
        self
    }

    /// Keeps all extended attributes: ACLs, labels, privileges. That takes the right to.
    pub fn keep_all_xattrs(mut self) -> Self {
        self.keep.all_xattrs = true;
        self
    }

    /// Keeps security descriptors of Windows in the extended attribute `system.ntfs_acl`, which a folder on NTFS has,
    /// mounted by ntfs-3g; Windows has the same bytes. It names accounts by ids that other computers may not know.
    pub fn keep_security_descriptors(mut self) -> Self {
        self.keep.descriptors = true;
        self
    }

    /// What to do with alternate streams of Windows. One that cannot be kept is a failure, and its file is copied.
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// What to do with names that cannot be here.
    pub fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Replaces files that are there and differ in size or time. Otherwise they are failures.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    /// Ends with an error before more bytes than these are written: a small volume can say that all its files are the
    /// same large one.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Is told how far it is, after each file and each MiB, and may end it there.
    pub fn on_progress(mut self, told: impl FnMut(&Progress) -> ControlFlow<()> + 'a) -> Self {
        self.on_progress = Box::new(told);
        self
    }

    /// Copies into a folder, which is made if it is not there. Only in its own path are links followed.
    ///
    /// # Errors
    /// [`Error::Local`] when the folder cannot be used or is full, [`Error::Invalid`] when there is more than
    /// [`CopyOut::max_bytes`]. What is the matter with single files is in the report, and the rest is copied.
    pub fn run(self, folder: impl AsRef<Path>) -> Result<Report> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| Error::Local {
            operation: "make the folder",
            path: folder.display().to_string(),
            source,
        })?;
        Copier::new(self, Folder::open(folder)?).run()
    }
}

impl fmt::Debug for CopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").field("files", &self.files).field("start", &self.start).finish_non_exhaustive()
    }
}

/// What a copy has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Files that were written.
    pub files: u64,
    /// Files, links, devices and pipes that were there.
    pub unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Devices, pipes and sockets.
    pub special: u64,
    /// Devices, pipes and sockets that were not asked for.
    pub left_out: u64,
    /// Alternate streams of Windows that were kept.
    pub streams: u64,
    /// Alternate streams of Windows that were not asked for, or are those of a link.
    pub streams_left_out: u64,
    /// Files and directories whose security descriptors of Windows were not asked for.
    pub descriptors_left_out: u64,
    /// Bytes that were written; holes are none.
    pub bytes: u64,
    /// Files that failed in whole or in part.
    pub failed: u64,
    /// Why: of the first thousand.
    pub failures: Vec<Error>,
    /// That it was ended by [`CopyOut::on_progress`].
    pub cancelled: bool,
}
