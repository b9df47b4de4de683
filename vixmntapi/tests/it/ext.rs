//! ext2, ext3 and ext4 made by e2fsprogs and by the kernel, clean and in use.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::{
    Error,
    device::{CacheOptions, Device, PageCache},
    fs::{Consistency, ExtentKind, FileKind, FileName, FileSystem, Timestamp},
};

use crate::{
    compare::{Compare, assert_same},
    disks::{raw, raw_with},
    peers::{Mount, assert_in_flight, peer, run, sync},
    tree::{Manifest, Names, Tree, noise},
};

#[test]
fn ext4_reads_as_the_tree_it_was_made_from() {
    check(
        &Tree::linux(300).large_xattr(3000),
        "ext4",
        &["-t", "ext4", "-b", "4096", "-O", "metadata_csum,64bit"],
        "ext4",
    );
}

#[test]
fn ext2_with_maps_of_blocks_reads_as_the_tree_it_was_made_from() {
    check(&Tree::linux(300), "small blocks", &["-t", "ext2", "-b", "1024", "-I", "256"], "ext2");
    check(&small(), "inodes of 128 bytes", &["-t", "ext2", "-b", "4096", "-I", "128"], "ext2");
    check(
        &Tree::new().many(300).deep(10).sizes().links(),
        "the first revision",
        &["-t", "ext2", "-r", "0", "-O", "none"],
        "ext2",
    );
}

#[test]
fn ext3_reads_as_the_tree_it_was_made_from() {
    check(&Tree::linux(300), "ext3", &["-t", "ext3", "-b", "2048"], "ext3");
}

#[test]
fn files_and_directories_that_live_in_inodes_are_read() {
    check(&small(), "inline data", &["-t", "ext4", "-O", "inline_data", "-I", "512"], "ext4");
    check(&small(), "inline data, checksums", &["-t", "ext4", "-O", "inline_data,metadata_csum"], "ext4");
}

