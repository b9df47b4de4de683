//! Trees as one stream: tar and zip.

mod sink;
mod tar;
mod zip;

use std::{fmt, io::Write, ops::ControlFlow, sync::Arc};

use self::{sink::Sink, tar::Tar, zip::Zip};
pub use crate::progress::Progress;
use crate::{
    error::{Error, Result},
    fs::{FileKind, FileName, FileSystem, Metadata, NodeId},
    progress::OnProgress,
    walk::{Found, Walk},
    windows,
};

/// Writes a file, or a tree with all that is in it, as an archive to whatever takes bytes.
///
/// Names that would lead elsewhere when they are unpacked (`..`, with `/` or NUL) are failures. What cannot be read is in
/// the report and not in the archive; where that shows in the middle of a file, the archive ends with the error, because
/// it cannot be taken back.
///
/// ```
/// # use std::sync::Arc;
/// # use vixmntapi::{Result, archive::Archive, fs::FileSystem};
/// # fn pack(files: &Arc<dyn FileSystem>) -> Result<()> {
/// let mut bytes = Vec::new();
/// let report = Archive::new(files).sparse().tar(&mut bytes)?;
/// assert_eq!(report.failed, 0, "{:?}", report.failures);
/// # Ok(()) }
/// ```
#[must_use = "nothing is written before `tar` or `zip`"]
pub struct Archive<'a> {
    files: Arc<dyn FileSystem>,
    start: NodeId,
    name: FileName,
    sparse: bool,
    keep: Keep,
    on_progress: OnProgress<'a>,
}

/// What tar keeps only where it is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Keep {
    streams: bool,
    descriptors: bool,
}

impl<'a> Archive<'a> {
    /// Of all of a file system.
    pub fn new(files: &Arc<dyn FileSystem>) -> Self {
        Self::of(files, files.root())
    }

    /// Of what is in a directory; or of a file, which needs a [name](Archive::named).
    pub fn of(files: &Arc<dyn FileSystem>, start: NodeId) -> Self {
        let on_progress: OnProgress<'a> = Box::new(|_| ControlFlow::Continue(()));
        Self {
            files: files.clone(),
            start,
            name: FileName::default(),
            sparse: false,
            keep: Keep::default(),
            on_progress,
        }
    }

    /// Has the file or directory itself in the archive, by this name, and all else below it.
    pub fn named(mut self, name: impl Into<FileName>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps holes in tar, in the form of GNU tar 1.22 and later, which bsdtar and Python's tarfile read as well.
    pub fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    /// Keeps alternate streams of Windows in tar, as extended attributes: `user.` and the stream's name, which is what
    /// ntfs-3g shows of them, so that GNU tar unpacks them on NTFS as streams. One of more than 64 KiB is a failure, and its
    /// file is packed.
    pub fn keep_streams(mut self) -> Self {
        self.keep.streams = true;
        self
    }

    /// Keeps security descriptors of Windows in tar, in the extended attribute `system.ntfs_acl` of ntfs-3g.
    pub fn keep_security_descriptors(mut self) -> Self {
        self.keep.descriptors = true;
        self
    }

    /// Is told how far it is, before each file and after each piece of one, and may end it there.
    pub fn on_progress(mut self, told: impl FnMut(&Progress) -> ControlFlow<()> + 'a) -> Self {
        self.on_progress = Box::new(told);
        self
    }

    /// Writes a tar archive in the form of POSIX (pax): names are bytes of any length, times have nanoseconds, extended
    /// attributes are kept as GNU tar, star and bsdtar do, and so are hard links, devices and pipes. Of Windows, streams and
    /// security descriptors are kept where they are asked for, and else counted.
    ///
    /// # Errors
    /// [`Error::Local`] when `out` does not take it, [`Error::At`] when a file cannot be read to its end. The archive is
    /// not whole then.
    pub fn tar(self, out: impl Write) -> Result<Report> {
        let (sparse, keep) = (self.sparse, self.keep);
        self.write(Tar::new(Sink::new(out), sparse), keep)
    }

    /// Writes a zip archive, deflated, with what is in the way of 4 GiB and 65 535 files as zip64 has it, so that it needs
    /// no seeking. Permissions, owners and times to the second are kept, links as Info-ZIP does; devices, pipes and
    /// extended attributes are left out, and hard links become files.
    ///
    /// # Errors
    /// As [`Archive::tar`].
    pub fn zip(self, out: impl Write) -> Result<Report> {
        self.write(Zip::new(Sink::new(out)), Keep::default())
    }

    fn write(self, mut format: impl Format, keep: Keep) -> Result<Report> {
        let Self { files, start, name, on_progress, .. } = self;
        if !name.as_bytes().is_empty() && !name.is_plain() {
            return Err(Error::Invalid(format!("{name:?} is no name for what is in an archive")));
        }
        let has_descriptors = windows::has_descriptors(&files);
        let (progress, report) = (Progress::default(), Report::default());
        let mut work = Work { files, keep, has_descriptors, on_progress, progress, report };
        let mut walk = Walk::from(&work.files, start);
        while let Some(found) = walk.next() {
            let done = found
                .map_err(Stop::Entry)
                .and_then(|found| work.entry(&found, &name, &mut format).inspect_err(|_| walk.skip_directory()));
            match done {
                Ok(()) => {}
                Err(Stop::Entry(error)) => work.note(error),
                Err(Stop::All(error)) => return Err(error),
                Err(Stop::Cancelled) => {
                    work.report.cancelled = true;
                    return Ok(work.report);
                }
            }
        }
        format.finish()?;
        Ok(work.report)
    }
}

impl fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("files", &self.files).field("start", &self.start).finish_non_exhaustive()
    }
}

