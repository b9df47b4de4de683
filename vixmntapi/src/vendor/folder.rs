//! A folder of this machine as a file system.
//!
//! Files are reached from the folder name by name, and no link is followed on the way, so that nothing leads out of it.

use std::{
    any::Any,
    fmt,
    fs::File,
    io,
    ops::Range,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom},
    io::Errno,
};

use super::seen::Seen;
use crate::{
    error::{Error, Result},
    fs::{
        Consistency, Content, Entries, Entry, Extent, ExtentKind, FileKind, FileName, FileSystem, FileSystemInfo,
        Metadata, NodeId, Times, Timestamp,
    },
};

/// A folder of this machine.
pub(super) struct Folder {
    root: Arc<File>,
    root_id: NodeId,
    /// The device of the root, whose nodes are in tree 0.
    device: u64,
    path: PathBuf,
    info: FileSystemInfo,
    seen: Mutex<Seen>,
    /// The directory in which a file was looked for last.
    near: Mutex<Option<(NodeId, Arc<File>)>>,
    // Last, so that nothing is open any more when it goes.
    _kept: Kept,
}

/// Something that keeps the folder there.
type Kept = Option<Arc<dyn Any + Send + Sync>>;

impl Folder {
    /// Opens a folder. `kept` lives as long as it and all that was opened in it.
    pub(super) fn open(path: &Path, kept: Option<Arc<impl Any + Send + Sync>>) -> Result<Arc<dyn FileSystem>> {
        let failed = |error: io::Error| local("open the folder", path, error);
        let root = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = File::from(root.map_err(|error| failed(error.into()))?);
        let metadata = root.metadata().map_err(failed)?;
        let (device, root_id) = (metadata.dev(), NodeId { tree: 0, number: metadata.ino() });
        let info = info(&root).map_err(failed)?;
        let kept = kept.map(|kept| kept as Arc<dyn Any + Send + Sync>);
        let (root, path, seen, near) = (Arc::new(root), path.to_owned(), Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { root, root_id, device, path, info, seen, near, _kept: kept }))
    }

    fn id(&self, device: u64, number: u64) -> NodeId {
        NodeId { tree: if device == self.device { 0 } else { device }, number }
    }

    /// A handle of a file, which does not open it: devices and pipes stay asleep. With what is known of the file.
    fn handle(&self, node: NodeId) -> Result<(Arc<File>, std::fs::Metadata)> {
        let unknown =
            || Error::NotFound(format!("file {} in {}, or it was not listed", node.number, self.path.display()));
        let way = self.seen.lock().unwrap_or_else(PoisonError::into_inner).way(self.root_id, node);
        let way = way.ok_or_else(unknown)?;
        let mut at = self.root.clone();
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // From the directory that was used last on, where the way leads through it: its other files come next.
        let from = near.as_ref().and_then(|(last, _)| way.iter().position(|step| step.parent == *last));
        if let (Some(_), Some((_, directory))) = (from, near.take()) {
            at = directory;
        }
        for step in way[..from.map_or(way.len(), |from| from + 1)].iter().rev() {
            near = Some((step.parent, at.clone()));
            let opened = fs::openat(&*at, step.name.as_bytes(), HANDLE, Mode::empty());
            at = Arc::new(opened.map_err(|error| self.failed("find a file in")(error.into()))?.into());
        }
        *self.near.lock().unwrap_or_else(PoisonError::into_inner) = near;
        let metadata = at.metadata().map_err(self.failed("look at a file in"))?;
        if self.id(metadata.dev(), metadata.ino()) != node {
            return Err(unknown());
        }
        Ok((at, metadata))
    }

    /// Opens what a handle holds: by its number in `/proc`, so that it is that and nothing else.
    fn reopen(&self, handle: &File, flags: OFlags) -> Result<File> {
        let opened = fs::open(proc_path(handle), flags | OFlags::CLOEXEC, Mode::empty());
        opened.map(File::from).map_err(|error| self.failed("open a file in")(error.into()))
    }

    fn directory(&self, node: NodeId) -> Result<Arc<File>> {
        let (handle, metadata) = self.handle(node)?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory(format!("file {} in {}", node.number, self.path.display())));
        }
        Ok(handle)
    }

    /// Notes a file that was seen; its id and what it is.
    fn found(&self, directory: NodeId, at: &File, name: &FileName) -> Result<Option<(NodeId, FileKind)>> {
        let stat = match fs::statat(at, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
            Err(error) => return Err(self.failed("look at a file in")(error.into())),
        };
        // The types of these fields differ between processors.
        #[allow(clippy::unnecessary_cast)]
        let (node, mode) = (self.id(stat.st_dev as u64, stat.st_ino as u64), stat.st_mode as u32);
        let kind = FileKind::from_mode(mode);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(node, kind == FileKind::Directory, directory, name.clone())?;
        Ok(Some((node, kind)))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |error| local(operation, &path, error)
    }
}

