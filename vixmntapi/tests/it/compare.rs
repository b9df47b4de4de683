//! Walks a file system through our trait and compares it with what is known to be in it.
#![allow(dead_code)] // Each reader takes what its format can hold.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use vixmntapi::{
    Result,
    device::Device,
    fs::{Content, ExtentKind, FileKind, FileName, FileSystem, Metadata, NodeId},
};

pub(crate) use crate::hostile::walk_hostile;
use crate::tree::{Digest, Digester, Manifest, Node};

/// What is compared besides names, kinds, sizes and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compare {
    /// Mode, owner and group.
    pub(crate) owners: bool,
    /// When the content changed, in units of so many nanoseconds; 0 for not at all.
    pub(crate) modified: u64,
    /// Extended attributes.
    pub(crate) xattrs: bool,
    /// Hard links: their number, and that they are one file.
    pub(crate) links: bool,
}

impl Compare {
    /// Everything, as file systems of Linux have it.
    pub(crate) const ALL: Self = Self { owners: true, modified: 1, xattrs: true, links: true };
    /// Names, kinds, sizes and bytes only.
    pub(crate) const CONTENT: Self = Self { owners: false, modified: 0, xattrs: false, links: false };
}

/// Fails the test when a file system differs from the manifest in anything, in either direction. `device` is what the
/// file system was opened on; what it says to lie there plainly is read there.
pub(crate) fn assert_same(fs: &Arc<dyn FileSystem>, device: &Arc<dyn Device>, manifest: &Manifest, what: Compare) {
    let found = walk(fs);
    let mut problems = Vec::new();
    for path in found.keys().filter(|path| !manifest.0.contains_key(*path)) {
        problems.push(format!("{}: should not be there", path.escape_ascii()));
    }
    for (path, expected) in &manifest.0 {
        match found.get(path) {
            None => problems.push(format!("{}: is missing", path.escape_ascii())),
            Some(node) => {
                let seen = look(fs, device, *node, what);
                let same_as = expected.same_as.as_ref().filter(|_| what.links).and_then(|first| found.get(first));
                let problem = match seen {
                    Err(error) => Some(format!("{error:?}")),
                    Ok(_) if same_as.is_some_and(|first| first != node) => {
                        Some("is not one file with its links".into())
                    }
                    Ok(seen) => difference(path, &seen, expected, what),
                };
                problems.extend(problem.map(|problem| format!("{}: {problem}", path.escape_ascii())));
            }
        }
    }
    problems.extend(look_up(fs, &found));
    let shown: Vec<_> = problems.iter().take(20).map(String::as_str).collect();
    assert!(problems.is_empty(), "{} differences among {}:\n{}", problems.len(), manifest.0.len(), shown.join("\n"));
}

/// Finds every path. A directory that cannot be listed, a name twice or a path that goes on for ever fails the test.
pub(crate) fn walk(fs: &Arc<dyn FileSystem>) -> BTreeMap<Vec<u8>, NodeId> {
    let mut found = BTreeMap::from([(Vec::new(), fs.root())]);
    let mut open = vec![(Vec::new(), fs.root())];
    while let Some((path, node)) = open.pop() {
        assert!(path.len() < 4096, "an endless path: {}", path.escape_ascii());
        let entries = fs.clone().read_dir(node).unwrap_or_else(|error| panic!("{}: {error:?}", path.escape_ascii()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("in {}: {error:?}", path.escape_ascii()));
            assert!(entry.name.is_plain(), "{:?} in {}", entry.name, path.escape_ascii());
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(entry.name.as_bytes());
            let kind =
                fs.metadata(entry.node).unwrap_or_else(|error| panic!("{}: {error:?}", below.escape_ascii())).kind;
            assert!(entry.kind.is_none_or(|said| said == kind), "{}: {entry:?} is {kind:?}", below.escape_ascii());
            if kind == FileKind::Directory {
                open.push((below.clone(), entry.node));
            }
            assert!(found.insert(below.clone(), entry.node).is_none(), "{} is listed twice", below.escape_ascii());
        }
    }
    found
}

fn look(fs: &Arc<dyn FileSystem>, device: &Arc<dyn Device>, id: NodeId, what: Compare) -> Result<Node> {
    let meta: Metadata = fs.metadata(id)?;
    let target = match meta.kind {
        FileKind::Symlink => Some(fs.read_link(id)?.as_bytes().to_vec()),
        _ => None,
    };
    let digest = match meta.kind {
        FileKind::File => {
            let content = fs.clone().open(id, None)?;
            assert_eq!(content.size(), meta.size);
            Some(read(&*content, device)?)
        }
        _ => None,
    };
    let xattrs = if what.xattrs { fs.xattrs(id)? } else { Vec::new() };
    Ok(Node {
        kind: meta.kind,
        size: if matches!(meta.kind, FileKind::File | FileKind::Symlink) { meta.size } else { 0 },
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        modified: meta.times.modified,
        links: meta.links,
        same_as: None,
        target,
        device: meta.device,
        xattrs: xattrs.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect(),
        digest,
    })
}

