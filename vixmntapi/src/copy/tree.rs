//! The copying of a tree, entry by entry.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use rustix::fs::FileType;

use super::{
    CopyOut, Keep, Names, Progress, Report, Streams,
    folder::{Folder, SET_ATTRIBUTE},
};
use crate::{
    error::{Error, Result},
    fs::{FileKind, FileName, FileSystem, Metadata, NodeId, spans},
    progress::OnProgress,
    walk::{Found, Walk},
    windows,
};

pub(super) struct Copier<'a> {
    files: Arc<dyn FileSystem>,
    walk: Walk,
    name: Option<FileName>,
    keep: Keep,
    names: Names,
    streams: Streams,
    has_descriptors: bool,
    overwrite: bool,
    max_bytes: u64,
    on_progress: OnProgress<'a>,
    /// The folder of the caller, then the directories that the walk is in.
    open: Vec<Level>,
    /// Where files with several names were put, by names from the caller's folder on.
    put: HashMap<NodeId, Vec<Vec<u8>>>,
    progress: Progress,
    report: Report,
    buffer: Vec<u8>,
}

struct Level {
    folder: Folder,
    name: Vec<u8>,
    /// What it will get when all is in it; `None` for the caller's.
    metadata: Option<(NodeId, Metadata)>,
}

/// When a file was written.
enum Done {
    /// By an earlier copy.
    Before,
    Now,
}

/// Why one entry is not copied, or none from here on.
enum Stop {
    Entry(Error),
    All(Error),
    Cancelled,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
        match &error {
            // An attribute may only be larger than the file system here has room for in one file.
            Error::Local { operation: SET_ATTRIBUTE, .. } => Self::Entry(error),
            Error::Local { source, .. } if full.contains(&source.kind()) => Self::All(error),
            _ => Self::Entry(error),
        }
    }
}

