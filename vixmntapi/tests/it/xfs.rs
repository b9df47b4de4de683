//! XFS made by xfsprogs and written by the kernel, clean and in use.

pub(crate) mod kept;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::{
    Error,
    device::{CacheOptions, Device, PageCache},
    fs::{Consistency, FileKind, FileSystem},
};

use crate::{
    compare::{Compare, assert_same},
    disks::{raw, raw_with},
    peers::{Mount, assert_in_flight, peer, run},
    tree::{Manifest, Names, Tree, noise},
};

#[test]
fn a_tree_that_the_kernel_wrote_reads_as_the_kernel_reads_it() {
    for (many, arguments) in [
        (20_000, &[][..]),
        (300, &["-b", "size=1024", "-n", "size=65536", "-m", "bigtime=0,reflink=0"]),
        (300, &["-s", "size=4096", "-i", "size=2048", "-m", "bigtime=1,rmapbt=1", "-i", "nrext64=1"]),
    ] {
        let Some(image) = made(arguments) else { return };
        let Some(mount) = Mount::new(&image.path, "") else { return };
        let tree = Tree::linux(many).large_xattr(3000).large_xattr(60_000);
        run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
        hard(mount.path());
        let truth = truth(mount.path());
        drop(mount);
        let (fs, device) = opened(&image.path);
        assert_eq!((fs.info().kind, fs.info().consistency), ("xfs", Consistency::Clean));
        assert_same(&fs, &device, &truth, Compare::ALL);
    }
}

#[test]
fn a_volume_in_use_reads_as_its_kernel_sees_it() {
    for arguments in [&[][..], &["-b", "size=1024"]] {
        assert_in_flight(arguments, || in_use(arguments));
    }
}

/// Compares a copy of a volume that is in use; tells whether anything was in its log alone. `None` where that cannot be
/// tried or told.
fn in_use(arguments: &[&str]) -> Option<bool> {
    let image = made(arguments)?;
    let mount = Mount::new(&image.path, "")?;
    let tree = Tree::new().many(300).deep(10).sizes().links();
    run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
    run("sync", &[&"-f", &mount.path()]);
    // Some of it goes, and its blocks become those of something else: what cancelling is for.
    fs::remove_dir_all(mount.path().join("deep")).unwrap();
    fs::remove_dir_all(mount.path().join("many")).unwrap();
    run("sync", &[&"-f", &mount.path()]);
    let more = Tree::new().many(200).sizes().names(Names::Bytes).times().xattrs();
    let folder = mount.path().join("written");
    fs::create_dir(&folder).unwrap();
    run("cp", &[&"-a", &more.path().join("."), &folder]);
    hard(&folder);
    fs::rename(mount.path().join("links"), mount.path().join("renamed")).unwrap();
    run("sync", &[&"-f", &mount.path()]);
    let dirty = image.path.with_extension("dirty");
    run("cp", &[&"--sparse=always", &image.path, &dirty]);
    let truth = truth(mount.path());
    drop(mount);
    let (fs, device) = opened(&dirty);
    assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory);
    assert_same(&fs, &device, &truth, Compare::ALL);
    let ls = Command::new(peer("xfs_db")?).args(["-f", "-r", "-c", "ls /written"]).arg(&dirty).output().unwrap();
    Some(!ls.status.success())
}

#[test]
fn a_log_that_went_around_is_replayed_from_its_tail() {
    let Some(image) = made(&["--unsupported", "-l", "size=6m"]) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    for round in 0..9 {
        let folder = mount.path().join(format!("round {round}"));
        fs::create_dir(&folder).unwrap();
        for number in 0..600 {
            fs::write(folder.join(format!("a file with a long name that takes room {number}")), "x").unwrap();
        }
        run("sync", &[&"-f", &mount.path()]);
        if round % 3 == 1 {
            fs::remove_dir_all(&folder).unwrap();
        }
    }
    run("sync", &[&"-f", &mount.path()]);
    let dirty = image.path.with_extension("dirty");
    run("cp", &[&"--sparse=always", &image.path, &dirty]);
    let truth = truth(mount.path());
    drop(mount);
    let (fs, device) = opened(&dirty);
    assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory);
    assert_same(&fs, &device, &truth, Compare::ALL);
}

