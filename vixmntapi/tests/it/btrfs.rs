//! Btrfs made by btrfs-progs and written by the kernel, clean and in use.

mod kept;
mod log;
mod sums;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::{
    Error,
    device::Device,
    fs::{Consistency, FileSystem, NodeId},
    set::DiskSet,
};

use crate::{
    compare::{Compare, assert_same, walk},
    disks::{Memory, raw},
    peers::{Mount, peer, run},
    tree::{Manifest, Names, Tree, noise},
};

#[test]
fn a_tree_that_the_kernel_wrote_reads_as_the_kernel_reads_it() {
    for (many, format, options) in [
        (20_000, &[][..], "compress=no"),
        (300, &["-n", "4096"], "compress-force=zlib"),
        (300, &["-O", "no-holes"], "compress-force=lzo"),
        (300, &["--csum", "xxhash", "-n", "65536"], "compress-force=zstd:3"),
    ] {
        let Some(image) = Image::new(format, &Tree::new()) else { return };
        let Some(mount) = Mount::new(&image.path, options) else { return };
        let tree = Tree::linux(many).large_xattr(3000);
        text(tree.path());
        run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
        let truth = Manifest::of(mount.path());
        drop(mount);
        let (fs, device) = opened(&image.path);
        assert_eq!((fs.info().kind, fs.info().consistency), ("btrfs", Consistency::Clean));
        assert_same(&fs, &device, &truth, Compare::ALL);
    }
}

#[test]
fn what_mkfs_made_of_a_tree_reads_as_the_tree() {
    let tree = Tree::new().many(1000).deep(20).sizes().names(Names::Bytes).modes().times();
    text(tree.path());
    for format in [&[][..], &["--mixed", "-n", "4096"], &["--csum", "sha256"]] {
        let Some(image) = Image::new(format, &tree) else { return };
        let (fs, device) = opened(&image.path);
        // It keeps whole seconds, and makes the root anew.
        let what = Compare { modified: 1_000_000_000, links: false, xattrs: false, ..Compare::ALL };
        let root = fs.metadata(fs.root()).unwrap().times.modified;
        let truth = Manifest::of(tree.path()).map(|path, node| {
            if path.is_empty() {
                node.modified = root;
            }
        });
        assert_same(&fs, &device, &truth, what);
    }
}

#[test]
fn subvolumes_are_directories_where_they_are_and_empty_ones_in_snapshots_of_their_parents() {
    let (Some(image), Some(btrfs)) = (Image::new(&[], &Tree::new()), peer("btrfs")) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    let at = |path: &str| mount.path().join(path);
    fs::create_dir(at("folder")).unwrap();
    run(&btrfs, &[&"subvolume", &"create", &at("folder/home")]);
    run("cp", &[&"-a", &Tree::new().many(50).links().path().join("."), &at("folder/home")]);
    run(&btrfs, &[&"subvolume", &"create", &at("folder/home/below")]);
    fs::write(at("folder/home/below/inner"), "inner").unwrap();
    run(&btrfs, &[&"subvolume", &"snapshot", &"-r", &at("folder/home"), &at("before")]);
    run(&btrfs, &[&"subvolume", &"snapshot", &mount.path(), &at("all")]);
    fs::write(at("folder/home/later"), "later").unwrap();
    run("sync", &[&"-f", &mount.path()]);
    let truth = Manifest::of(mount.path());
    run(&btrfs, &[&"subvolume", &"set-default", &at("folder/home")]);
    drop(mount);
    let (fs, device) = opened(&image.path);
    // The default one is the root; all others are to be had by their own.
    let found = walk(&fs);
    assert!(found.contains_key(&b"later"[..]) && found.contains_key(&b"below/inner"[..]), "{found:?}");
    let subvolumes = fs.subvolumes().unwrap();
    let told: Vec<_> = subvolumes.iter().map(|found| (found.path.to_string_lossy(), found.is_default)).collect();
    let expected =
        [("", false), ("folder/home", true), ("folder/home/below", false), ("before", false), ("all", false)];
    assert_eq!(told, expected.map(|(path, is_default)| (path.into(), is_default)));
    let top: Arc<dyn FileSystem> = Arc::new(From { fs, root: subvolumes[0].root });
    // Files of snapshots have the numbers of what they were made of.
    let mut expected = truth.map(|_, node| node.same_as = None);
    let seen = walk(&top);
    // The kernel makes up what it tells of the empty ones.
    for absent in ["before/below", "all/before", "all/folder/home"] {
        let node = expected.0.get_mut(absent.as_bytes()).unwrap();
        let meta = top.metadata(seen[absent.as_bytes()]).unwrap();
        (node.mode, node.modified, node.links) = (meta.mode, meta.times.modified, meta.links);
    }
    assert_same(&top, &device, &expected, Compare::ALL);
}

