//! Trees of files with everything that readers get wrong, and what is to be found in them.
#![allow(dead_code)] // Each reader takes what its format can hold.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use vixmntapi::fs::{FileKind, Timestamp};

/// A tree in a temporary directory, made up part by part, so that each format gets what it can hold.
pub(crate) struct Tree {
    root: TempDir,
}

impl Tree {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// Everything that a file system of Linux holds, with `many` files in one directory.
    pub(crate) fn linux(many: usize) -> Self {
        Self::new().many(many).deep(40).sizes().sparse(3 << 30).names(Names::Bytes).links().xattrs().modes().times()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Small files in one directory, `many/file-00000.txt` and so on, each with its own number in it.
    pub(crate) fn many(self, count: usize) -> Self {
        let folder = self.folder("many");
        for number in 0..count {
            fs::write(folder.join(format!("file-{number:05}.txt")), format!("{number}\n")).unwrap();
        }
        self
    }

    /// Directories in each other, with a file in the innermost.
    pub(crate) fn deep(self, levels: usize) -> Self {
        let mut folder = self.folder("deep");
        for level in 0..levels {
            folder.push(format!("level-{level}"));
        }
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bottom"), "here").unwrap();
        self
    }

    /// Files of sizes around the edges of blocks and of what inodes hold, up to 5 MB, with bytes that do not repeat.
    pub(crate) fn sizes(self) -> Self {
        let folder = self.folder("sizes");
        let mut sizes = vec![0, 1, 59, 60, 61, 100, 127, 128, 160, 300, 600, 700, 900];
        for edge in [512, 1024, 2048, 4096, 12 << 10, 16 << 10, 48 << 10, 64 << 10, 268 << 10, 1 << 20] {
            sizes.extend([edge - 1, edge, edge + 1]);
        }
        sizes.push(5_000_000);
        for size in sizes {
            fs::write(folder.join(format!("{size}.bin")), noise(size)).unwrap();
        }
        self
    }

    /// A file of `size` bytes of which few are stored: some at the start, around the middle and at the end.
    pub(crate) fn sparse(self, size: u64) -> Self {
        let file = File::create(self.folder("sparse").join("holes.bin")).unwrap();
        file.set_len(size).unwrap();
        for at in [0, 70_000, size / 2 - 5000, size / 2 + 1_000_000, size - 10_000] {
            file.write_all_at(&noise(9_999), at).unwrap();
        }
        File::create(self.path().join("sparse/nothing.bin")).unwrap().set_len(10 << 20).unwrap();
        self
    }

    /// Names that are easily mangled.
    pub(crate) fn names(self, names: Names) -> Self {
        let folder = self.folder("names");
        let mut all: Vec<Vec<u8>> = [
            "with space",
            "trailing.dots.txt",
            "caf\u{e9} composed",
            "cafe\u{301} decomposed",
            "\u{6f22}\u{5b57}.txt",
            "\u{1f600} emoji \u{1f9d1}\u{200d}\u{1f680}",
            "\u{fffd}",
            "UPPER and lower",
            "a",
            "quote's & (all) #1;%20",
            "-rf",
            "\u{645}\u{631}\u{62d}\u{628}\u{627}",
        ]
        .map(|name| name.as_bytes().to_vec())
        .into();
        all.push(vec![b'n'; 255]);
        if names != Names::Portable {
            all.extend(
                ["new\nline", "back\\slash", "col:on", "star*?", "tab\there", "...", "trailing ", "con", "<>|\""]
                    .map(|name| name.as_bytes().to_vec()),
            );
            all.push("\u{6f22}".repeat(85).into_bytes()); // 255 bytes
        }
        if names == Names::Bytes {
            all.extend([&b"latin-1 \xe9\xe8"[..], b"\xff\xfe", b"\x01\x7f", b"half \xed\xa0\xbd"].map(<[u8]>::to_vec));
        }
        for name in all {
            fs::write(folder.join(OsStr::from_bytes(&name)), &name).unwrap();
        }
        self
    }

    /// Symbolic links short and long, into nothing too, hard links, a named pipe, a socket's and devices' nodes.
    pub(crate) fn links(self) -> Self {
        let folder = self.folder("links");
        fs::write(folder.join("target"), "the target").unwrap();
        for (name, target) in [
            ("short", "target".to_owned()),
            ("absolute", "/etc/passwd".into()),
            ("nowhere", "../does/not/exist".into()),
            ("itself", "itself".into()),
            ("59", "x".repeat(59)),
            ("60", "x".repeat(60)),
            ("61", "x".repeat(61)),
            ("long", "a/very/long/path/".repeat(50)),
            ("bytes", "caf\u{e9}".into()),
        ] {
            symlink(target, folder.join(name)).unwrap();
        }
        symlink(OsStr::from_bytes(b"\xff\xfe"), folder.join("not utf-8")).unwrap();
        for name in ["hard-1", "hard-2"] {
            fs::hard_link(folder.join("target"), folder.join(name)).unwrap();
        }
        let node = |name: &str, kind, device| rustix::fs::mknodat(CWD, folder.join(name), kind, Mode::RUSR, device);
        node("pipe", FileType::Fifo, 0).unwrap();
        node("socket", FileType::Socket, 0).unwrap();
        // Only root may; a tree without devices is one as well.
        let _ = node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        let _ = node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 1_000));
        self
    }

    /// A file with an extended attribute of so many bytes.
    pub(crate) fn large_xattr(self, len: usize) -> Self {
        let path = self.folder("xattrs").join(format!("{len}"));
        fs::write(&path, "large").unwrap();
        set_xattr(&path, "user.large", &noise(len));
        self
    }

    /// Extended attributes on files, directories and links, and ACLs; those of a file fit into 1 KiB.
    pub(crate) fn xattrs(self) -> Self {
        let folder = self.folder("xattrs");
        let set = set_xattr;
        for name in ["plain", "many", "acl"] {
            fs::write(folder.join(name), name).unwrap();
        }
        fs::create_dir(folder.join("folder")).unwrap();
        symlink("plain", folder.join("link")).unwrap();
        set(&folder.join("plain"), "user.comment", b"a comment");
        set(&folder.join("plain"), "user.empty", b"");
        set(&folder.join("plain"), "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        for number in 0..12 {
            set(&folder.join("many"), &format!("user.number-{number}"), &noise(number * 5));
        }
        set(&folder.join("link"), "trusted.on-a-link", b"yes");
        set(&folder.join("link"), "security.selinux", b"system_u:object_r:etc_t:s0\0");
        let acl =
            posix_acl(&[(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (8, 5, 1001), (16, 7, NOBODY), (32, 4, NOBODY)]);
        set(&folder.join("acl"), "system.posix_acl_access", &acl);
        set(&folder.join("folder"), "system.posix_acl_access", &acl);
        set(&folder.join("folder"), "system.posix_acl_default", &acl);
        self
    }

    /// Owners and permissions of all kinds.
    pub(crate) fn modes(self) -> Self {
        let folder = self.folder("modes");
        for mode in [0o000, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6711] {
            let path = folder.join(format!("{mode:04o}"));
            fs::write(&path, "").unwrap();
            // Owners first: a change of owner takes setuid away. Only root may.
            drop(std::os::unix::fs::chown(&path, Some(mode * 3), Some(100_000 + mode)));
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        self
    }

    /// Files last changed in 1960, in 2100, and at nanoseconds.
    pub(crate) fn times(self) -> Self {
        let folder = self.folder("times");
        for (name, seconds, nanos) in [
            ("1901", -2_147_483_648, 0),
            ("1960", -300_000_000, 0),
            ("1969", -1, 999_999_999),
            ("1970", 0, 1),
            ("2001", 1_000_000_000, 123_456_789),
            ("2038", 2_147_483_648, 5),
            ("2100", 4_102_444_800, 987_654_321),
        ] {
            let path = folder.join(name);
            fs::write(&path, name).unwrap();
            let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        }
        self
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// Which names a format can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// What FAT and NTFS take as well.
    Portable,
    /// Everything that is UTF-8.
    Utf8,
    /// Any bytes.
    Bytes,
}

/// What is in a tree: a path from the root, with `/`, and what it names. The root itself is the empty path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest(pub(crate) BTreeMap<Vec<u8>, Node>);

/// What there is to know of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    /// Of files and links; 0 of everything else.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Timestamp,
    pub(crate) links: u32,
    /// The first path of the same file, for files with several names.
    pub(crate) same_as: Option<Vec<u8>>,
    /// Where a link leads.
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file's bytes.
    pub(crate) digest: Option<Digest>,
}

impl Manifest {
    /// Of a tree that this computer's own system reads, be it the source or a mounted image.
    pub(crate) fn of(root: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        let mut first_names = HashMap::new();
        let mut open = vec![(Vec::new(), root.to_owned())];
        while let Some((name, path)) = open.pop() {
            let node = Node::of(&path);
            if node.kind == FileKind::Directory {
                for entry in fs::read_dir(&path).unwrap() {
                    let entry = entry.unwrap();
                    let mut below = name.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend(entry.file_name().into_vec());
                    open.push((below, entry.path()));
                }
            } else if node.links > 1 {
                let meta = fs::symlink_metadata(&path).unwrap();
                first_names.entry(meta.ino()).or_insert_with(Vec::new).push(name.clone());
            }
            nodes.insert(name, node);
        }
        for mut names in first_names.into_values() {
            names.sort();
            for name in &names {
                nodes.get_mut(name).unwrap().same_as = Some(names[0].clone());
            }
        }
        Self(nodes)
    }

    /// The same, each node changed to what a format can hold: `change` gets the path.
    pub(crate) fn map(mut self, mut change: impl FnMut(&[u8], &mut Node)) -> Self {
        self.0.iter_mut().for_each(|(path, node)| change(path, node));
        self
    }

    /// The same without a path and what is below it.
    pub(crate) fn without(mut self, path: &str) -> Self {
        let below = format!("{path}/");
        self.0.retain(|name, _| name != path.as_bytes() && !name.starts_with(below.as_bytes()));
        self
    }
}

impl Node {
    fn of(path: &Path) -> Self {
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        let kind = match kind {
            _ if kind.is_file() => FileKind::File,
            _ if kind.is_dir() => FileKind::Directory,
            _ if kind.is_symlink() => FileKind::Symlink,
            _ if kind.is_fifo() => FileKind::Fifo,
            _ if kind.is_socket() => FileKind::Socket,
            _ if kind.is_block_device() => FileKind::BlockDevice,
            _ if kind.is_char_device() => FileKind::CharDevice,
            _ => FileKind::Other,
        };
        let target = (kind == FileKind::Symlink).then(|| fs::read_link(path).unwrap().into_os_string().into_vec());
        let device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice)
            .then(|| (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())));
        Self {
            kind,
            size: if matches!(kind, FileKind::File | FileKind::Symlink) { meta.len() } else { 0 },
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: Timestamp::new(meta.mtime(), meta.mtime_nsec() as u32),
            links: meta.nlink() as u32,
            same_as: None,
            target,
            device,
            xattrs: xattrs(path),
            digest: (kind == FileKind::File).then(|| Digest::of_file(path)),
        }
    }
}