#[test]
fn clusters_and_descriptors_in_other_places_are_found() {
    check(&small(), "bigalloc", &["-t", "ext4", "-b", "1024", "-O", "bigalloc"], "ext4");
    check(&small(), "meta_bg", &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,64bit"], "ext4");
    check(&small(), "meta_bg, narrow", &["-t", "ext4", "-b", "4096", "-O", "meta_bg,^resize_inode,^64bit"], "ext4");
    check(&small(), "64 KiB", &["-F", "-t", "ext4", "-b", "65536"], "ext4");
    check(
        &small().large_xattr(60_000),
        "attributes in inodes",
        &["-t", "ext4", "-O", "ea_inode,metadata_csum_seed"],
        "ext4",
    );
}

#[test]
fn an_attribute_that_is_larger_than_a_block_is_read_from_its_own_inode() {
    check(&small().large_xattr(3000), "ea_inode", &["-t", "ext4", "-b", "1024", "-O", "ea_inode"], "ext4");
}

#[test]
fn an_index_finds_every_name_by_each_of_its_hashes() {
    let Some(e2fsck) = peer("e2fsck") else { return };
    let tree = Tree::new().many(3000).names(Names::Bytes);
    let Some(tune2fs) = peer("tune2fs") else { return };
    for hash in ["half_md4", "tea", "legacy"] {
        let Some(image) = made(&tree, &["-t", "ext4", "-b", "1024"]) else { return };
        run(&tune2fs, &[&"-E", &format!("hash_alg={hash}"), &image.path]);
        // Only e2fsck makes indexes here; it says 1 when it changed anything.
        let done = std::process::Command::new(&e2fsck).args(["-fyD"]).arg(&image.path).output().unwrap();
        assert!(matches!(done.status.code(), Some(0 | 1)), "{done:?}");
        let cache = PageCache::new(CacheOptions::default());
        let device = raw_with(&image.path, &cache);
        let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
        assert_same(&fs, &device, &of_tools(&tree, &fs), Compare::ALL);
        let many = fs.lookup(fs.root(), &"many".into()).unwrap().unwrap();
        let before = cache.figures().asked;
        for number in 0..100 {
            assert!(fs.lookup(many, &FileName::from(&*format!("file-{:05}.txt", number * 29))).unwrap().is_some());
        }
        // Of 100 searches from the start to the middle of some 100 blocks.
        let asked = cache.figures().asked - before;
        assert!(asked < 100 * 8 * 1024, "{hash}: the index was not used, {asked} bytes were read");
    }
}

#[test]
fn a_tree_that_the_kernel_wrote_reads_as_the_kernel_reads_it() {
    for (many, arguments) in
        [(20_000, &["-t", "ext4"][..]), (500, &["-t", "ext3"]), (500, &["-t", "ext2", "-b", "1024", "-I", "256"])]
    {
        let tree = Tree::linux(many);
        let Some(image) = made_of(&Tree::new(), arguments, 512 << 20) else { return };
        let Some(mount) = Mount::new(&image.path, "") else { return };
        run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
        let truth = Manifest::of(mount.path());
        drop(mount);
        let (fs, device) = opened(&image.path);
        assert_eq!(fs.info().consistency, Consistency::Clean);
        assert_same(&fs, &device, &truth, Compare::ALL);
    }
}

#[test]
fn a_volume_in_use_reads_as_its_kernel_sees_it() {
    for arguments in
        [&["-t", "ext4"][..], &["-t", "ext4", "-O", "^metadata_csum,^64bit"], &["-t", "ext3", "-b", "1024"]]
    {
        assert_in_flight(arguments, || in_use(arguments));
    }
}

/// Compares a copy of a volume that is in use; tells whether anything was in its journal alone. `None` where that cannot
/// be tried or told.
fn in_use(arguments: &[&str]) -> Option<bool> {
    let image = made(&small(), arguments)?;
    let mount = Mount::new(&image.path, "")?;
    // Some of it goes, and its blocks become those of something else: what revoking is for.
    fs::remove_dir_all(mount.path().join("deep")).unwrap();
    fs::remove_dir_all(mount.path().join("many")).unwrap();
    sync(mount.path());
    let more = Tree::new().sizes().names(Names::Bytes).times().xattrs();
    let folder = mount.path().join("written");
    fs::create_dir(&folder).unwrap();
    run("cp", &[&"-a", &more.path().join("."), &folder]);
    fs::rename(mount.path().join("links"), mount.path().join("renamed")).unwrap();
    sync(mount.path());
    let dirty = image.path.with_extension("dirty");
    run("cp", &[&"--sparse=always", &image.path, &dirty]);
    let truth = Manifest::of(mount.path());
    drop(mount);
    let (fs, device) = opened(&dirty);
    assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory);
    assert_same(&fs, &device, &truth, Compare::ALL);
    let text = run(peer("debugfs")?, &[&"-c", &"-R", &"stat /written", &dirty]);
    Some(text.contains("not found"))
}

#[test]
fn fast_commits_in_flight_are_refused_and_not_left_out_in_silence() {
    let Some(image) = made(&small(), &["-t", "ext4", "-b", "4096", "-O", "fast_commit"]) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    for name in ["first", "second"] {
        fs::write(mount.path().join(name), name).unwrap();
        File::open(mount.path().join(name)).unwrap().sync_all().unwrap();
    }
    let dirty = image.path.with_extension("dirty");
    run("cp", &[&"--sparse=always", &image.path, &dirty]);
    drop(mount);
    let refused = vixmntapi::fs::open(&raw(&dirty)).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("fast commits")), "{refused:?}");
    let (fs, _) = opened(&image.path);
    assert!(fs.lookup(fs.root(), &"second".into()).unwrap().is_some());
}

