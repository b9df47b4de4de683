//! NTFS 1.2 to 3.1.
//!
//! Read as Windows reads it: clusters of 512 bytes to 2 MiB, attribute lists, sparse and compressed (LZNT1) files,
//! alternate streams, links, security descriptors, files compressed by WOF (CompactOS). What is deduplicated, encrypted or
//! kept in a cloud is named and refused when it is opened.
//!
//! The log is not replayed: there is no program in the open that writes logs as Windows does, against which that could be
//! proved. A volume that was in use, marked to be checked, or hibernated says so, and why.
//!
//! After the documentation of the Linux-NTFS project and MS-FSCC; no field is trusted.

mod attribute;
mod boot;
mod ea;
mod index;
mod log;
mod lznt1;
mod mft;
mod names;
mod packed;
mod plain;
mod record;
mod reparse;
mod runs;
mod security;
mod state;
mod wof;

use std::{cmp::Ordering, fmt, sync::Arc};

use self::{
    attribute::{flag, kind},
    boot::Volume,
    index::Cursor,
    mft::{Attribute, Body, File, Mft, describe},
    names::{Name, UpCase},
    packed::Packed,
    plain::Resident,
    record::Reference,
    state::State,
    wof::Wof,
};
use super::{
    Content, Entries, Entry, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId, Times, Timestamp,
};
use crate::{
    bytes::{le_u32, le_u64},
    device::Device,
    error::{Error, Result},
};

/// Opens a device that holds NTFS.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    let Some(volume) = Volume::open(device)? else { return Ok(None) };
    Ok(Some(Arc::new(Ntfs::open(volume)?)))
}

/// A volume that is open.
struct Ntfs {
    volume: Arc<Volume>,
    mft: Mft,
    upcase: UpCase,
    state: State,
    root: Reference,
}

impl Ntfs {
    fn open(volume: Volume) -> Result<Self> {
        let volume = Arc::new(volume);
        let mft = Mft::open(&volume)?;
        let root = mft.file(Reference(ROOT))?.base.reference();
        let (upcase, state) = (UpCase::open(&mft)?, State::open(&mft)?);
        let mut ntfs = Self { volume, mft, upcase, state, root };
        match ntfs.is_hibernated() {
            Ok(true) => ntfs.state.doubts.push(state::HIBERNATED.into()),
            Err(error @ Error::Read { .. }) => return Err(error),
            // What is damaged says so when somebody comes by it.
            Ok(false) | Err(_) => {}
        }
        Ok(ntfs)
    }

    /// Whether Windows has put its memory into a file, to go on from there.
    fn is_hibernated(&self) -> Result<bool> {
        let Some(node) = self.lookup(self.root(), &"hiberfil.sys".into())? else { return Ok(false) };
        let file = self.file(node)?;
        let Some(attribute) = self.mft.attribute(&file, kind::DATA, &[])? else { return Ok(false) };
        let mut head = [0; 4];
        self.content(attribute, file.base.number(), &[])?.read_at(0, &mut head)?;
        Ok(matches!(&head, b"hibr" | b"HIBR"))
    }

    fn file(&self, node: NodeId) -> Result<File> {
        if node.tree != 0 {
            return Err(Error::NotFound(format!("tree {} of the NTFS volume", node.tree)));
        }
        self.mft.file(Reference(node.number))
    }

    fn entries(&self, directory: NodeId) -> Result<Cursor> {
        let file = self.file(directory)?;
        let number = file.base.number();
        if !file.base.is_directory() {
            return Err(Error::NotADirectory(format!("file {number}")));
        }
        let lost = || Error::damaged(format!("directory {number}"), "it has no index");
        Cursor::open(&self.mft, &file, "$I30")?.ok_or_else(lost)
    }

    /// The tag of a file's reparse point, and what it holds.
    fn reparse(&self, file: &File) -> Result<Option<(u32, Vec<u8>)>> {
        let Some(point) = self.mft.attribute(file, kind::REPARSE_POINT, &[])? else { return Ok(None) };
        let value = point.whole(LONGEST_REPARSE_POINT)?;
        let damaged = || Error::damaged(format!("the reparse point of file {}", file.base.number()), "it is cut off");
        let (tag, data) = reparse::split(&value).ok_or_else(damaged)?;
        Ok(Some((tag, data.to_vec())))
    }