/// Stands for the bytes of a file, however large its holes are: of all blocks of 4096 bytes that are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Of a file of this computer; its holes are not read.
    pub(crate) fn of_file(path: &Path) -> Self {
        let mut file = File::open(path).unwrap();
        let mut digester = Digester::default();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            at = data / BLOCK as u64 * BLOCK as u64;
            file.seek(SeekFrom::Start(at)).unwrap();
            let len = fill(&mut file, &mut buffer);
            digester.feed(at, &buffer[..len]);
            at += len as u64;
            if len < buffer.len() {
                break;
            }
        }
        digester.finish()
    }
}

/// Makes a digest of pieces.
#[derive(Default)]
pub(crate) struct Digester(Sha256);

impl Digester {
    /// Takes the bytes at `offset`, which is a multiple of 4096; so is their length but at the file's end. What is left
    /// out is taken for zeros.
    pub(crate) fn feed(&mut self, offset: u64, bytes: &[u8]) {
        assert_eq!(offset % BLOCK as u64, 0);
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            let end = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if end > 0 {
                self.0.update((offset + (number * BLOCK) as u64).to_le_bytes());
                self.0.update((end as u64).to_le_bytes());
                self.0.update(&block[..end]);
            }
        }
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Bytes that do not repeat, the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.write_all(&state.to_le_bytes()).unwrap();
    }
    bytes.truncate(len);
    bytes
}