#[test]
fn what_a_tool_put_into_the_journal_is_read_as_if_it_were_in_its_place() {
    let Some(debugfs) = peer("debugfs") else { return };
    let tree = small();
    // What is added: a file that begins with what a journal has to hide, its own magic number.
    let added = tempfile::tempdir().unwrap();
    let payload = added.path().join("fresh/payload");
    fs::create_dir(added.path().join("fresh")).unwrap();
    let magic = 0xc03b_3998_u32.to_be_bytes();
    fs::write(&payload, [&magic[..], &noise(4092), &magic, &noise(9000)].concat()).unwrap();
    for (version, arguments) in [
        ("", &["-t", "ext4", "-O", "^metadata_csum"][..]),
        ("-c -v 2", &["-t", "ext4", "-O", "metadata_csum,^64bit"]),
        ("-c -v 3", &["-t", "ext4", "-O", "metadata_csum,64bit"]),
        ("-c", &["-t", "ext4", "-b", "1024"]),
    ] {
        let Some(image) = made(&tree, arguments) else { return };
        let [after, commands, stale, blocks] =
            ["after", "commands", "stale", "blocks"].map(|name| image.path.with_extension(name));
        fs::copy(&image.path, &after).unwrap();
        let change = format!("rm sizes/5000000.bin\nmkdir fresh\ncd fresh\nwrite {} payload\n", payload.display());
        fs::write(&commands, change).unwrap();
        run(&debugfs, &[&"-w", &"-f", &commands, &after]);
        let (fs, device) = opened(&after);
        assert_eq!(fs.info().consistency, Consistency::Clean);
        let mut truth = of_tools(&tree, &fs).without("sizes/5000000.bin");
        truth.0.extend(Manifest::of(added.path()).without("").0.into_iter().filter(|(path, _)| !path.is_empty()));
        assert_same(&fs, &device, &truth, Compare::CONTENT);

        // All that differs goes into the journal of the image as it was. Before that, a transaction puts garbage into
        // the first of those blocks and into a file, and another revokes what is in the file.
        let size = fs.info().block_size as usize;
        let spared = found_at(&fs, "sizes/65536.bin") / size as u64;
        let (old, new) = (fs::read(&image.path).unwrap(), fs::read(&after).unwrap());
        let changed = old.chunks(size).zip(new.chunks(size)).enumerate().filter(|(_, (old, new))| old != new);
        let changed: Vec<_> = changed.map(|(number, (_, new))| (number, new)).collect();
        assert!(changed.len() > 5);
        let list = changed.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>().join(",");
        fs::write(&blocks, changed.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect::<Vec<_>>()).unwrap();
        fs::write(&stale, vec![0xee; 2 * size]).unwrap();
        let (first, stale, blocks) = (changed[0].0, stale.display(), blocks.display());
        let journal =
            format!("jo {version}\njw -b {first},{spared} {stale}\njw -r {spared}\njw -b {list} {blocks}\njc\n");
        fs::write(&commands, journal).unwrap();
        let said = run(&debugfs, &[&"-w", &"-f", &commands, &image.path]);
        let (fs, device) = opened(&image.path);
        assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory, "{said}");
        assert_same(&fs, &device, &truth, Compare::CONTENT);
    }
}

#[test]
fn an_ext2_volume_in_use_is_said_to_be_so() {
    let Some(debugfs) = peer("debugfs") else { return };
    let Some(image) = made(&small(), &["-t", "ext2"]) else { return };
    run(debugfs, &[&"-w", &"-R", &"ssv state 0", &image.path]);
    let (fs, device) = opened(&image.path);
    assert_eq!(fs.info().consistency, Consistency::DirtyIgnored);
    assert_same(&fs, &device, &of_tools(&small(), &fs), Compare::CONTENT);
}

#[test]
fn names_and_ids_of_the_volume_are_told() {
    let uuid = "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e11";
    let Some(image) = made(&Tree::new(), &["-t", "ext4", "-b", "4096", "-L", "r\u{fc}t", "-U", uuid]) else { return };
    let (fs, device) = opened(&image.path);
    let info = fs.info();
    assert_eq!((info.kind, info.block_size, info.total), ("ext4", 4096, device.size()));
    assert_eq!((info.label.as_deref(), info.uuid.as_deref()), (Some("r\u{fc}t"), Some(uuid)));
    assert!(info.free.is_some_and(|free| free > info.total / 2 && free < info.total), "{info:?}");
    let meta = fs.metadata(fs.root()).unwrap();
    assert_eq!(meta.kind, FileKind::Directory);
    assert!(matches!(fs.clone().open(fs.root(), None), Err(Error::NotAFile { .. })));
    assert!(fs.lookup(fs.root(), &"..".into()).unwrap().is_none());
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let Some(debugfs) = peer("debugfs") else { return };
    let Some(image) = made(&Tree::new(), &["-t", "ext4", "-O", "^metadata_csum"]) else { return };
    run(&debugfs, &[&"-w", &"-R", &"feature +dirdata", &image.path]);
    let refused = vixmntapi::fs::open(&raw(&image.path)).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { reason, .. } if reason.contains("0x1000")), "{refused:?}");
    let Some(image) = made(&Tree::new(), &["-O", "journal_dev"]) else { return };
    assert!(matches!(vixmntapi::fs::open(&raw(&image.path)), Err(Error::Unsupported { .. })));
}

