//! Images of every file system, made by the tools of others, each with what is in it.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use vixmntapi::fs::{Consistency, FileKind};

use crate::{
    compare::Compare,
    disks::raw,
    exfat, ext, fat,
    ntfs::{WINDOWS, image::Image as Ntfs},
    peers::{Mount, peer, run, sync},
    tree::{Manifest, Names, Tree},
    xfs,
};

/// An image with what is in it.
pub(super) struct Sample {
    /// For people.
    pub(super) name: &'static str,
    /// As the reader calls it.
    pub(super) kind: &'static str,
    pub(super) consistency: Consistency,
    pub(super) image: PathBuf,
    pub(super) truth: Manifest,
    /// What the format can hold.
    pub(super) compare: Compare,
    _folder: TempDir,
}

/// How much is in the images.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Some hundred files.
    Quick,
    /// 20 000 files in one directory besides.
    Full,
}

/// Makes one; `None` for want of a tool or of mounts, which is said.
pub(super) type Maker = Box<dyn Fn() -> Option<Sample>>;

/// Makers of all of them.
pub(super) fn all(size: Size) -> Vec<Maker> {
    let full = size == Size::Full;
    let many = if full { MANY } else { 40 };
    // Files in FAT12, which has no room for more, and KiB of each FAT.
    let (few, kib) = if full { (300, [30 << 10, 300 << 10, 600 << 10]) } else { (40, [8 << 10, 32 << 10, 80 << 10]) };
    let small_blocks: &[&str] = if full { &["-t", "ext3"] } else { &["-t", "ext3", "-b", "1024"] };
    let large_blocks: &[&str] = if full { &["-t", "ext2"] } else { &["-t", "ext2", "-b", "4096"] };
    vec![
        Box::new(move || ext("ext4", &["-t", "ext4"], "ext4", many)),
        Box::new(move || ext("ext4, inline data", &["-t", "ext4", "-O", "inline_data", "-I", "512"], "ext4", many)),
        Box::new(move || ext("ext3", small_blocks, "ext3", many)),
        Box::new(move || ext("ext2", large_blocks, "ext2", many)),
        Box::new(move || mounted("ext4 in use", "ext4", true, many)),
        Box::new(move || mounted("xfs", "xfs", false, many)),
        Box::new(move || mounted("xfs in use", "xfs", true, many)),
        Box::new(move || mounted("btrfs", "btrfs", false, many)),
        Box::new(move || mounted("btrfs in use", "btrfs", true, many)),
        Box::new(move || ntfs("ntfs", "4096", many)),
        Box::new(move || ntfs("ntfs, 64 KiB clusters", "65536", many)),
        Box::new(move || fat("fat12", "12", kib[0], few)),
        Box::new(move || fat("fat16", "16", kib[1], many)),
        Box::new(move || fat("fat32", "32", kib[2], many)),
        Box::new(move || exfat(if full { 256 } else { 64 }, many)),
        Box::new(move || iso(many)),
    ]
}

const MANY: usize = 20_000;

/// What `mke2fs` makes of a tree.
fn ext(name: &'static str, arguments: &[&str], kind: &'static str, many: usize) -> Option<Sample> {
    // Inodes for all that is in the tree.
    let inodes = (many + 1000).to_string();
    let tree = Tree::linux(many);
    let arguments = [arguments, &["-N", &inodes]].concat();
    let made = ext::made_of(&tree, &arguments, if many == MANY { 256 } else { 48 } << 20)?;
    let (folder, image) = place();
    std::fs::rename(&made.path, &image).or_else(|_| std::fs::copy(&made.path, &image).map(drop)).unwrap();
    let files = vixmntapi::fs::open(&raw(&image)).unwrap().unwrap();
    let truth = ext::of_tools(&tree, &files);
    Some(Sample { name, kind, consistency: Consistency::Clean, image, truth, compare: Compare::ALL, _folder: folder })
}

/// What the kernel wrote, and read again; in use: as it is on the disk then.
fn mounted(name: &'static str, kind: &'static str, in_use: bool, many: usize) -> Option<Sample> {
    let (folder, image) = place();
    let (arguments, options, mib): (&[&str], _, _) = match kind {
        "btrfs" => (&["-q"], "compress-force=zstd,commit=300", 256),
        "xfs" => (&["-q"], "", 400),
        _ => (&["-q", "-F"], "", if many == MANY { 256 } else { 96 }),
    };
    format(&format!("mkfs.{kind}"), arguments, &image, mib)?;
    let mount = Mount::new(&image, options)?;
    if kind == "btrfs" {
        run(peer("btrfs")?, &[&"subvolume", &"create", &mount.path().join("home")]);
    }
    let half = if in_use { many / 2 } else { many };
    copy(&Tree::linux(half), &mount.path().join("."));
    if !in_use {
        let truth = xfs::truth(mount.path());
        drop(mount);
        return Some(Sample {
            name,
            kind,
            consistency: Consistency::Clean,
            image,
            truth,
            compare: Compare::ALL,
            _folder: folder,
        });
    }
    run("sync", &[&"-f", &mount.path()]);
    // What is written last is in the journal alone.
    let more = mount.path().join("written");
    std::fs::create_dir(&more).unwrap();
    copy(&Tree::new().many(half.min(500)).sizes().names(Names::Bytes).xattrs(), &more);
    std::fs::rename(mount.path().join("links"), mount.path().join("renamed")).unwrap();
    match kind {
        "xfs" => drop(run("sync", &[&"-f", &mount.path()])),
        _ => sync(mount.path()),
    }
    let dirty = image.with_extension("dirty");
    run("cp", &[&"--sparse=always", &image, &dirty]);
    let truth = xfs::truth(mount.path());
    let (consistency, compare) = (Consistency::ReplayedInMemory, Compare::ALL);
    Some(Sample { name, kind, consistency, image: dirty, truth, compare, _folder: folder })
}