/// An ACL as Linux hands it to programs: version 2, then tag, permissions and id of each entry.
pub(crate) fn posix_acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The id of entries of an ACL that have none.
const NOBODY: u32 = u32::MAX;

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    // What this computer's file system does not take is not in the manifest either.
    if let Err(error) = rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        eprintln!("{path:?} does not take {name}: {error}");
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).unwrap() {
            0 => break,
            more => len += more,
        }
    }
    len
}

const BLOCK: usize = 4096;

#[test]
fn a_copy_of_a_tree_has_the_same_manifest_and_a_changed_byte_is_seen() {
    let tree = Tree::linux(20);
    let copy = tempfile::tempdir().unwrap();
    crate::peers::run("cp", &[&"-a", &tree.path().join("."), &copy.path()]);
    let (source, copied) = (Manifest::of(tree.path()), Manifest::of(copy.path()));
    assert_eq!(source.0.len(), copied.0.len());
    assert!(source.0.len() > 180, "{}", source.0.len());
    for (path, node) in &source.0 {
        let (mut node, mut other) = (node.clone(), copied.0[path].clone());
        if path.is_empty() {
            (node.modified, other.modified) = Default::default(); // Files came into it.
        }
        assert_eq!(node, other, "{}", path.escape_ascii());
    }
    let file = copy.path().join("sparse/holes.bin");
    File::options().write(true).open(&file).unwrap().write_all_at(b"!", (1 << 30) + 5).unwrap();
    assert_ne!(Digest::of_file(&file), source.0[&b"sparse/holes.bin"[..]].digest.unwrap());
}