/// Small images of each kind, without checksums, so that what is damaged is not just refused.
pub(crate) fn without_checksums() -> Option<[Vec<u8>; 3]> {
    let tree = Tree::new().many(60).deep(4).names(Names::Bytes).links().xattrs();
    let make = |arguments: &[&str]| Some(fs::read(made_of(&tree, arguments, 4 << 20)?.path).unwrap());
    let ext4 = make(&["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,inline_data", "-J", "size=1"])?;
    Some([ext4, make(&["-t", "ext3", "-b", "1024", "-J", "size=1"])?, make(&["-t", "ext2", "-b", "1024"])?])
}

/// An image file, removed with its folder.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

fn made(tree: &Tree, arguments: &[&str]) -> Option<Image> {
    made_of(tree, arguments, 96 << 20)
}

pub(crate) fn made_of(tree: &Tree, arguments: &[&str], size: u64) -> Option<Image> {
    let mke2fs = peer("mke2fs")?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q"];
    all.extend(arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
    let source = tree.path();
    if !arguments.contains(&"journal_dev") {
        all.extend([&"-d" as &dyn AsRef<std::ffi::OsStr>, &source]);
    }
    all.push(&path);
    run(mke2fs, &all);
    Some(Image { path, _folder: folder })
}

fn opened(image: &Path) -> (Arc<dyn FileSystem>, Arc<dyn Device>) {
    let device = raw(image);
    let fs = vixmntapi::fs::open(&device).unwrap().expect("an ext file system");
    (fs, device)
}

fn check(tree: &Tree, name: &str, arguments: &[&str], kind: &str) {
    let Some(image) = made(tree, arguments) else { return };
    eprintln!("{name}: {arguments:?}");
    let (fs, device) = opened(&image.path);
    let info = fs.info();
    assert_eq!((info.kind, info.consistency), (kind, Consistency::Clean), "{name}");
    assert_same(&fs, &device, &of_tools(tree, &fs), Compare::ALL);
}

/// Where a file begins, in bytes of the device.
fn found_at(fs: &Arc<dyn FileSystem>, path: &str) -> u64 {
    let node = path.split('/').fold(fs.root(), |node, name| fs.lookup(node, &name.into()).unwrap().unwrap());
    let extents = fs.clone().open(node, None).unwrap().extents(0..1).unwrap();
    match extents[0].kind {
        ExtentKind::Stored(place) => place,
        other => panic!("{path} is {other:?}"),
    }
}

fn small() -> Tree {
    Tree::new().many(300).deep(10).sizes().names(Names::Bytes).links().xattrs().modes()
}

/// What mke2fs makes of a tree: it keeps whole seconds in 32 bits, and adds its own directory when it runs.
pub(crate) fn of_tools(tree: &Tree, made: &Arc<dyn FileSystem>) -> Manifest {
    let mut manifest = Manifest::of(tree.path()).map(|_, node| {
        node.modified = Timestamp::new(i64::from(node.modified.seconds as i32), 0);
    });
    let root = manifest.0.get_mut(&b""[..]).unwrap();
    root.modified = made.metadata(made.root()).unwrap().times.modified;
    let mut lost = root.clone();
    (lost.mode, lost.links) = (0o700, 2);
    let found = made.lookup(made.root(), &"lost+found".into()).unwrap().unwrap();
    lost.modified = made.metadata(found).unwrap().times.modified;
    manifest.0.insert(b"lost+found".to_vec(), lost);
    manifest
}
