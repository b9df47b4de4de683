//! Volumes of sets: one, and all.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::io::Errno;
use vixmntapi::{Error, fuse::FuseMount, set::DiskSet};

use crate::{
    disks::{Partitions, set},
    peers::{peer, run},
    support::{Mounted, can_mount, run_in},
    tree::Tree,
};

const MIB: usize = 1 << 20;

/// A disk with ext4, FAT, swap space, and what only looks like ext4.
fn disk() -> Option<DiskSet> {
    let tree = Tree::new().many(20).deep(3);
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, mib: u64, program: &str, arguments: &[&str]| {
        let image = folder.path().join(name);
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = arguments.iter().map(|one| one as _).collect();
        all.push(&image);
        run(peer(program)?, &all);
        Some(fs::read(&image).unwrap())
    };
    let ext = made("ext4", 8, "mke2fs", &["-q", "-F", "-t", "ext4", "-d", tree.path().to_str().unwrap()])?;
    let fat = made("fat", 8, "mkfs.fat", &["-n", "FIRMWARE"])?;
    let swap = made("swap", 2, "mkswap", &["-q"])?;
    let mut bad = ext.clone();
    bad[1024 + 0x60..1024 + 0x64].fill(0xff); // Features that nobody knows.
    Some(set([Partitions::gpt(&[&ext, &fat, &swap, &bad])?]))
}

#[test]
fn a_volume_tells_the_folder_that_it_is_in_as_long_as_it_is() {
    let Some(set) = disk() else { return };
    if !can_mount() {
        return;
    }
    let volume = set.volume("disk0p1").unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let info = || volume.info().unwrap();
    assert!(info().folders.is_empty() && !info().is_mounted);
    let mut mounts = folders.each_ref().map(|folder| FuseMount::of_volume(&volume).unwrap().at(folder.path()).unwrap());
    assert_eq!(info().folders, folders.each_ref().map(|folder| folder.path().to_owned()));
    assert!(info().is_mounted && folders[1].path().join("many/file-00007.txt").exists());
    mounts[0].unmount().unwrap();
    assert_eq!(info().folders, [folders[1].path()]);
    drop(mounts);
    assert!(info().folders.is_empty() && !info().is_mounted);
    let error = FuseMount::of_volume(&set.volume("disk0p3").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
}

#[test]
fn all_volumes_of_a_set_are_folders_of_one_mount() {
    let Some(set) = disk() else { return };
    let volumes = set.volumes().unwrap();
    let Some(mounted) = Mounted::new(FuseMount::of_volumes(volumes).unwrap()) else { return };
    let path = mounted.path();
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    // Swap space has no files; what cannot be read is there and says so.
    assert_eq!(names, ["disk0p1", "disk0p2", "disk0p4"]);
    assert_eq!(fs::read(path.join("disk0p1/many/file-00019.txt")).unwrap(), b"19\n");
    assert_eq!(fs::read_dir(path.join("disk0p2")).unwrap().count(), 0);
    let error = fs::read_dir(path.join("disk0p4")).unwrap_err();
    assert!(matches!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP | Errno::IO)), "{error:?}");
    // No two files have one number.
    let numbers = run_in(path, "find", &["disk0p1", "disk0p2", ".", "-maxdepth", "0", "-printf", "%i "]);
    let numbers = String::from_utf8(numbers).unwrap();
    let mut numbers: Vec<_> = numbers.split_whitespace().collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    assert_eq!(fs::metadata(path).unwrap().nlink(), 5);
    let size = |path: &Path| rustix::fs::statvfs(path).map(|of| of.f_blocks * of.f_bsize).unwrap();
    assert!(size(&path.join("disk0p1")) <= 8 * MIB as u64 && size(path) > size(&path.join("disk0p1")));
    let volume = set.volume("disk0p1").unwrap();
    assert_eq!(volume.info().unwrap().folders, [path.join("disk0p1")]);
    drop(mounted);
    assert!(volume.info().unwrap().folders.is_empty());
    let swap = set.volume("disk0p3").unwrap();
    assert!(matches!(FuseMount::of_volumes([swap]), Err(Error::Invalid(_))));
}