/// What is in an archive, and what is not.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files, holes too where they are written as zeros.
    pub bytes: u64,
    /// What the form of archive cannot hold: sockets; in zip devices and pipes.
    pub left_out: u64,
    /// Alternate streams of Windows that are in it.
    pub streams: u64,
    /// Alternate streams of Windows that were not asked for, or that the form of archive cannot hold.
    pub streams_left_out: u64,
    /// Files, directories and links whose security descriptors of Windows are not in it.
    pub descriptors_left_out: u64,
    /// Files that could not be read, and streams that could not be kept.
    pub failed: u64,
    /// Why: of the first thousand.
    pub failures: Vec<Error>,
    /// That it was ended by [`Archive::on_progress`]; it is not whole then.
    pub cancelled: bool,
}

/// Why one entry is not packed, or none from here on.
enum Stop {
    Entry(Error),
    All(Error),
    Cancelled,
}

/// A form of archive.
trait Format {
    /// Writes an entry; `false` when it cannot hold such.
    fn entry(&mut self, item: &Item<'_>, work: &mut Work<'_>) -> Result<bool, Stop>;

    fn finish(self) -> Result<()>;
}

/// What is packed.
struct Item<'i> {
    node: NodeId,
    /// Empty for the root.
    path: &'i FileName,
    metadata: &'i Metadata,
}

struct Work<'a> {
    files: Arc<dyn FileSystem>,
    keep: Keep,
    has_descriptors: bool,
    on_progress: OnProgress<'a>,
    progress: Progress,
    report: Report,
}

impl Work<'_> {
    fn entry(&mut self, found: &Found, name: &FileName, format: &mut impl Format) -> Result<(), Stop> {
        self.progress.path = found.path.clone();
        if found.depth > 0 && !found.name.is_plain() {
            let why = format!("the name {:?} would lead elsewhere", found.name);
            return Err(Stop::Entry(Error::Invalid(why)));
        }
        let path = if found.depth == 0 { name.clone() } else { name.join(&found.path) };
        let metadata = self.files.metadata(found.node).map_err(Stop::Entry)?;
        if path.as_bytes().is_empty() && metadata.kind != FileKind::Directory {
            return Err(Stop::All(Error::Invalid("a file is packed by a name: say which".into())));
        }
        self.tell(0)?;
        match format.entry(&Item { node: found.node, path: &path, metadata: &metadata }, self)? {
            true => self.report.entries += 1,
            false => self.report.left_out += 1,
        }
        self.progress.entries = self.report.entries;
        Ok(())
    }

    /// What of Windows a file has, as extended attributes; what is not kept is counted.
    fn attributes(&mut self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let mut attributes = Vec::new();
        let streams = self.files.streams(node)?;
        if !self.keep.streams {
            self.report.streams_left_out += streams.len() as u64;
        } else {
            let mut room = MOST_ATTRIBUTES;
            for (name, size) in streams {
                let kept = match room.checked_sub(size) {
                    Some(rest) => {
                        room = rest;
                        windows::stream(&self.files, node, &name)
                    }
                    None => Err(Error::unsupported(format!("stream {name}"), "the file has too many large ones")),
                };
                match kept {
                    Ok(attribute) => attributes.push(attribute),
                    Err(error) => self.note(error),
                }
            }
            self.report.streams += attributes.len() as u64;
        }
        if self.keep.descriptors {
            attributes.extend(windows::descriptor(&self.files, node)?);
        } else if self.has_descriptors {
            self.report.descriptors_left_out += 1;
        }
        Ok(attributes)
    }

    /// Tells of a failure.
    fn note(&mut self, error: Error) {
        self.report.failed += 1;
        if self.report.failures.len() < MAX_FAILURES {
            self.report.failures.push(error.at(&self.progress.path));
        }
    }

    /// Tells of more bytes.
    fn tell(&mut self, bytes: u64) -> Result<(), Stop> {
        self.report.bytes += bytes;
        self.progress.bytes = self.report.bytes;
        if (self.on_progress)(&self.progress).is_break() { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Runs what reads a file piece by piece and gives each to the archive; what goes wrong in it is the end of all.
    fn pack(&mut self, read: impl FnOnce(&mut dyn FnMut(u64) -> Result<()>) -> Result<()>) -> Result<(), Stop> {
        let mut cancelled = false;
        let done = read(&mut |bytes| {
            self.tell(bytes).map_err(|_| {
                cancelled = true;
                Error::Invalid("it was ended".into())
            })
        });
        match done {
            Err(_) if cancelled => Err(Stop::Cancelled),
            Err(error @ Error::Local { .. }) => Err(Stop::All(error)),
            Err(error) => Err(Stop::All(error.at(&self.progress.path))),
            Ok(()) => Ok(()),
        }
    }
}

const MAX_FAILURES: usize = 1000;
/// Bytes of a file's streams; they are in memory together.
const MOST_ATTRIBUTES: u64 = 1 << 20;
