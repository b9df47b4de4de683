//! Small volumes that need no kernel: one that is kept as it was while in use, and one of version 4 that mkfs.xfs fills;
//! whole and damaged.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use vixmntapi::{device::Device, fs::Consistency};

use super::{Image, made_of, opened};
use crate::{
    compare::{Compare, assert_same, walk},
    disks::Memory,
    peers::{Mount, run, sync},
    tree::{Manifest, Tree, noise},
};

/// A volume copied while it was in use, most of it in its log only: kept, so that replay is proved where this system
/// cannot mount. `the_kept_image_is_made_again` made it.
pub(crate) fn dirty() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("dirty.img.gz")[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
#[ignore = "makes the image anew: KEEP=1 cargo test -p vixmntapi --test it -- --ignored kept_image_of_xfs"]
fn the_kept_image_of_xfs_is_made_again() {
    let arguments =
        ["--unsupported", "-d", "agcount=1", "-b", "size=1024", "-m", "reflink=0,rmapbt=0", "-l", "size=3m"];
    let Some(image) = made_of(&arguments, 20 << 20) else { return };
    let Some(mount) = Mount::new(&image.path, "") else { return };
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("gone")).unwrap();
    for number in 0..200 {
        fs::write(at(&format!("gone/{number}")), noise(700)).unwrap();
    }
    run("sync", &[&"-f", &mount.path()]);
    fs::remove_dir_all(at("gone")).unwrap();
    sync(mount.path());
    fs::create_dir(at("many")).unwrap();
    for number in 0..120 {
        fs::write(at(&format!("many/a file with a longer name {number}")), format!("{number}")).unwrap();
    }
    fs::write(at("noise"), noise(20_000)).unwrap();
    for number in 0..20 {
        fs::hard_link(at("noise"), at(&format!("noise is {number}"))).unwrap();
    }
    std::os::unix::fs::symlink("a/very/long/path/".repeat(50), at("link")).unwrap();
    for (name, len) in [("short", 10), ("long", 3000)] {
        rustix::fs::setxattr(at("noise"), format!("user.{name}"), &noise(len), rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    sync(mount.path());
    let bytes = fs::read(&image.path).unwrap();
    drop(mount);
    if std::env::var_os("KEEP").is_some() {
        let file = fs::File::create("tests/it/xfs/dirty.img.gz").unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        packed.write_all(&bytes).unwrap();
        packed.finish().unwrap();
    }
}

#[test]
fn what_is_only_in_the_log_of_the_kept_image_is_read() {
    let device: Arc<dyn Device> = Arc::new(Memory(dirty()));
    let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
    assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory);
    let found = walk(&fs);
    assert_eq!(found.len(), 1 + 3 + 120 + 20);
    let read = |path: &str| {
        let content = fs.clone().open(found[path.as_bytes()], None).unwrap();
        let mut bytes = vec![0; content.size() as usize];
        assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    };
    assert!(read("noise") == noise(20_000));
    for number in 0..120 {
        assert_eq!(read(&format!("many/a file with a longer name {number}")), format!("{number}").as_bytes());
    }
    for number in 0..20 {
        assert_eq!(found[format!("noise is {number}").as_bytes()], found[&b"noise"[..]]);
    }
    assert_eq!(fs.metadata(found[&b"noise"[..]]).unwrap().links, 21);
    let attributes: BTreeMap<_, _> = fs.xattrs(found[&b"noise"[..]]).unwrap().into_iter().collect();
    assert_eq!(attributes.len(), 2);
    assert!(attributes[&b"user.long"[..]] == noise(3000) && attributes[&b"user.short"[..]] == noise(10));
    assert_eq!(fs.read_link(found[&b"link"[..]]).unwrap().as_bytes(), "a/very/long/path/".repeat(50).as_bytes());
}

#[test]
fn what_mkfs_made_of_a_tree_reads_as_the_tree() {
    let tree = Tree::new().many(900).deep(10).sizes();
    for arguments in [&["-m", "crc=0,finobt=0", "-n", "ftype=0"][..], &["-m", "crc=0,finobt=0", "-b", "size=1024"], &[]]
    {
        let Some(image) = filled(&tree, arguments, 400 << 20) else { return };
        let (fs, device) = opened(&image.path);
        assert_eq!((fs.info().kind, fs.info().consistency), ("xfs", Consistency::Clean));
        assert_same(&fs, &device, &Manifest::of(tree.path()), Compare { owners: true, ..Compare::CONTENT });
    }
}

/// An image without checksums, so that what is damaged is not just refused.
pub(crate) fn without_checksums() -> Option<Vec<u8>> {
    let arguments = ["--unsupported", "-m", "crc=0,finobt=0", "-b", "size=1024", "-d", "agcount=1", "-l", "size=3m"];
    let image = filled(&Tree::new().many(300).deep(4), &arguments, 20 << 20)?;
    Some(fs::read(&image.path).unwrap())
}

/// An image that was never in use and has checksums.
pub(crate) fn with_checksums() -> Option<Vec<u8>> {
    let arguments = ["--unsupported", "-b", "size=1024", "-d", "agcount=1", "-l", "size=4m"];
    let image = filled(&Tree::new().many(300).deep(4).sizes(), &arguments, 24 << 20)?;
    Some(fs::read(&image.path).unwrap())
}

/// An image that mkfs.xfs fills with a tree of files and directories.
fn filled(tree: &Tree, arguments: &[&str], size: u64) -> Option<Image> {
    let mut list = "/none\n0 0\n".to_owned();
    describe(tree.path(), "", &mut list);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    fs::write(&path, list).unwrap();
    made_of(&[arguments, &["-p", path.to_str().unwrap()]].concat(), size)
}

/// A tree as mkfs.xfs wants it told.
fn describe(path: &Path, name: &str, list: &mut String) {
    let meta = fs::symlink_metadata(path).unwrap();
    let mode = meta.permissions().mode() & 0o777;
    if meta.is_dir() {
        writeln!(list, "{name} d--{mode:03o} 0 0").unwrap();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            describe(&entry.path(), entry.file_name().to_str().unwrap(), list);
        }
        writeln!(list, "$").unwrap();
    } else {
        writeln!(list, "{name} ---{mode:03o} 0 0 {}", path.display()).unwrap();
    }
}