/// What ntfs-3g wrote.
fn ntfs(name: &'static str, cluster: &str, many: usize) -> Option<Sample> {
    let made = Ntfs::new(&["-c", cluster], if many == MANY { 512 } else { 96 })?;
    let mount = made.mount()?;
    let tree = Tree::new().many(many).deep(40).sizes().sparse(3 << 30).names(Names::Utf8).times();
    run("cp", &[&"-a", &"--sparse=always", &tree.path().join("."), &mount.path()]);
    drop(mount);
    let (folder, image) = place();
    run("cp", &[&"--sparse=always", &made.path(), &image]);
    // A directory of Linux has a link for each that is in it.
    let truth = Manifest::of(tree.path()).map(|_, node| {
        if node.kind == FileKind::Directory {
            node.links = 1;
        }
    });
    let consistency = Consistency::Clean;
    Some(Sample { name, kind: "ntfs", consistency, image, truth, compare: WINDOWS, _folder: folder })
}

/// What mtools wrote.
fn fat(name: &'static str, bits: &str, kib: u64, many: usize) -> Option<Sample> {
    let made = fat::image(kib, &["-F", bits])?;
    // Names that need a short one besides take mtools time that grows with the square of their number.
    let tree = Tree::new().many(many.min(500)).deep(20);
    let short = tree.path().join("short");
    std::fs::create_dir(&short).unwrap();
    for number in 500..many {
        std::fs::write(short.join(format!("F{number:05}.TXT")), number.to_string()).unwrap();
    }
    let tree = fat::names(if kib > 20 << 10 { tree.sizes() } else { tree }, true);
    fat::fill(made.path(), tree.path());
    let (folder, image) = place();
    run("cp", &[&"--sparse=always", &made.path(), &image]);
    // mcopy does not keep the times of directories, and the root has none.
    let truth = with_times_of_directories(Manifest::of(tree.path()), &image, |_| true);
    let compare = fat::FAT;
    Some(Sample { name, kind: "vfat", consistency: Consistency::Clean, image, truth, compare, _folder: folder })
}

/// What the FUSE driver wrote.
fn exfat(mib: u64, many: usize) -> Option<Sample> {
    let made = exfat::image(mib, "4K")?;
    let tree = Tree::new().many(many).deep(20).sizes().names(Names::Portable);
    // It has no owners and no links.
    let copy = |point: &Path| drop(run("cp", &[&"-r", &"--preserve=timestamps", &tree.path().join("."), &point]));
    exfat::mounted(made.path(), copy)?;
    let (folder, image) = place();
    run("cp", &[&"--sparse=always", &made.path(), &image]);
    let truth = with_times_of_directories(Manifest::of(tree.path()), &image, <[u8]>::is_empty);
    let compare = fat::FAT;
    Some(Sample {
        name: "exfat",
        kind: "exfat",
        consistency: Consistency::Clean,
        image,
        truth,
        compare,
        _folder: folder,
    })
}

/// What xorriso makes of a tree.
fn iso(many: usize) -> Option<Sample> {
    let (folder, image) = place();
    let tree = Tree::new().many(many).sizes().names(Names::Utf8).modes();
    let source = tree.path();
    run(peer("xorriso")?, &[&"-as", &"mkisofs", &"-R", &"-quiet", &"-V", &"DISC", &"-o", &image, &source]);
    let truth = Manifest::of(tree.path());
    let compare = Compare { owners: true, modified: 1_000_000_000, xattrs: false, links: false };
    Some(Sample {
        name: "iso",
        kind: "iso9660",
        consistency: Consistency::Clean,
        image,
        truth,
        compare,
        _folder: folder,
    })
}

/// A manifest in which some directories have the times that are read: those that the format or the tool has not.
fn with_times_of_directories(truth: Manifest, image: &Path, which: fn(&[u8]) -> bool) -> Manifest {
    let files = vixmntapi::fs::open(&raw(image)).unwrap().unwrap();
    truth.map(|path, node| {
        if node.kind == FileKind::Directory && which(path) {
            let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            let found = names.fold(files.root(), |at, name| files.lookup(at, &name.into()).unwrap().unwrap());
            node.modified = files.metadata(found).unwrap().times.modified;
        }
    })
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    (folder, image)
}

fn format(program: &str, arguments: &[&str], image: &Path, mib: u64) -> Option<()> {
    let program = peer(program)?;
    File::create(image).unwrap().set_len(mib << 20).unwrap();
    let mut all: Vec<&dyn AsRef<OsStr>> = arguments.iter().map(|argument| argument as &dyn AsRef<OsStr>).collect();
    all.push(&image);
    run(program, &all);
    Some(())
}

fn copy(tree: &Tree, to: &Path) {
    run("cp", &[&"-a", &"--sparse=always", &tree.path().join("."), &to]);
}
