//! The kernel's questions and our answers.

use std::{
    cell::RefCell,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, OpenAccMode,
    OpenFlags,
};

use super::{
    Failure,
    attributes::{attributes, errno, file_type, unreadable},
    directory::Directory,
    handles::{Handles, OpenFile, Sought},
    ids::{Ids, Place},
    source::Source,
};
use crate::{
    error::{Error, Result},
    fs::{FileKind, FileName, Metadata, Timestamp, spans},
};

/// Answers the kernel, on many threads at once.
pub(super) struct Session {
    pub(super) source: Source,
    pub(super) ids: Ids,
    pub(super) files: Handles<OpenFile>,
    pub(super) directories: Handles<OpenDirectory>,
    /// Whether the kernel is to heed the guest's permissions and ACLs.
    pub(super) checks_permissions: bool,
    /// When it was mounted, for the folder that holds those of volumes.
    pub(super) since: Timestamp,
}

/// What is listed: the folders of volumes, or a directory of one.
pub(super) enum OpenDirectory {
    Top,
    In { volume: usize, listing: Box<Mutex<Directory>> },
}

/// An entry of a directory for the kernel.
struct Listed<'a> {
    /// Its place, which the parent of a directory has not.
    place: Option<Place>,
    name: &'a [u8],
    kind: Option<FileKind>,
    /// The offset of what comes after it.
    next: u64,
}