impl FileSystem for Folder {
    fn info(&self) -> FileSystemInfo {
        self.info.clone()
    }

    fn root(&self) -> NodeId {
        self.root_id
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (_, found) = self.handle(node)?;
        let kind = FileKind::from_mode(found.mode());
        let time = |seconds, nanos: i64| Timestamp::new(seconds, u32::try_from(nanos).unwrap_or(0));
        let created = found.created().ok().map(|at| match at.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Timestamp::new(after.as_secs() as i64, after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let up = i64::from(before.subsec_nanos() > 0);
                let nanos = (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000;
                Timestamp::new(-(before.as_secs() as i64) - up, nanos)
            }
        });
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice);
        Ok(Metadata {
            allocated: found.blocks().saturating_mul(512),
            links: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            times: Times {
                modified: time(found.mtime(), found.mtime_nsec()),
                accessed: time(found.atime(), found.atime_nsec()),
                changed: time(found.ctime(), found.ctime_nsec()),
                created,
            },
            device: is_device.then(|| (fs::major(found.rdev()), fs::minor(found.rdev()))),
            ..Metadata::new(kind, found.size())
        })
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        let at = self.directory(directory)?;
        if !name.is_plain() {
            return Ok(None);
        }
        Ok(self.found(directory, &at, name)?.map(|(node, _)| node))
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let handle = self.directory(directory)?;
        let opened = self.reopen(&handle, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut list = Dir::new(opened).map_err(|error| self.failed("list a directory in")(error.into()))?;
        let mut failed = false;
        Ok(Box::new(std::iter::from_fn(move || {
            while !failed {
                let name = match list.read()? {
                    Ok(entry) => FileName::from(entry.file_name().to_bytes()),
                    Err(error) => {
                        failed = true;
                        return Some(Err(self.failed("list a directory in")(error.into())));
                    }
                };
                if !name.is_plain() {
                    continue;
                }
                let entry = match self.found(directory, &handle, &name) {
                    Ok(Some((node, kind))) => Ok(Entry::new(name, node, Some(kind))),
                    Ok(None) => Err(Error::NotFound(format!("{name}, which was listed in {}", self.path.display()))),
                    Err(error) => Err(error),
                };
                failed = entry.is_err();
                return Some(entry);
            }
            None
        })))
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        let (handle, _) = self.handle(node)?;
        match fs::readlinkat(&*handle, "", Vec::new()) {
            Ok(target) => Ok(FileName::new(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => {
                Err(Error::Invalid(format!("file {} is no symbolic link", node.number)))
            }
            Err(error) => Err(self.failed("read a link in")(error.into())),
        }
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        if let Some(stream) = stream {
            return Err(Error::NotFound(format!("stream {stream} of file {}", node.number)));
        }
        let (handle, metadata) = self.handle(node)?;
        if !metadata.is_file() {
            let kind = match FileType::from_raw_mode(metadata.mode()) {
                FileType::Directory => "a directory",
                FileType::Symlink => "a symbolic link",
                _ => "something special",
            };
            return Err(Error::NotAFile { what: format!("file {}", node.number), kind });
        }
        let file = self.reopen(&handle, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        Ok(Arc::new(OpenFile { file, size: metadata.len(), name: format!("file {}", node.number), folder: self }))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        let (handle, _) = self.handle(node)?;
        let path = proc_path(&handle);
        let names = match grown(|buffer| fs::listxattr(&*path, buffer)) {
            Ok(names) => names,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("list the attributes of a file in")(error.into())),
        };
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names
            .map(|name| {
                let value = grown(|buffer| fs::getxattr(&*path, name, buffer));
                let value = value.map_err(|error| self.failed("read an attribute of a file in")(error.into()))?;
                Ok((FileName::from(name), value))
            })
            .collect()
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folder").field(&self.path).finish()
    }
}

/// An open file of the folder.
struct OpenFile {
    // Before the folder: it may keep something mounted, which cannot end while this is open.
    file: File,
    size: u64,
    name: String,
    folder: Arc<Folder>,
}

impl Content for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            match self.file.read_at(&mut buf[done..len], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let device = format!("{} in {}", self.name, self.folder.path.display());
                    return Err(Error::Read { device, offset, len: len as u64, source });
                }
            }
        }
        Ok(done)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let (mut at, end) = (range.start, range.end.min(self.size));
        let mut extents = Vec::new();
        // Each step goes on: where data begins, then where it ends.
        while at < end {
            let failed = |error: Errno| self.folder.failed("map a file in")(error.into());
            let data = match fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data.clamp(at, end),
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => end,
                // The file system keeps no map.
                Err(Errno::INVAL | Errno::NOTSUP) => at,
                Err(error) => return Err(failed(error)),
            };
            if data > at {
                extents.push(Extent::new(at..data, ExtentKind::Hole));
            }
            if data >= end {
                break;
            }
            let hole = match fs::seek(&self.file, SeekFrom::Hole(data)) {
                Ok(hole) if hole > data => hole.min(end),
                Ok(_) | Err(Errno::INVAL | Errno::NOTSUP | Errno::NXIO) => end,
                Err(error) => return Err(failed(error)),
            };
            extents.push(Extent::new(data..hole, ExtentKind::Encoded));
            at = hole;
        }
        Ok(extents)
    }
}