/// Reads a file and holds its map against its bytes.
fn read(content: &dyn Content, device: &Arc<dyn Device>) -> Result<Digest> {
    let size = content.size();
    let extents = content.extents(0..size)?;
    let mut digester = Digester::default();
    let mut at = 0;
    for extent in &extents {
        assert_eq!(extent.range.start, at, "a gap in the map: {extents:?}");
        assert!(extent.range.start < extent.range.end && extent.range.end <= size, "{extents:?}");
        at = extent.range.end;
    }
    assert_eq!(at, size, "the map ends early: {extents:?}");
    let mut at = 0;
    let mut buffer = vec![0; CHUNK as usize];
    let mut stored = vec![0; CHUNK as usize];
    while at < size {
        let end = (at + CHUNK).min(size);
        let here: Vec<_> = extents.iter().filter(|part| part.range.start < end && part.range.end > at).collect();
        let zeros = |kind| matches!(kind, ExtentKind::Hole | ExtentKind::Unwritten);
        // Long runs of zeros are believed but for their ends.
        if here.len() == 1 && zeros(here[0].kind) && at != 0 && end != size && here[0].range.start + CHUNK < at {
            at = end;
            continue;
        }
        let bytes = &mut buffer[..(end - at) as usize];
        bytes.fill(0xaa);
        assert_eq!(content.read_at(at, bytes)?, bytes.len(), "a short read at {at} of {size}");
        digester.feed(at, bytes);
        for part in here {
            let (from, to) = (part.range.start.max(at), part.range.end.min(end));
            let bytes = &bytes[(from - at) as usize..(to - at) as usize];
            match part.kind {
                ExtentKind::Stored(place) => {
                    let stored = &mut stored[..bytes.len()];
                    device.read_at(place + (from - part.range.start), stored)?;
                    assert!(bytes == stored, "{part:?} does not lie there");
                }
                kind if zeros(kind) => assert!(bytes.iter().all(|byte| *byte == 0), "{part:?} is not zero"),
                _ => {}
            }
        }
        at = end;
    }
    assert_eq!(content.read_at(size, &mut [0; 10])?, 0, "bytes after the end");
    assert_eq!(content.read_at(size.saturating_sub(3), &mut [0; 10])?, size.min(3) as usize, "the end is cut");
    Ok(digester.finish())
}

fn difference(path: &[u8], seen: &Node, expected: &Node, what: Compare) -> Option<String> {
    let mut wanted = expected.clone();
    wanted.same_as = None;
    if !what.owners {
        (wanted.mode, wanted.uid, wanted.gid) = (seen.mode, seen.uid, seen.gid);
    }
    if !what.links || (path.is_empty() && wanted.kind == FileKind::Directory) {
        wanted.links = seen.links;
    }
    if !what.xattrs {
        wanted.xattrs.clear();
    }
    let units = |node: &Node| {
        let time = node.modified;
        (i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)).div_euclid(i128::from(what.modified.max(1)))
    };
    if what.modified == 0 || units(seen) == units(&wanted) {
        wanted.modified = seen.modified;
    }
    (*seen != wanted).then(|| format!("is {seen:?}\n    not {wanted:?}"))
}

/// Looks names up one by one: all of small directories, some of large ones, and some that are not there.
fn look_up(fs: &Arc<dyn FileSystem>, found: &BTreeMap<Vec<u8>, NodeId>) -> Vec<String> {
    let mut of_directory: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    for path in found.keys().filter(|path| !path.is_empty()) {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (directory, name) = cut.map_or((&path[..0], &path[..]), |cut| (&path[..cut], &path[cut + 1..]));
        of_directory.entry(directory).or_default().push(name);
    }
    let mut problems = Vec::new();
    for (directory, names) in of_directory {
        let node = found[directory];
        for name in names.iter().step_by(names.len().div_ceil(200)) {
            let path = [directory, name].join(&b"/"[..if directory.is_empty() { 0 } else { 1 }]);
            match fs.lookup(node, &FileName::from(*name)) {
                Ok(Some(id)) if id == found[&path] => {}
                other => problems.push(format!("{} is looked up as {other:?}", path.escape_ascii())),
            }
        }
        let absent = ["not there", "file-99999.txt", "x"].into_iter().filter(|name| !names.contains(&name.as_bytes()));
        for name in absent {
            match fs.lookup(node, &FileName::from(name)) {
                Ok(None) => {}
                other => problems.push(format!("{name} in {} is looked up as {other:?}", directory.escape_ascii())),
            }
        }
    }
    problems
}

const CHUNK: u64 = 1 << 20;