impl Session {
    /// Does the work of one question. An error is logged and becomes the number that programs get; so does a panic of
    /// a reader, after which all other questions are still answered.
    pub(super) fn answer<T>(
        &self,
        question: &'static str,
        id: INodeNo,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Errno> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Code(code))) => Err(code),
            Ok(Err(Failure::Guest(error))) => {
                let place = self.ids.place(id.0);
                let code = errno(&error);
                if code == Errno::ENOENT {
                    tracing::debug!(question, ?place, %error, "a file of a guest is not there");
                } else {
                    let source = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::warn!(question, ?place, %error, source, "a file of a guest cannot be read");
                }
                Err(code)
            }
            Err(_) => {
                tracing::error!(question, place = ?self.ids.place(id.0), "a reader panicked");
                Err(Errno::EIO)
            }
        }
    }

    pub(super) fn place(&self, id: INodeNo) -> Result<Place, Failure> {
        self.ids.place(id.0).ok_or(Failure::Code(Errno::ESTALE))
    }

    pub(super) fn init(&self, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS;
        if self.checks_permissions {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        // An old kernel without one of them is slower, no more.
        let _ = config.add_capabilities(wanted & config.capabilities());
        let _ = config.set_max_background(READS_AHEAD);
        let _ = config.set_max_readahead(READ_AHEAD).or_else(|most| config.set_max_readahead(most));
        Ok(())
    }

    fn metadata(&self, place: Place) -> Result<Metadata, Failure> {
        match place {
            Place::In { volume, node } => Ok(self.source.files(volume)?.metadata(node)?),
            Place::Top => {
                let mut top = Metadata::new(FileKind::Directory, 0);
                (top.mode, top.links) = (0o555, 2 + self.source.slots.len() as u32);
                (top.times.modified, top.times.accessed, top.times.changed) = (self.since, self.since, self.since);
                Ok(top)
            }
        }
    }

    pub(super) fn lookup(&self, directory: INodeNo, name: &OsStr) -> Result<FileAttr, Failure> {
        let found = match self.place(directory)? {
            Place::Top => self.source.folder(name.as_bytes()),
            Place::In { volume, node } => {
                let name = FileName::from(name.as_bytes());
                let found = self.source.files(volume)?.lookup(node, &name)?;
                if found.is_some() && found == self.source.root(volume) {
                    return Err(Error::damaged(format!("directory {}", node.number), "it holds the root").into());
                }
                found.map(|node| Place::In { volume, node })
            }
        };
        let place = found.ok_or(Failure::Code(Errno::ENOENT))?;
        let metadata = self.metadata(place)?;
        Ok(attributes(self.ids.remember(place)?, &metadata, self.source.block_size(place)))
    }

    pub(super) fn attributes(&self, id: INodeNo) -> Result<FileAttr, Failure> {
        let place = self.place(id)?;
        let metadata = self.metadata(place)?;
        // The folder that is mounted shows the guest's number of it.
        let shown = if id == INodeNo::ROOT { self.ids.shown_root() } else { id.0 };
        Ok(attributes(shown, &metadata, self.source.block_size(place)))
    }

    pub(super) fn read_link(&self, id: INodeNo) -> Result<FileName, Failure> {
        let Place::In { volume, node } = self.place(id)? else { return Err(Failure::Code(Errno::EINVAL)) };
        let target = self.source.files(volume)?.read_link(node)?;
        match target.as_bytes() {
            bytes if bytes.is_empty() || bytes.contains(&0) => {
                Err(Error::damaged(format!("link {}", node.number), format!("it leads to {target:?}")).into())
            }
            bytes if bytes.len() >= PATH_MAX => Err(Failure::Code(Errno::ENAMETOOLONG)),
            _ => Ok(target),
        }
    }

    pub(super) fn open(&self, id: INodeNo, flags: OpenFlags) -> Result<FileHandle, Failure> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(Failure::Code(Errno::EROFS));
        }
        let Place::In { volume, node } = self.place(id)? else { return Err(Failure::Code(Errno::EISDIR)) };
        let files = self.source.files(volume)?;
        let content = files.clone().open(node, None)?;
        let (size, said) = (content.size(), files.metadata(node)?.size);
        if size != said {
            // The kernel would show zeros for what is missing.
            let problem = format!("its content has {size} bytes, not {said}");
            return Err(Error::damaged(format!("file {}", node.number), problem).into());
        }
        Ok(FileHandle(self.files.insert(OpenFile::new(content))?))
    }

    /// Reads and hands the bytes to `reply`. An answer shorter than the question is the end of the file for the kernel.
    pub(super) fn read<R>(
        &self,
        handle: FileHandle,
        offset: u64,
        size: u32,
        reply: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Failure> {
        let file = self.files.get(handle.0)?;
        let left = file.content.size().saturating_sub(offset);
        let len = left.min(size.into()) as usize;
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let buffer = buffer.get_mut(..len).unwrap_or_default();
            spans::read_all(&*file.content, offset, buffer)?;
            Ok(reply(buffer))
        })
    }

    pub(super) fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Result<i64, Failure> {
        let sought = match whence {
            SEEK_DATA => Sought::Data,
            SEEK_HOLE => Sought::Hole,
            _ => return Err(Failure::Code(Errno::EINVAL)),
        };
        let offset = u64::try_from(offset).map_err(|_| Failure::Code(Errno::ENXIO))?;
        let found = self.files.get(handle.0)?.seek(offset, sought)?;
        i64::try_from(found).map_err(|_| Failure::Code(Errno::EOVERFLOW))
    }

    pub(super) fn open_directory(&self, id: INodeNo) -> Result<FileHandle, Failure> {
        let open = match self.place(id)? {
            Place::Top => OpenDirectory::Top,
            Place::In { volume, node } => {
                let root = self.source.root(volume);
                OpenDirectory::In {
                    volume,
                    listing: Box::new(Mutex::new(Directory::new(self.source.files(volume)?, node, root))),
                }
            }
        };
        Ok(FileHandle(self.directories.insert(open)?))
    }

    /// Lists from an offset on until `add` says that no more fits. An error is told when it is the first thing to tell:
    /// the kernel asks again after what came before.
    fn list(
        &self,
        handle: FileHandle,
        offset: u64,
        mut add: impl FnMut(Listed<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let directory = self.directories.get(handle.0)?;
        let mut listing = match &*directory {
            OpenDirectory::Top => None,
            OpenDirectory::In { volume, listing } => {
                Some((*volume, listing.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        };
        let mut at = offset;
        loop {
            let next = at + 1;
            // The kernel shows `.` and `..` and does not look at what they are.
            let full = match at {
                0 => add(Listed { place: None, name: b".", kind: None, next }),
                1 => add(Listed { place: None, name: b"..", kind: None, next }),
                _ => match &mut listing {
                    None => {
                        let volume = (at - 2) as usize;
                        let Some(slot) = self.source.slots.get(volume) else { return Ok(()) };
                        let name = slot.name.as_bytes();
                        add(Listed { place: self.source.place(volume), name, kind: Some(FileKind::Directory), next })
                    }
                    Some((volume, listing)) => match listing.at(at - 2) {
                        Ok(None) => return Ok(()),
                        Ok(Some(entry)) => add(Listed {
                            place: Some(Place::In { volume: *volume, node: entry.node }),
                            name: entry.name.as_bytes(),
                            kind: entry.kind,
                            next,
                        }),
                        Err(_) if at > offset => return Ok(()),
                        Err(error) => return Err(error.into()),
                    },
                },
            };
            match full {
                Ok(false) => at = next,
                Ok(true) => return Ok(()),
                Err(_) if at > offset => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Lists names. Where a directory does not say what its entries are, they are looked at.
    pub(super) fn list_names(
        &self,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut fuser::ReplyDirectory,
    ) -> Result<(), Failure> {
        self.list(handle, offset, |entry| {
            let (number, kind) = match (entry.place, entry.kind) {
                (None, _) => (if entry.next == 1 { self.dot(id) } else { UNKNOWN }, FileType::Directory),
                (Some(place), Some(kind)) => (self.ids.id(place), file_type(kind)),
                (Some(place), None) => {
                    let kind = self.metadata(place).map_or(FileType::RegularFile, |metadata| file_type(metadata.kind));
                    (self.ids.id(place), kind)
                }
            };
            Ok(reply.add(INodeNo(number), entry.next, kind, OsStr::from_bytes(entry.name)))
        })
    }

    /// Lists names with what `stat` would tell of them.
    pub(super) fn list_with_attributes(
        &self,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: &mut fuser::ReplyDirectoryPlus,
    ) -> Result<(), Failure> {
        self.list(handle, offset, |entry| {
            let name = OsStr::from_bytes(entry.name);
            let mut add = |attributes: &FileAttr, valid| {
                reply.add(attributes.ino, entry.next, name, &valid, attributes, Generation(0))
            };
            let Some(place) = entry.place else {
                let number = if entry.next == 1 { self.dot(id) } else { UNKNOWN };
                return Ok(add(&unreadable(number, Some(FileKind::Directory)), Duration::ZERO));
            };
            let number = self.ids.remember(place)?;
            let full = match self.metadata(place) {
                Ok(metadata) => add(&attributes(number, &metadata, self.source.block_size(place)), FOREVER),
                Err(_) => add(&unreadable(number, entry.kind), Duration::ZERO),
            };
            if full {
                self.ids.forget(number, 1);
            }
            Ok(full)
        })
    }

    /// The number of the directory that is listed, for its `.`.
    fn dot(&self, id: INodeNo) -> u64 {
        if id == INodeNo::ROOT { self.ids.shown_root() } else { id.0 }
    }

    /// One extended attribute. Besides those of the file there is, by the names that ntfs-3g has for them and unlisted
    /// as there, what only Windows has.
    pub(super) fn xattr(&self, id: INodeNo, name: &OsStr) -> Result<Vec<u8>, Failure> {
        let Place::In { volume, node } = self.place(id)? else { return Err(Failure::Code(Errno::NO_XATTR)) };
        let files = self.source.files(volume)?;
        let of_windows = match name.as_bytes() {
            b"system.ntfs_acl" => files.security_descriptor(node)?,
            b"system.ntfs_attrib_be" => files.metadata(node)?.attributes.map(|bits| bits.to_be_bytes().to_vec()),
            _ => None,
        };
        if let Some(value) = of_windows {
            return Ok(value);
        }
        let found = files.xattrs(node)?.into_iter().find(|(other, _)| other.as_bytes() == name.as_bytes());
        found.map(|(_, value)| value).ok_or(Failure::Code(Errno::NO_XATTR))
    }

    /// The names of all extended attributes, each with a NUL after it. What can be no name of one here is left out.
    pub(super) fn xattr_names(&self, id: INodeNo) -> Result<Vec<u8>, Failure> {
        let mut names = Vec::new();
        if let Place::In { volume, node } = self.place(id)? {
            for (name, _) in self.source.files(volume)?.xattrs(node)? {
                let name = name.as_bytes();
                if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
                    tracing::warn!(name = %name.escape_ascii(), ?node, "an extended attribute is left out for its name");
                    continue;
                }
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        Ok(names)
    }

    pub(super) fn statistics(&self, id: INodeNo) -> Result<Statistics, Failure> {
        let volumes = match self.place(id)? {
            Place::In { volume, .. } => volume..volume + 1,
            Place::Top => 0..self.source.slots.len(),
        };
        let mut sum = Statistics { block_size: 4096, name_len: 255, ..Statistics::default() };
        let only = volumes.len() == 1;
        for volume in volumes {
            let Ok(files) = self.source.files(volume) else { continue };
            let info = files.info();
            if only {
                sum.block_size = info.block_size.max(512);
            }
            let blocks = |bytes: u64| bytes / u64::from(sum.block_size);
            sum.blocks = sum.blocks.saturating_add(blocks(info.total));
            sum.free = sum.free.saturating_add(blocks(info.free.unwrap_or(0)));
            if matches!(info.kind, "ntfs" | "vfat" | "exfat") {
                sum.name_len = NAME_OF_WINDOWS;
            }
        }
        Ok(sum)
    }
}

/// The answer to `statfs`, in blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) free: u64,
    pub(super) name_len: u32,
}

thread_local! {
    /// Of this thread, for what is read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Nothing behind a mount ever changes: the kernel may keep what it was told as long as it has the memory.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 86400);
/// What was read of a file stays right as well.
pub(super) const KEEP: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;
/// The same for what directories hold.
pub(super) const KEEP_LIST: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_CACHE_DIR);
/// The number of a directory's parent in its list, which nobody looks at: `stat` tells the right one. As libfuse has it.
const UNKNOWN: u64 = 0xffff_ffff;
/// Reads ahead that the kernel has under way at once, and bytes of each; it takes less where it is told to.
const READS_AHEAD: u16 = 64;
const READ_AHEAD: u32 = 1 << 20;
/// With the NUL at its end.
const PATH_MAX: usize = 4096;
const XATTR_NAME_MAX: usize = 255;
/// 255 units of UTF-16.
const NAME_OF_WINDOWS: u32 = 255 * 3;
/// For `lseek`, as Linux numbers them.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