    /// The attribute `$STANDARD_INFORMATION`.
    fn standard(&self, file: &File) -> Result<Vec<u8>> {
        let what = || format!("the standard information of file {}", file.base.number());
        let found = self.mft.attribute(file, kind::STANDARD_INFORMATION, &[])?;
        let value = found.ok_or_else(|| Error::damaged(what(), "there is none"))?.whole(LONGEST_STANDARD)?;
        if value.len() < SHORTEST_STANDARD {
            return Err(Error::damaged(what(), format!("it has {} bytes", value.len())));
        }
        Ok(value)
    }

    /// The name of a stream as it is stored: as it was given, or else in other case.
    fn stream_name(&self, file: &File, name: &FileName) -> Result<Option<Vec<u16>>> {
        let Some(wanted) = name.to_utf16() else { return Ok(None) };
        let names = self.mft.names(file, kind::DATA)?;
        let same =
            |stored: &&Vec<u16>| self.upcase.compare(stored.iter().copied(), wanted.iter().copied()) == Ordering::Equal;
        Ok(names.get(&wanted).or_else(|| names.iter().find(same)).cloned())
    }

    /// The content of a file that WOF keeps.
    fn overlaid(&self, file: &File, reparse: &[u8]) -> Result<Arc<dyn Content>> {
        let number = file.base.number();
        let method = wof::Method::of(reparse)
            .map_err(|reason| Error::unsupported(format!("file {number} of WOF (CompactOS)"), reason))?;
        let what = describe(number, kind::DATA, &[]);
        let missing = |stream: &str| Error::damaged(&what, format!("there is no {stream}"));
        let sizes = self.mft.sizes(file, kind::DATA, &[])?;
        let (sizes, _) = sizes.ok_or_else(|| missing("stream without a name"))?;
        let name = overlay();
        let packed = self.mft.attribute(file, kind::DATA, &name)?.ok_or_else(|| missing(wof::STREAM))?;
        let packed = self.content(packed, number, &name)?;
        Ok(Arc::new(Wof::new(packed, method, sizes.data, what)?))
    }

    /// Whether WOF keeps the content of a file in a stream of it, which Windows does not show then.
    fn is_overlaid(&self, file: &File) -> Result<bool> {
        Ok(self.reparse(file)?.is_some_and(|(tag, _)| tag == reparse::WOF))
    }

    fn content(&self, attribute: Attribute, number: u64, name: &[u16]) -> Result<Arc<dyn Content>> {
        let what = describe(number, kind::DATA, name);
        if attribute.flags & flag::ENCRYPTED != 0 {
            return Err(Error::Encrypted { what, scheme: "EFS" });
        }
        Ok(match (attribute.body, attribute.flags & flag::COMPRESSION) {
            (Body::Resident(value), _) => Arc::new(Resident(value)),
            (Body::Mapped(plain, _), 0) | (Body::Mapped(plain, 0), LZNT1) => Arc::new(plain),
            (Body::Mapped(plain, unit), LZNT1) => Arc::new(Packed::new(plain, unit)?),
            (_, method) => return Err(Error::unsupported(what, format!("it is compressed by method {method}"))),
        })
    }
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntfs").field("volume", &self.volume).field("state", &self.state).finish_non_exhaustive()
    }
}

impl FileSystem for Ntfs {
    fn info(&self) -> FileSystemInfo {
        let mut info = FileSystemInfo::new("ntfs", self.volume.cluster as u32, self.volume.total);
        info.label.clone_from(&self.state.label);
        info.uuid = Some(format!("{:016X}", self.volume.serial));
        info.consistency = self.state.consistency();
        info.doubts.clone_from(&self.state.doubts);
        info
    }