#[test]
fn copies_and_stripes_on_two_devices_are_read_from_a_set_of_both() {
    for data in ["raid1", "raid0", "single"] {
        let Some(pool) = Pool::new(data) else { return };
        let set = DiskSet::builder().raw(&pool.paths[0]).unwrap().raw(&pool.paths[1]).unwrap().open().unwrap();
        for volume in set.volumes().unwrap() {
            let mounted = volume.mount().unwrap();
            assert_same(mounted.file_system(), &volume.device().unwrap(), &pool.truth, Compare::ALL);
        }
        let (fs, device) = opened(&pool.paths[1]);
        if data == "raid1" {
            assert_same(&fs, &device, &pool.truth, Compare::ALL);
        }
        if data == "raid0" {
            let large = fs.lookup(fs.root(), &"large".into()).unwrap().unwrap();
            let content = fs.clone().open(large, None).unwrap();
            let read = content.read_at(0, &mut vec![0; content.size() as usize]);
            assert!(matches!(&read, Err(Error::Unsupported { what, .. }) if what.contains("device 1")), "{read:?}");
        }
    }
}

#[test]
fn a_copy_of_metadata_that_is_wrong_is_not_taken() {
    let Some(image) = Image::new(&["-m", "dup"], &Tree::new().many(100)) else { return };
    let (fs, device) = opened(&image.path);
    let truth = walk(&fs).into_keys().collect::<Vec<_>>();
    let mut bytes = vec![0; device.size() as usize];
    device.read_at(0, &mut bytes).unwrap();
    let mut first = bytes.clone();
    first[(64 << 10) + 300] ^= 1;
    let fs = vixmntapi::fs::open(&(Arc::new(Memory(first)) as _)).unwrap().unwrap();
    assert_eq!(walk(&fs).into_keys().collect::<Vec<_>>(), truth);
    // Of each block of a tree that is there twice, the first is destroyed.
    let id = bytes[(64 << 10) + 32..][..16].to_vec();
    let mut seen = std::collections::BTreeSet::new();
    for at in (128 << 10..bytes.len()).step_by(4096) {
        if bytes[at + 32..at + 48] == id && seen.insert(bytes[at + 48..at + 56].to_vec()) && bytes[at + 100] < 8 {
            bytes[at + 200] ^= 1;
        }
    }
    assert!(seen.len() > 5);
    let fs = vixmntapi::fs::open(&(Arc::new(Memory(bytes)) as _)).unwrap().unwrap();
    assert_eq!(walk(&fs).into_keys().collect::<Vec<_>>(), truth);
}

#[test]
fn names_and_ids_of_the_volume_are_told() {
    let uuid = "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e11";
    let Some(image) = Image::new(&["-L", "my pool", "-U", uuid], &Tree::new()) else { return };
    let (fs, device) = opened(&image.path);
    let info = fs.info();
    assert_eq!((info.kind, info.total), ("btrfs", device.size()));
    assert_eq!((info.label.as_deref(), info.uuid.as_deref()), (Some("my pool"), Some(uuid)));
    assert!(info.free.is_some_and(|free| free > info.total / 2 && free < info.total), "{info:?}");
    assert!(matches!(fs.clone().open(fs.root(), None), Err(Error::NotAFile { .. })));
    assert!(matches!(fs.metadata(NodeId { tree: 9999, number: 256 }), Err(Error::NotFound(_))));
}

/// An image whose checksums are not looked at, so that what is damaged is not just refused.
pub(crate) fn without_checksums() -> Option<Vec<u8>> {
    let tree = Tree::new().many(120).deep(4).names(Names::Bytes);
    let image = Image::new(&["--csum", "xxhash", "-n", "4096", "-m", "single", "--shrink"], &tree)?;
    Some(fs::read(&image.path).unwrap())
}

/// An image with checksums that are looked at.
pub(crate) fn with_checksums() -> Option<Vec<u8>> {
    let tree = Tree::new().many(120).deep(4).names(Names::Bytes).sizes();
    let image = Image::new(&["-n", "4096", "-m", "single", "--shrink"], &tree)?;
    Some(fs::read(&image.path).unwrap())
}

