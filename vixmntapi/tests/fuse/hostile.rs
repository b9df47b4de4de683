//! File systems that mean harm, and readers that fail.

use std::{
    fs::{self, File},
    io::Read,
    ops::Range,
    path::Path,
    process::Command,
    sync::Arc,
};

use rustix::io::Errno;
use vixmntapi::{
    Error, Result,
    fs::{Content, Entries, Entry, Extent, FileKind, FileName, FileSystem, FileSystemInfo, Metadata, NodeId},
};

use crate::{made_up::MadeUp, support::Mounted};

fn code(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap()
}

/// The names in a directory, and how its list ended.
fn list(path: &Path) -> (Vec<String>, Option<Errno>) {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => return (names, Some(code(error))),
        }
    }
    (names, None)
}

#[test]
fn names_that_cannot_be_here_are_left_out_and_the_list_ends_with_an_error() {
    for bad in [&b"a/b"[..], b"..", b".", b"", b"nul\0", &[b'x'; 1025]] {
        let files = MadeUp::new(&[(b"first", 2), (bad, 2), (b"last", 2)]).file(2, b"bytes").shared();
        let Some(mounted) = Mounted::of(files) else { return };
        let bad = bad.escape_ascii();
        assert_eq!(list(mounted.path()), (vec!["first".into(), "last".into()], Some(Errno::IO)), "{bad}");
        assert_eq!(fs::read(mounted.path().join("last")).unwrap(), b"bytes", "{bad}");
        // No program takes it for the whole.
        assert!(!Command::new("find").arg(mounted.path()).output().unwrap().status.success(), "{bad}");
    }
}

#[test]
fn what_is_damaged_is_an_error_of_its_own_and_the_rest_is_read() {
    let files = MadeUp::new(&[(b"bad", 2), (b"nowhere", 9), (b"good", 3), (b"odd", 4)])
        .damaged(2)
        .file(3, b"good")
        .link(4, b"nul\0here")
        .shared();
    let Some(mounted) = Mounted::of(files) else { return };
    let path = mounted.path();
    assert_eq!(list(&path.join("bad")), (vec![], Some(Errno::IO)));
    let (mut names, end) = list(path);
    names.sort();
    // A name whose file cannot be read is listed: that it is there is known.
    assert_eq!((names, end), (["bad", "good", "nowhere", "odd"].map(String::from).to_vec(), None));
    assert_eq!(code(fs::metadata(path.join("nowhere")).unwrap_err()), Errno::NOENT);
    assert_eq!(code(fs::read_link(path.join("odd")).unwrap_err()), Errno::IO);
    assert_eq!(fs::read(path.join("good")).unwrap(), b"good");
}

#[test]
fn directories_in_circles_end() {
    let files =
        MadeUp::new(&[(b"a", 2), (b"root", 1)]).directory(2, &[(b"b", 3)]).directory(3, &[(b"a", 2), (b"b", 3)]);
    let Some(mounted) = Mounted::of(files.shared()) else { return };
    let path = mounted.path();
    assert_eq!(code(fs::metadata(path.join("root")).unwrap_err()), Errno::IO);
    assert_eq!(list(path), (vec!["a".into()], Some(Errno::IO)));
    let found = Command::new("find").arg(path).output().unwrap();
    assert!(found.stdout.split(|byte| *byte == b'\n').count() < 10, "{}", String::from_utf8_lossy(&found.stdout));
    assert!(!found.status.success());
}

#[test]
fn a_panic_of_a_reader_costs_its_call_and_no_more() {
    let Some(mut mounted) = Mounted::of(Arc::new(Panics)) else { return };
    let path = mounted.path().to_owned();
    for _ in 0..20 {
        for bad in ["metadata", "lookup"] {
            assert_eq!(code(fs::symlink_metadata(path.join(bad)).unwrap_err()), Errno::IO, "{bad}");
        }
        assert_eq!(code(File::open(path.join("open")).unwrap_err()), Errno::IO);
        let mut file = File::open(path.join("read")).unwrap();
        assert_eq!(code(file.read(&mut [0; 10]).unwrap_err()), Errno::IO);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Err(Errno::IO));
        assert_eq!(code(fs::read_link(path.join("link")).unwrap_err()), Errno::IO);
        assert_eq!(rustix::fs::llistxattr(path.join("read"), &mut [0; 100]), Err(Errno::IO));
        assert_eq!(list(&path.join("folder")).1, Some(Errno::IO));
    }
    assert_eq!(list(&path), (vec!["one".into(), "two".into()], None));
    assert!(mounted.mount.is_mounted());
    mounted.mount.unmount().unwrap();
    assert_eq!(list(&path), (vec![], None));
}

/// A file system whose readers panic, each in the call that it is named for.
#[derive(Debug)]
struct Panics;

const NAMES: [&str; 6] = ["metadata", "lookup", "open", "read", "link", "folder"];

impl FileSystem for Panics {
    fn info(&self) -> FileSystemInfo {
        FileSystemInfo::new("ext4", 4096, 0)
    }

    fn root(&self) -> NodeId {
        NodeId { tree: 0, number: 2 }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(match node.number {
            2 | 105 => Metadata::new(FileKind::Directory, 0),
            100 => panic!("metadata, as the test wants it"),
            104 => Metadata::new(FileKind::Symlink, 3),
            _ => Metadata::new(FileKind::File, 3),
        })
    }

    fn lookup(&self, _: NodeId, name: &FileName) -> Result<Option<NodeId>> {
        assert!(*name != *"lookup", "lookup, as the test wants it");
        let at = NAMES.iter().position(|other| name == *other);
        Ok(at.map(|at| NodeId { tree: 0, number: 100 + at as u64 }))
    }

    fn read_dir(self: Arc<Self>, directory: NodeId) -> Result<Entries> {
        let is_root = directory == self.root();
        let entry = move |number: u64| {
            assert!(is_root || number == 7, "a list, as the test wants it");
            let name = if number == 7 { "one" } else { "two" };
            Ok(Entry::new(name.into(), NodeId { tree: 0, number }, Some(FileKind::File)))
        };
        Ok(Box::new((7..9).map(entry)))
    }

    fn read_link(&self, _: NodeId) -> Result<FileName> {
        panic!("a link, as the test wants it")
    }

    fn open(self: Arc<Self>, node: NodeId, _: Option<&FileName>) -> Result<Arc<dyn Content>> {
        assert!(node.number != 102, "open, as the test wants it");
        Ok(Arc::new(Panics))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(FileName, Vec<u8>)>> {
        Err(Error::Damaged { what: format!("{node:?}"), problem: "as the test wants it".into() })
    }
}

impl Content for Panics {
    fn size(&self) -> u64 {
        3
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<usize> {
        panic!("bytes, as the test wants it")
    }

    fn extents(&self, _: Range<u64>) -> Result<Vec<Extent>> {
        panic!("a map, as the test wants it")
    }
}
