//! FAT against mtools: images are made by `mkfs.fat` and filled by `mcopy`, and what goes in has to come out.

use std::{fs, path::Path, sync::Arc};

use vixmntapi::{
    Error,
    device::Device,
    fs::{Consistency, FileName, FileSystem, NodeId, open},
};

use crate::{
    compare::{Compare, assert_same},
    disks::{Memory, raw},
    peers::{peer, run},
    tree::{Manifest, Names, Tree, noise},
};

/// FAT has times of two seconds, and neither owners nor links.
pub(crate) const FAT: Compare = Compare { owners: false, modified: 2_000_000_000, xattrs: false, links: false };

/// An image that `mkfs.fat` made.
pub(crate) fn image(kib: u64, options: &[&str]) -> Option<tempfile::NamedTempFile> {
    peer("mcopy")?;
    let mkfs = peer("mkfs.fat")?;
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(kib << 10).unwrap();
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = options.iter().map(|option| option as _).collect();
    let path = image.path();
    arguments.extend([&"-i" as &dyn AsRef<std::ffi::OsStr>, &"1234abcd", &"-n", &"MY LABEL", &path]);
    run(mkfs, &arguments);
    Some(image)
}

/// Runs one of the mtools on an image, its clock being UTC and its names UTF-8.
fn mtools(tool: &str, image: &Path, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"TZ=UTC", &"LC_ALL=C.UTF-8", &"MTOOLS_SKIP_CHECK=1", &tool];
    all.extend([&"-i" as &dyn AsRef<std::ffi::OsStr>, &image]);
    all.extend(arguments);
    run("env", &all);
}

/// Copies what is in a directory of this computer into the root of an image.
pub(crate) fn fill(image: &Path, source: &Path) {
    for entry in fs::read_dir(source).unwrap() {
        mtools("mcopy", image, &[&"-s", &"-m", &"-Q", &entry.unwrap().path(), &"::"]);
    }
}

fn files(device: &Arc<dyn Device>) -> Arc<dyn FileSystem> {
    open(device).unwrap().expect("it is FAT")
}

fn memory(image: &Path) -> Vec<u8> {
    fs::read(image).unwrap()
}

fn find(files: &Arc<dyn FileSystem>, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(files.root(), |node, name| files.lookup(node, &FileName::from(name)).unwrap())
}

/// The names that mtools can write: it cuts characters to 16 bits, and makes a directory larger by one cluster only.
pub(crate) fn names(tree: Tree, small_clusters: bool) -> Tree {
    let tree = tree.names(Names::Portable);
    for entry in fs::read_dir(tree.path().join("names")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.chars().any(|char| u32::from(char) > 0xffff) || (small_clusters && name.len() > 200) {
            fs::remove_file(path).unwrap();
        }
    }
    tree
}

fn same_as_source(kib: u64, options: &[&str], tree: &Tree) {
    let Some(image) = image(kib, options) else { return };
    fill(image.path(), tree.path());
    let device = raw(image.path());
    let files = files(&device);
    // The root has no entry, and so no time.
    let root = files.metadata(files.root()).unwrap().times.modified;
    let manifest = Manifest::of(tree.path()).map(|path, node| {
        if path.is_empty() {
            node.modified = root;
        }
        // mcopy does not keep the times of directories.
        if node.kind == vixmntapi::fs::FileKind::Directory {
            node.modified = find(&files, std::str::from_utf8(path).unwrap().trim_start_matches('/'))
                .filter(|_| !path.is_empty())
                .map_or(root, |found| files.metadata(found).unwrap().times.modified);
        }
    });
    assert_same(&files, &device, &manifest, FAT);
    let info = files.info();
    assert_eq!((info.kind, info.label.as_deref(), info.uuid.as_deref()), ("vfat", Some("MY LABEL"), Some("1234-ABCD")));
    assert_eq!(info.consistency, Consistency::Clean);
    if let Some(fsck) = peer("fsck.fat") {
        run(fsck, &[&"-n", &image.path()]);
    }
}

#[test]
fn a_tree_on_fat32_is_read_as_it_was_written() {
    let tree = names(Tree::new().many(200).deep(40).sizes(), true);
    same_as_source(80 << 10, &["-F", "32", "-s", "1"], &tree);
}

#[test]
fn a_tree_on_fat16_is_read_as_it_was_written() {
    let tree = names(Tree::new().many(300).deep(10).sizes(), false);
    same_as_source(40 << 10, &["-F", "16"], &tree);
    same_as_source(60 << 10, &["-F", "16", "-S", "4096", "-s", "1"], &tree);
}

#[test]
fn a_tree_on_fat12_is_read_as_it_was_written() {
    let tree = names(Tree::new().many(50).deep(5), true);
    same_as_source(1440, &["-F", "12"], &tree);
    let tree = Tree::new().sizes();
    same_as_source(16 << 10, &["-F", "12", "-s", "16"], &tree);
}