/// A file system seen from another of its trees.
#[derive(Debug)]
struct From {
    fs: Arc<dyn FileSystem>,
    root: NodeId,
}

impl FileSystem for From {
    fn info(&self) -> vixmntapi::fs::FileSystemInfo {
        self.fs.info()
    }
    fn root(&self) -> NodeId {
        self.root
    }
    fn metadata(&self, node: NodeId) -> vixmntapi::Result<vixmntapi::fs::Metadata> {
        self.fs.metadata(node)
    }
    fn lookup(&self, directory: NodeId, name: &vixmntapi::fs::FileName) -> vixmntapi::Result<Option<NodeId>> {
        self.fs.lookup(directory, name)
    }
    fn read_dir(self: Arc<Self>, directory: NodeId) -> vixmntapi::Result<vixmntapi::fs::Entries> {
        self.fs.clone().read_dir(directory)
    }
    fn read_link(&self, node: NodeId) -> vixmntapi::Result<vixmntapi::fs::FileName> {
        self.fs.read_link(node)
    }
    fn open(
        self: Arc<Self>,
        node: NodeId,
        stream: Option<&vixmntapi::fs::FileName>,
    ) -> vixmntapi::Result<Arc<dyn vixmntapi::fs::Content>> {
        self.fs.clone().open(node, stream)
    }
    fn xattrs(&self, node: NodeId) -> vixmntapi::Result<Vec<(vixmntapi::fs::FileName, Vec<u8>)>> {
        self.fs.xattrs(node)
    }
}

/// An image file, removed with its folder.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Image {
    pub(crate) fn new(format: &[&str], tree: &Tree) -> Option<Self> {
        let mkfs = peer("mkfs.btrfs")?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        File::create(&path).unwrap().set_len(300 << 20).unwrap();
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q"];
        all.extend(format.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
        let source = tree.path();
        all.extend([&"--rootdir" as &dyn AsRef<std::ffi::OsStr>, &source, &path]);
        run(mkfs, &all);
        Some(Self { path, _folder: folder })
    }
}

/// Two images of one file system, and what the kernel says is on it.
pub(crate) struct Pool {
    pub(crate) paths: [PathBuf; 2],
    truth: Manifest,
    _folder: TempDir,
}

impl Pool {
    fn new(data: &str) -> Option<Self> {
        Self::filled(data, |mount| {
            let tree = Tree::new().many(200).sizes().links();
            fs::write(tree.path().join("large"), noise(9_000_000)).unwrap();
            run("cp", &[&"-a", &tree.path().join("."), &mount]);
        })
    }

    /// `None` where this system has no loop devices, which is said.
    pub(crate) fn filled(data: &str, fill: impl FnOnce(&Path)) -> Option<Self> {
        let (mkfs, losetup) = (peer("mkfs.btrfs")?, peer("losetup")?);
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        for path in &paths {
            File::create(path).unwrap().set_len(200 << 20).unwrap();
        }
        run(mkfs, &[&"-q", &"-d", &data, &"-m", &"raid1", &paths[0], &paths[1]]);
        let output = Command::new(&losetup).args(["-f", "--show"]).arg(&paths[0]).output().unwrap();
        if !output.status.success() {
            eprintln!("NO LOOP DEVICES. This test proves nothing");
            assert!(std::env::var_os("REQUIRE_MOUNTS").is_none(), "mounts are required");
            return None;
        }
        let first = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let mount = Mount::new(&paths[1], &format!("device={first}"));
        let truth = mount.as_ref().map(|mount| {
            fill(mount.path());
            run("sync", &[&"-f", &mount.path()]);
            Manifest::of(mount.path())
        });
        drop(mount);
        run(&losetup, &[&"-d", &first]);
        Some(Self { paths, truth: truth?, _folder: folder })
    }
}

fn opened(image: &Path) -> (Arc<dyn FileSystem>, Arc<dyn Device>) {
    let device = raw(image);
    let fs = vixmntapi::fs::open(&device).unwrap().expect("a Btrfs");
    (fs, device)
}

/// Adds what can be packed: long text, and text with noise in it.
fn text(folder: &Path) {
    let text = "again and again, but not the same \u{e9}: ".repeat(20_000);
    fs::write(folder.join("text"), &text).unwrap();
    let mixed: Vec<u8> = text.bytes().zip(noise(text.len())).map(|(a, b)| if b % 4 == 0 { b } else { a }).collect();
    fs::write(folder.join("mixed"), mixed).unwrap();
    fs::write(folder.join("short text"), "short ".repeat(100)).unwrap();
}