/// The path by which a handle names what it holds.
fn proc_path(handle: &File) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

/// Reads what may be of any size, with larger buffers until it fits. Attributes have 64 KiB at most in Linux.
fn grown(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    for size in [1 << 10, 64 << 10, 1 << 20] {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

fn info(root: &File) -> io::Result<FileSystemInfo> {
    // The types of this field differ between processors; all kinds fit into 32 bits.
    #[allow(clippy::unnecessary_cast)]
    let kind = fs::fstatfs(root)?.f_type as u32;
    let kind = KINDS.iter().find(|(number, _)| *number == kind).map_or("folder", |(_, kind)| kind);
    let sizes = fs::fstatvfs(root)?;
    let unit = sizes.f_frsize;
    let mut info =
        FileSystemInfo::new(kind, u32::try_from(unit).unwrap_or(u32::MAX), sizes.f_blocks.saturating_mul(unit));
    info.free = Some(sizes.f_bfree.saturating_mul(unit));
    info.consistency = Consistency::NotTold;
    Ok(info)
}

/// Numbers of file systems in Linux (`statfs(2)`, `linux/magic.h`), and what we call them.
const KINDS: &[(u32, &str)] = &[
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x5346_544E, "ntfs"),
    (0x7366_746E, "ntfs"),
    (0x4D44, "vfat"),
    (0x2011_BAB0, "exfat"),
    (0x9660, "iso9660"),
    (0x6573_5546, "fuse"),
];

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn local(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Local { operation, path: path.display().to_string(), source }
}