    fn root(&self) -> NodeId {
        NodeId { tree: 0, number: self.root.0 }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let file = self.file(node)?;
        let standard = self.standard(&file)?;
        let attributes = le_u32(&standard, 0x20).unwrap_or(0);
        let directory = file.base.is_directory();
        let point = if attributes & REPARSE_POINT == 0 { None } else { self.reparse(&file)? };
        let kind = match &point {
            Some((tag, _)) => reparse::kind(*tag, directory),
            None if directory => FileKind::Directory,
            None => FileKind::File,
        };
        let data = self.mft.sizes(&file, kind::DATA, &[])?;
        let sizes = data.map(|(sizes, _)| sizes).unwrap_or_default();
        let mut metadata = Metadata::new(kind, sizes.data);
        metadata.allocated = sizes.allocated;
        if matches!(point, Some((reparse::WOF, _))) {
            let packed = self.mft.sizes(&file, kind::DATA, &overlay())?;
            metadata.allocated += packed.map_or(0, |(sizes, _)| sizes.allocated);
        }
        if let (FileKind::Symlink, Some((tag, data))) = (kind, &point) {
            metadata.size = reparse::target(*tag, data).map_or(0, |target| target.as_bytes().len() as u64);
            metadata.mode = 0o777;
        } else if attributes & READ_ONLY != 0 && !directory {
            metadata.mode &= !0o222;
        }
        let names = self.mft.values(&file, kind::FILE_NAME)?;
        let short = names.iter().filter(|name| Name::parse(name).is_some_and(|name| name.is_short())).count();
        metadata.links = u32::from(file.base.links()).saturating_sub(short as u32).max(1);
        let time = |at| Timestamp::from_filetime(le_u64(&standard, at).unwrap_or(0));
        metadata.times = Times { created: Some(time(0)), modified: time(8), changed: time(0x10), accessed: time(0x18) };
        metadata.attributes = Some(attributes & ATTRIBUTES | if directory { DIRECTORY } else { 0 });
        if let Some(noted) = self.mft.attribute(&file, kind::EA, &[])? {
            ea::apply(&noted.whole(ea::LONGEST)?, &mut metadata, file.base.number())?;
        }
        metadata.reparse_tag = point.map(|(tag, _)| tag);
        Ok(metadata)
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        let mut cursor = self.entries(directory)?;
        let Some(wanted) = name.to_utf16() else { return Ok(None) };
        let order = |name: &Name<'_>| self.upcase.compare(name.units(), wanted.iter().copied());
        cursor.seek(|key| Name::parse(key).map(|name| order(&name)))?;
        let mut found = None;
        // Names that differ in case only are side by side; the one that is meant is taken if it is there.
        while let Some(entry) = cursor.next()? {
            let name = Name::parse(&entry.key).ok_or_else(|| bad_name(directory))?;
            if order(&name) != Ordering::Equal {
                break;
            }
            let node = NodeId { tree: 0, number: entry.reference.0 };
            if name.units().eq(wanted.iter().copied()) {
                return Ok(Some(node));
            }
            found = found.or(Some(node));
        }
        Ok(found)
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let cursor = self.entries(directory)?;
        let is_root = Reference(directory.number).number() == ROOT;
        Ok(Box::new(Listing { cursor: Some(cursor), directory, is_root }))
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        let file = self.file(node)?;
        let number = file.base.number();
        match self.reparse(&file)? {
            Some((tag, data)) if reparse::kind(tag, false) == FileKind::Symlink => reparse::target(tag, &data)
                .ok_or_else(|| Error::damaged(format!("the link of file {number}"), "its target is not in it")),
            _ => Err(Error::Invalid(format!("file {number} is no symbolic link"))),
        }
    }