#[test]
fn a_frozen_volume_reads_whole() {
    let (Some(image), Some(freeze)) = (made(&[]), peer("fsfreeze")) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    let tree = Tree::new().many(100).sizes();
    run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
    let truth = truth(mount.path());
    run(&freeze, &[&"-f", &mount.path()]);
    let frozen = image.path.with_extension("frozen");
    run("cp", &[&"--sparse=always", &image.path, &frozen]);
    run(&freeze, &[&"-u", &mount.path()]);
    drop(mount);
    let (fs, device) = opened(&frozen);
    assert_ne!(fs.info().consistency, Consistency::DirtyIgnored);
    assert_same(&fs, &device, &truth, Compare::ALL);
}

#[test]
fn a_directory_is_searched_by_its_index() {
    let Some(image) = made(&[]) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    let tree = Tree::new().many(5000);
    run("cp", &[&"-a", &tree.path().join("."), &mount.path()]);
    drop(mount);
    let cache = PageCache::new(CacheOptions::default().page(4096).read_ahead(0));
    let device = raw_with(&image.path, &cache);
    let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
    let many = fs.lookup(fs.root(), &"many".into()).unwrap().unwrap();
    let before = cache.figures().asked;
    for number in (0..5000).step_by(50) {
        assert!(fs.lookup(many, &format!("file-{number:05}.txt").as_str().into()).unwrap().is_some());
    }
    // Of 100 searches: nodes, a leaf and a block of entries each, of some 60 blocks.
    let asked = cache.figures().asked - before;
    assert!(asked < 100 * 8 * 4096, "{asked} bytes were read");
}

#[test]
fn names_and_ids_of_the_volume_are_told() {
    let uuid = "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e11";
    let label = ["-L", "data one", "-m", &format!("uuid={uuid}")];
    let Some(image) = made(&label) else { return };
    let (fs, device) = opened(&image.path);
    let info = fs.info();
    assert_eq!((info.kind, info.block_size, info.total), ("xfs", 4096, device.size()));
    assert_eq!((info.label.as_deref(), info.uuid.as_deref()), (Some("data one"), Some(uuid)));
    assert!(info.free.is_some_and(|free| free > info.total / 2 && free < info.total), "{info:?}");
    assert_eq!(fs.metadata(fs.root()).unwrap().kind, FileKind::Directory);
    assert!(matches!(fs.clone().open(fs.root(), None), Err(Error::NotAFile { .. })));
    assert!(fs.lookup(fs.root(), &"..".into()).unwrap().is_none());
}

/// An image file, removed with its folder.
struct Image {
    path: PathBuf,
    _folder: TempDir,
}

fn made(arguments: &[&str]) -> Option<Image> {
    made_of(arguments, 400 << 20)
}

fn made_of(arguments: &[&str], size: u64) -> Option<Image> {
    let mkfs = peer("mkfs.xfs")?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(size).unwrap();
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q"];
    all.extend(arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
    all.push(&path);
    run(mkfs, &all);
    Some(Image { path, _folder: folder })
}

fn opened(image: &Path) -> (Arc<dyn FileSystem>, Arc<dyn Device>) {
    let device = raw(image);
    let fs = vixmntapi::fs::open(&device).unwrap().expect("an XFS file system");
    (fs, device)
}

/// Adds what only the kernel makes: a file in very many pieces, so many attributes that they have a tree, and space that
/// is set aside.
fn hard(folder: &Path) {
    let pieces = File::create(folder.join("pieces")).unwrap();
    let block = noise(4096);
    for number in 0..3000 {
        pieces.write_all_at(&block[..1000 + number as usize % 3000], number * 8192).unwrap();
    }
    drop(pieces);
    let many = folder.join("many attributes");
    fs::write(&many, "").unwrap();
    for number in 0..400 {
        let name = format!("user.attribute number {number}");
        rustix::fs::setxattr(&many, name, &noise(number % 200), rustix::fs::XattrFlags::empty()).unwrap();
    }
    let aside = File::create(folder.join("set aside")).unwrap();
    rustix::fs::fallocate(&aside, rustix::fs::FallocateFlags::empty(), 0, 3 << 20).unwrap();
    aside.write_all_at(b"in the midst", 1 << 20).unwrap();
}

/// What the kernel says. It tells ACLs twice: as programs set them, and as they are stored.
pub(crate) fn truth(mount: &Path) -> Manifest {
    Manifest::of(mount).map(|_, node| node.xattrs.retain(|name, _| !name.starts_with(b"trusted.SGI_ACL_")))
}