#[test]
fn a_file_in_many_pieces_is_read_whole_and_told_in_extents() {
    let Some(image) = image(1440, &["-F", "12"]) else { return };
    let tree = Tree::new();
    for number in 0..60 {
        fs::write(tree.path().join(format!("piece{number:02}")), noise(9000)).unwrap();
    }
    fill(image.path(), tree.path());
    for number in (0..60).step_by(2) {
        mtools("mdel", image.path(), &[&format!("::piece{number:02}")]);
    }
    let long = tree.path().join("long");
    let bytes = noise(400_000);
    fs::write(&long, &bytes).unwrap();
    mtools("mcopy", image.path(), &[&long, &"::"]);
    let device = raw(image.path());
    let files = files(&device);
    let content = files.clone().open(find(&files, "long").unwrap(), None).unwrap();
    let mut read = vec![0; bytes.len()];
    assert_eq!(content.read_at(0, &mut read).unwrap(), bytes.len());
    assert!(read == bytes);
    assert!(content.extents(0..content.size()).unwrap().len() > 10);
}

#[test]
fn files_are_found_without_regard_to_case_and_by_their_short_names() {
    let Some(image) = image(1440, &["-F", "12"]) else { return };
    let tree = Tree::new();
    for name in ["A Long Näme of a File.text", "lower.txt", "UPPER.TXT"] {
        fs::write(tree.path().join(name), name).unwrap();
    }
    fill(image.path(), tree.path());
    let device = raw(image.path());
    let files = files(&device);
    let long = find(&files, "A Long Näme of a File.text");
    assert!(long.is_some());
    for name in ["a long nÄME OF A FILE.TEXT", "ALONGN~1.TEX"] {
        assert_eq!(find(&files, name), long, "{name}");
    }
    assert_eq!(find(&files, "LOWER.TXT"), find(&files, "lower.txt"));
    assert_eq!(find(&files, "lower.tx"), None);
    assert_eq!(find(&files, "MY LABEL"), None);
}

#[test]
fn attributes_and_times_are_those_of_mtools() {
    let Some(image) = image(1440, &["-F", "12"]) else { return };
    let tree = Tree::new();
    let path = tree.path().join("secret.sys");
    fs::write(&path, "x").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_709_251_198); // 2024-02-29 23:59:58
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    fill(image.path(), tree.path());
    mtools("mattrib", image.path(), &[&"+r", &"+h", &"+s", &"::secret.sys"]);
    let device = raw(image.path());
    let files = files(&device);
    let metadata = files.metadata(find(&files, "secret.sys").unwrap()).unwrap();
    assert_eq!((metadata.attributes, metadata.mode), (Some(0x27), 0o444));
    assert_eq!(metadata.times.modified.seconds, 1_709_251_198);
}

#[test]
fn a_volume_in_use_is_dirty_by_the_flag_of_linux_or_of_windows() {
    for (kib, bits, entry, state) in [(20 << 10, "16", 3, 37), (80 << 10, "32", 7, 65)] {
        let Some(image) = image(kib, &["-F", bits, "-s", "1"]) else { return };
        let clean = memory(image.path());
        let consistency = |bytes: &[u8]| files(&(Arc::new(Memory(bytes.to_vec())) as _)).info().consistency;
        assert_eq!(consistency(&clean), Consistency::Clean);
        let table = usize::from(u16::from_le_bytes([clean[14], clean[15]])) * 512;
        for (at, bit) in [(state, 1), (table + entry, if bits == "32" { 8 } else { 0x80 })] {
            let mut dirty = clean.clone();
            dirty[at] ^= bit;
            assert_eq!(consistency(&dirty), Consistency::DirtyIgnored, "FAT{bits} byte {at}");
        }
    }
}

#[test]
fn a_chain_that_comes_back_ends_early_or_leaves_the_volume_is_an_error_of_its_file_alone() {
    let Some(image) = image(20 << 10, &["-F", "16", "-s", "1"]) else { return };
    let tree = Tree::new();
    fs::write(tree.path().join("a"), noise(100_000)).unwrap();
    fill(image.path(), tree.path());
    mtools("mcopy", image.path(), &[&tree.path().join("a"), &"::other"]);
    let whole = memory(image.path());
    let table = usize::from(u16::from_le_bytes([whole[14], whole[15]])) * 512;
    for entry in [2_u16, 9, 50, 0, 1, 0xfff7, 0xffff, 0xfff0] {
        let mut bytes = whole.clone();
        bytes[table + 50 * 2..][..2].copy_from_slice(&entry.to_le_bytes());
        let device: Arc<dyn Device> = Arc::new(Memory(bytes));
        let files = files(&device);
        let error = files.clone().open(find(&files, "a").unwrap(), None).err().expect("it is damaged");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(files.clone().open(find(&files, "other").unwrap(), None).is_ok());
    }
}

/// A volume with a little of everything.
pub(crate) fn small(kib: u64, options: &[&str]) -> Option<Vec<u8>> {
    let image = image(kib, options)?;
    let tree = Tree::new().many(40).deep(6);
    fs::write(tree.path().join("many/a name of more than one part, é"), "x").unwrap();
    fs::write(tree.path().join("large"), noise(200_000)).unwrap();
    fill(image.path(), tree.path());
    Some(memory(image.path()))
}