impl<'a> Copier<'a> {
    pub(super) fn new(copy: CopyOut<'a>, folder: Folder) -> Self {
        let CopyOut { files, start, name, keep, names, streams, overwrite, max_bytes, on_progress } = copy;
        Self {
            walk: Walk::from(&files, start).max_depth(MAX_DEPTH),
            has_descriptors: windows::has_descriptors(&files),
            files,
            name,
            keep,
            names,
            streams,
            overwrite,
            max_bytes,
            on_progress,
            open: vec![Level { folder, name: Vec::new(), metadata: None }],
            put: HashMap::new(),
            progress: Progress::default(),
            report: Report::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Report> {
        // The caller's folder stands for the start, or holds it.
        let above = usize::from(self.name.is_some());
        while let Some(found) = self.walk.next() {
            let done = found.map_err(Stop::from).and_then(|found| {
                self.close(found.depth + above);
                self.progress.path = found.path.clone();
                self.entry(&found).inspect_err(|_| self.walk.skip_directory())
            });
            match done.or_else(|stop| self.failed(stop)).and_then(|()| self.tell()) {
                Ok(()) => self.progress.entries += 1,
                Err(Stop::All(error) | Stop::Entry(error)) => return Err(error),
                Err(Stop::Cancelled) => {
                    self.report.cancelled = true;
                    break;
                }
            }
        }
        self.close(1);
        Ok(self.report)
    }

    fn failed(&mut self, stop: Stop) -> Result<(), Stop> {
        let Stop::Entry(error) = stop else { return Err(stop) };
        self.note(error);
        Ok(())
    }

    /// Tells of a failure that is not the end of an entry.
    fn note(&mut self, error: Error) {
        self.report.failed += 1;
        if self.report.failures.len() < MAX_FAILURES {
            self.report.failures.push(error.at(&self.progress.path));
        }
    }

    fn tell(&mut self) -> Result<(), Stop> {
        self.progress.bytes = self.report.bytes;
        if (self.on_progress)(&self.progress).is_break() { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Leaves directories until so many are open, and gives them what they are to have.
    fn close(&mut self, depth: usize) {
        while self.open.len() > depth.max(1) {
            let Some(Level { folder, metadata: Some((node, metadata)), .. }) = self.open.pop() else { continue };
            let kept = self.keep_attributes(node, |name, value| folder.set_attribute(name, value));
            self.kept(kept);
            let set = self
                .xattrs(node)
                .and_then(|xattrs| folder.set(self.mode(&metadata), &metadata, self.keep.owners, &xattrs));
            if let Err(error) = set {
                let _ = self.failed(Stop::Entry(error));
            }
        }
    }

    fn entry(&mut self, found: &Found) -> Result<(), Stop> {
        let name = match (found.depth, &self.name) {
            (0, None) if found.kind == FileKind::Directory => return Ok(()),
            (0, None) => return Err(Stop::All(Error::Invalid("a file is copied by a name: say which".into()))),
            (0, Some(name)) => name,
            _ => &found.name,
        };
        let Some(local) = self.names.local(name) else {
            return Err(Error::Invalid(format!("the name {name:?} cannot be on this computer")).into());
        };
        let local = local.into_owned();
        let metadata = self.files.metadata(found.node)?;
        self.count_left_out(found.node, metadata.kind)?;
        match metadata.kind {
            FileKind::Directory if found.kind == FileKind::Directory => {
                let folder = self.here()?.make(&local)?;
                self.report.directories += 1;
                self.streams_beside(found.node, &local, &metadata)?;
                self.open.push(Level { folder, name: local, metadata: Some((found.node, metadata)) });
                Ok(())
            }
            FileKind::File => self.file(found.node, &local, &metadata),
            FileKind::Symlink => self.link(found.node, &local, &metadata),
            kind => self.special(kind, found.node, &local, &metadata),
        }
    }

    fn file(&mut self, node: NodeId, name: &[u8], metadata: &Metadata) -> Result<(), Stop> {
        if metadata.links > 1 && self.hard_link(node, name)? {
            return Ok(());
        }
        match self.content(node, None, name, metadata)? {
            Done::Before => self.report.unchanged += 1,
            Done::Now => self.report.files += 1,
        }
        self.remember(node, name, metadata);
        self.streams_beside(node, name, metadata)
    }

    /// Makes files of the streams of a file or directory, where that is wanted.
    fn streams_beside(&mut self, node: NodeId, name: &[u8], metadata: &Metadata) -> Result<(), Stop> {
        if self.streams != Streams::Files {
            return Ok(());
        }
        for (stream, size) in self.files.streams(node)? {
            let beside = FileName::new([name, b":", stream.as_bytes()].concat());
            let metadata = Metadata { size, ..metadata.clone() };
            let done = match self.names.local(&beside) {
                Some(local) => self.content(node, Some(&stream), &local, &metadata),
                None => Err(Error::Invalid(format!("the name {beside:?} cannot be on this computer")).into()),
            };
            match done {
                Ok(_) => self.report.streams += 1,
                Err(stop) => self.failed(stop)?,
            }
        }
        Ok(())
    }

    /// Makes a file of a file's content, or of one of its streams.
    fn content(
        &mut self,
        node: NodeId,
        stream: Option<&FileName>,
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Done, Stop> {
        if let Some(there) = self.here()?.look(name)? {
            let is_done = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile
                && there.st_size as u64 == metadata.size
                && is_time(metadata, there.st_mtime, there.st_mtime_nsec as u32);
            if is_done {
                return Ok(Done::Before);
            }
            if !self.overwrite {
                return Err(self.exists(name));
            }
        }
        let file = self.here()?.begin()?;
        let written = self.write(&file, node, stream, metadata).and_then(|()| {
            let xattrs = match stream {
                None => {
                    let here = self.here()?;
                    let kept = self.keep_attributes(node, |name, value| here.set_attribute_of_file(&file, name, value));
                    self.kept(kept);
                    self.xattrs(node)?
                }
                Some(_) => Vec::new(),
            };
            let here = self.here()?;
            here.set_file(&file, self.mode(metadata), metadata, self.keep.owners, &xattrs)?;
            Ok(here.finish(name)?)
        });
        if let Err(stop) = written {
            self.here()?.forget_partial();
            return Err(stop);
        }
        Ok(Done::Now)
    }

    /// Counts what of Windows a file has and is not kept.
    fn count_left_out(&mut self, node: NodeId, kind: FileKind) -> Result<()> {
        if self.put.contains_key(&node) {
            return Ok(());
        }
        let can_have = matches!(kind, FileKind::File | FileKind::Directory);
        if self.streams == Streams::LeftOut || !can_have {
            self.report.streams_left_out += self.files.streams(node)?.len() as u64;
        }
        if self.has_descriptors && !(self.keep.descriptors && can_have) {
            self.report.descriptors_left_out += 1;
        }
        Ok(())
    }

    /// Keeps what of Windows becomes attributes: how many streams, and what went wrong.
    fn keep_attributes(&self, node: NodeId, set: impl Fn(&FileName, &[u8]) -> Result<()>) -> (u64, Vec<Error>) {
        let (mut streams, mut failures) = (0, Vec::new());
        if self.streams == Streams::Attributes {
            let all = self.files.streams(node).unwrap_or_else(|error| {
                failures.push(error);
                Vec::new()
            });
            for (stream, _) in all {
                match windows::stream(&self.files, node, &stream).and_then(|(name, value)| set(&name, &value)) {
                    Ok(()) => streams += 1,
                    Err(error) => failures.push(error),
                }
            }
        }
        if self.keep.descriptors {
            let found = windows::descriptor(&self.files, node);
            let set = found.and_then(|found| found.map_or(Ok(()), |(name, value)| set(&name, &value)));
            failures.extend(set.err());
        }
        (streams, failures)
    }

    fn kept(&mut self, (streams, failures): (u64, Vec<Error>)) {
        self.report.streams += streams;
        failures.into_iter().for_each(|error| self.note(error));
    }

    /// Writes what is not zero by the file's map; the rest stays a hole.
    fn write(&mut self, file: &File, node: NodeId, stream: Option<&FileName>, metadata: &Metadata) -> Result<(), Stop> {
        let content = self.files.clone().open(node, stream)?;
        let local = |operation, source| Error::Local { operation, path: self.progress.path.to_string(), source };
        file.set_len(metadata.size).map_err(|error| local("set the size of", error))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut stop = None;
        let done = spans::for_each_piece(&content, &mut buffer, |range, bytes| {
            let Some(bytes) = bytes else { return Ok(()) };
            if self.report.bytes.saturating_add(bytes.len() as u64) > self.max_bytes {
                let error = Error::Invalid(format!("there is more than the {} bytes to be copied", self.max_bytes));
                stop = Some(Stop::All(error));
                return Err(Error::Invalid(String::new()));
            }
            let path = || self.progress.path.to_string();
            file.write_all_at(bytes, range.start).map_err(|source| Error::Local {
                operation: "write",
                path: path(),
                source,
            })?;
            self.report.bytes += bytes.len() as u64;
            self.tell().map_err(|cancelled| {
                stop = Some(cancelled);
                Error::Invalid(String::new())
            })
        });
        self.buffer = buffer;
        match stop {
            Some(stop) => Err(stop),
            None => Ok(done?),
        }
    }

    fn link(&mut self, node: NodeId, name: &[u8], metadata: &Metadata) -> Result<(), Stop> {
        let target = self.files.read_link(node)?;
        if self.here()?.look(name)?.is_some() {
            if self.here()?.read_link(name).as_deref() == Some(target.as_bytes()) {
                self.report.unchanged += 1;
                return Ok(());
            }
            self.make_way(name)?;
        }
        let xattrs = if self.keep.all_xattrs { self.xattrs(node)? } else { Vec::new() };
        let here = self.here()?;
        here.symlink(name, target.as_bytes())?;
        here.set_closed(name, None, metadata, self.keep.owners, &xattrs)?;
        self.report.links += 1;
        Ok(())
    }

    fn special(&mut self, kind: FileKind, node: NodeId, name: &[u8], metadata: &Metadata) -> Result<(), Stop> {
        let kind = match kind {
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::CharDevice => FileType::CharacterDevice,
            _ => return Err(Error::unsupported("a file", "it is of a kind that is not known here").into()),
        };
        if !self.keep.special {
            self.report.left_out += 1;
            return Ok(());
        }
        let device = metadata.device.unwrap_or_default();
        if let Some(there) = self.here()?.look(name)? {
            let there = (FileType::from_raw_mode(there.st_mode), there.st_rdev);
            if there.0 == kind && (metadata.device.is_none() || there.1 == rustix::fs::makedev(device.0, device.1)) {
                self.report.unchanged += 1;
                return Ok(());
            }
            self.make_way(name)?;
        }
        let xattrs = if self.keep.all_xattrs { self.xattrs(node)? } else { Vec::new() };
        let here = self.here()?;
        here.special(name, kind, device)?;
        here.set_closed(name, Some(self.mode(metadata)), metadata, self.keep.owners, &xattrs)?;
        self.report.special += 1;
        Ok(())
    }

    /// Makes a further name of a file that was put already; `false` when it is the first one.
    fn hard_link(&mut self, node: NodeId, name: &[u8]) -> Result<bool, Stop> {
        let Some([folders @ .., first]) = self.put.get(&node).map(Vec::as_slice) else { return Ok(false) };
        let mut folder = None;
        for name in folders {
            folder = Some(match &folder {
                None => self.top()?.enter(name)?,
                Some(folder) => Folder::enter(folder, name)?,
            });
        }
        let from = folder.as_ref().map_or_else(|| self.top(), Ok)?;
        let Some(old) = from.look(first)? else { return Ok(false) };
        if let Some(there) = self.here()?.look(name)? {
            if (there.st_dev, there.st_ino) == (old.st_dev, old.st_ino) {
                self.report.unchanged += 1;
                return Ok(true);
            }
            self.make_way(name)?;
        }
        self.here()?.hard_link(name, from, first)?;
        self.report.hard_links += 1;
        Ok(true)
    }

    fn remember(&mut self, node: NodeId, name: &[u8], metadata: &Metadata) {
        if metadata.links > 1 && self.put.len() < MAX_HARD_LINKED {
            let folders = self.open.iter().skip(1).map(|level| level.name.clone());
            let path = folders.chain([name.to_vec()]).collect();
            self.put.insert(node, path);
        }
    }

    fn make_way(&self, name: &[u8]) -> Result<(), Stop> {
        if self.overwrite { Ok(self.here()?.remove(name)?) } else { Err(self.exists(name)) }
    }

    fn exists(&self, name: &[u8]) -> Stop {
        let error = io::Error::new(io::ErrorKind::AlreadyExists, "something else is there");
        match self.here() {
            Ok(here) => here.error("copy to", name, error).into(),
            Err(error) => error.into(),
        }
    }

    fn here(&self) -> Result<&Folder> {
        let level = self.open.last().ok_or_else(|| Error::Invalid("no folder is open".into()))?;
        Ok(&level.folder)
    }

    fn top(&self) -> Result<&Folder> {
        let level = self.open.first().ok_or_else(|| Error::Invalid("no folder is open".into()))?;
        Ok(&level.folder)
    }

    fn mode(&self, metadata: &Metadata) -> u32 {
        metadata.mode & if self.keep.set_id { 0o7777 } else { 0o1777 }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let mut xattrs = self.files.xattrs(node)?;
        if !self.keep.all_xattrs {
            xattrs.retain(|(name, _)| name.as_bytes().starts_with(b"user."));
        }
        Ok(xattrs)
    }
}

/// Whether the file here has the guest's time; some file systems here know whole seconds only.
fn is_time(metadata: &Metadata, seconds: i64, nanos: u32) -> bool {
    let guest = metadata.times.modified;
    guest.seconds == seconds && (guest.nanos == nanos || nanos == 0)
}

/// Each level is an open file of this process, which may have 1024.
const MAX_DEPTH: usize = 500;
const MAX_FAILURES: usize = 1000;
/// Some 100 MB. Names of more files than these become files of their own.
const MAX_HARD_LINKED: usize = 1 << 20;