    fn open(self: Arc<Self>, node: NodeId, stream: Option<&FileName>) -> Result<Arc<dyn Content>> {
        let file = self.file(node)?;
        let number = file.base.number();
        let name = match stream {
            Some(wanted) => {
                let missing = || Error::NotFound(format!("stream {wanted} of file {number}"));
                self.stream_name(&file, wanted)?.ok_or_else(missing)?
            }
            None => {
                if let Some((tag, data)) = self.reparse(&file)? {
                    return Err(match reparse::kind(tag, file.base.is_directory()) {
                        FileKind::File if tag == reparse::WOF => return self.overlaid(&file, &data),
                        FileKind::File => reparse::refuse(tag, number),
                        kind => Error::NotAFile { what: format!("file {number}"), kind: called(kind) },
                    });
                }
                if file.base.is_directory() {
                    return Err(Error::NotAFile { what: format!("file {number}"), kind: "a directory" });
                }
                Vec::new()
            }
        };
        let missing = || Error::damaged(describe(number, kind::DATA, &name), "there is none");
        let attribute = self.mft.attribute(&file, kind::DATA, &name)?.ok_or_else(missing)?;
        self.content(attribute, number, &name)
    }

    fn streams(&self, node: NodeId) -> Result<Vec<(FileName, u64)>> {
        let file = self.file(node)?;
        let mut streams = Vec::new();
        for name in self.mft.names(&file, kind::DATA)?.into_iter().filter(|name| !name.is_empty()) {
            if name == overlay() && self.is_overlaid(&file)? {
                continue;
            }
            if let Some((sizes, _)) = self.mft.sizes(&file, kind::DATA, &name)? {
                streams.push((FileName::from_utf16(name), sizes.data));
            }
        }
        Ok(streams)
    }

    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let file = self.file(node)?;
        if let Some(own) = self.mft.attribute(&file, kind::SECURITY_DESCRIPTOR, &[])? {
            return own.whole(LONGEST_DESCRIPTOR).map(Some);
        }
        match le_u32(&self.standard(&file)?, 0x34) {
            None | Some(0) => Ok(None),
            Some(id) => security::descriptor(&self.mft, id).map(Some),
        }
    }
}

/// A directory as it is listed.
struct Listing {
    /// `None` after the end, or an error.
    cursor: Option<Cursor>,
    directory: NodeId,
    is_root: bool,
}

impl Listing {
    fn take(&mut self) -> Result<Option<Entry>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        while let Some(found) = cursor.next()? {
            let name = Name::parse(&found.key).ok_or_else(|| bad_name(self.directory))?;
            // Windows lists neither a file's short name beside its long one nor its own files in the root.
            if name.is_short() || self.is_root && found.reference.number() < FIRST_OF_USERS {
                continue;
            }
            let node = NodeId { tree: 0, number: found.reference.0 };
            return Ok(Some(Entry::new(FileName::from_utf16(name.units()), node, name.kind())));
        }
        Ok(None)
    }
}

impl Iterator for Listing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.take().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.cursor = None;
        }
        next
    }
}

fn bad_name(directory: NodeId) -> Error {
    let what = format!("directory {}", Reference(directory.number).number());
    Error::damaged(what, "a name in it contradicts itself")
}

/// The name of the stream in which WOF keeps content.
fn overlay() -> Vec<u16> {
    wof::STREAM.encode_utf16().collect()
}

fn called(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "a directory",
        FileKind::Symlink => "a symbolic link",
        FileKind::Fifo => "a named pipe",
        FileKind::Socket => "a socket",
        FileKind::BlockDevice | FileKind::CharDevice => "a device",
        FileKind::File | FileKind::Other => "a reparse point",
    }
}

/// Numbers of records.
const ROOT: u64 = 5;
const FIRST_OF_USERS: u64 = 16;
/// Flags of an attribute that is compressed.
const LZNT1: u16 = 1;
/// `FILE_ATTRIBUTE_*`.
const READ_ONLY: u32 = 1;
const DIRECTORY: u32 = 0x10;
const REPARSE_POINT: u32 = 0x400;
/// Those that Windows shows.
const ATTRIBUTES: u32 = 0x0fff_ffff;
/// MS-FSCC section 2.1.2.2.
const LONGEST_REPARSE_POINT: u64 = 16 << 10;
const LONGEST_DESCRIPTOR: u64 = 256 << 10;
/// That of NTFS 1.2.
const SHORTEST_STANDARD: usize = 0x30;
const LONGEST_STANDARD: u64 = 1 << 10;
