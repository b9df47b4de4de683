//! A file system that is made up by the test, with all that no tool makes: circles, names that lead elsewhere, errors.
#![allow(dead_code)] // Each test takes what it needs.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use vixmntapi::{
    Error, Result,
    fs::{
        Content, Entries, Entry, Extent, ExtentKind, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId,
    },
};

/// Files by number; 1 is the root.
#[derive(Debug)]
pub(crate) struct MadeUp {
    kind: &'static str,
    files: BTreeMap<u64, File>,
}

#[derive(Debug)]
struct File {
    metadata: Metadata,
    inside: Inside,
    xattrs: Vec<(FileName, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Inside {
    Bytes(Arc<Bytes>),
    Names(Vec<(Vec<u8>, u64)>),
    Target(Vec<u8>),
    Damaged,
}

impl MadeUp {
    /// With a root that holds these names.
    pub(crate) fn new(names: &[(&[u8], u64)]) -> Self {
        Self { kind: "ext4", files: BTreeMap::new() }.directory(1, names)
    }

    /// That is of another kind.
    pub(crate) fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn directory(self, number: u64, names: &[(&[u8], u64)]) -> Self {
        let names = names.iter().map(|(name, number)| (name.to_vec(), *number)).collect();
        self.add(number, FileKind::Directory, 0, Inside::Names(names))
    }

    /// A directory of which only the first names can be read.
    pub(crate) fn damaged(self, number: u64) -> Self {
        self.add(number, FileKind::Directory, 0, Inside::Damaged)
    }

    pub(crate) fn file(self, number: u64, bytes: &[u8]) -> Self {
        self.sparse(number, bytes.len() as u64, &[(0, bytes)])
    }

    /// A file with holes around these pieces.
    pub(crate) fn sparse(self, number: u64, size: u64, pieces: &[(u64, &[u8])]) -> Self {
        let pieces = pieces.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
        self.add(number, FileKind::File, size, Inside::Bytes(Arc::new(Bytes { size, pieces })))
    }

    pub(crate) fn link(self, number: u64, target: &[u8]) -> Self {
        self.add(number, FileKind::Symlink, target.len() as u64, Inside::Target(target.to_vec()))
    }

    /// A device, pipe or socket.
    pub(crate) fn special(self, number: u64, kind: FileKind) -> Self {
        self.add(number, kind, 0, Inside::Damaged).change(number, |metadata| metadata.device = Some((1, 3)))
    }

    pub(crate) fn change(mut self, number: u64, change: impl FnOnce(&mut Metadata)) -> Self {
        change(&mut self.files.get_mut(&number).unwrap().metadata);
        self
    }

    pub(crate) fn xattr(mut self, number: u64, name: &str, value: &[u8]) -> Self {
        self.files.get_mut(&number).unwrap().xattrs.push((name.into(), value.to_vec()));
        self
    }

    pub(crate) fn shared(self) -> Arc<dyn FileSystem> {
        Arc::new(self)
    }

    fn add(mut self, number: u64, kind: FileKind, size: u64, inside: Inside) -> Self {
        self.files.insert(number, File { metadata: Metadata::new(kind, size), inside, xattrs: Vec::new() });
        self
    }

    fn get(&self, node: NodeId) -> Result<&File> {
        self.files.get(&node.number).ok_or_else(|| Error::NotFound(format!("{node:?}")))
    }
}

impl FileSystem for MadeUp {
    fn info(&self) -> FileSystemInfo {
        FileSystemInfo::new(self.kind, 4096, 1 << 30)
    }

    fn root(&self) -> NodeId {
        NodeId { tree: 0, number: 1 }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.get(node)?.metadata.clone())
    }

    fn lookup(&self, directory: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        match &self.get(directory)?.inside {
            Inside::Names(names) => {
                let found = names.iter().find(|(other, _)| other == name.as_bytes());
                Ok(found.map(|(_, number)| NodeId { tree: 0, number: *number }))
            }
            _ => Err(Error::NotADirectory(format!("{directory:?}"))),
        }
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let damage = || Error::Damaged { what: "a directory".into(), problem: "as the test wants it".into() };
        match self.get(directory)?.inside.clone() {
            Inside::Names(names) => Ok(Box::new(
                names
                    .into_iter()
                    .map(|(name, number)| Ok(Entry::new(FileName::new(name), NodeId { tree: 0, number }, None))),
            )),
            Inside::Damaged => Ok(Box::new([Err(damage())].into_iter())),
            _ => Err(Error::NotADirectory(format!("{directory:?}"))),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<FileName> {
        match &self.get(node)?.inside {
            Inside::Target(target) => Ok(FileName::new(target.clone())),
            _ => Err(Error::Invalid("no link".into())),
        }
    }

    fn open(self: Arc<Self>, node: NodeId, _: Option<&FileName>) -> Result<Arc<dyn Content>> {
        match &self.get(node)?.inside {
            Inside::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(Error::NotAFile { what: format!("{node:?}"), kind: "something else" }),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        Ok(self.get(node)?.xattrs.clone())
    }
}

#[derive(Debug)]
struct Bytes {
    size: u64,
    /// Ascending, apart from each other.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(self.size.saturating_sub(offset) as usize);
        for (at, byte) in buf[..len].iter_mut().enumerate() {
            let at = offset + at as u64;
            let piece = self.pieces.iter().find(|(start, bytes)| (*start..start + bytes.len() as u64).contains(&at));
            *byte = piece.map_or(0, |(start, bytes)| bytes[(at - start) as usize]);
        }
        Ok(len)
    }

    fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        let end = range.end.min(self.size);
        let mut at = range.start;
        let mut extents = Vec::new();
        let mut push = |range: Range<u64>, kind| {
            if range.start < range.end {
                extents.push(Extent::new(range, kind));
            }
        };
        for (start, bytes) in &self.pieces {
            let piece = (*start).max(at)..(start + bytes.len() as u64).min(end);
            if piece.start < piece.end {
                push(at..piece.start, ExtentKind::Hole);
                push(piece.clone(), ExtentKind::Encoded);
                at = piece.end;
            }
        }
        push(at..end, ExtentKind::Hole);
        Ok(extents)
    }
}
