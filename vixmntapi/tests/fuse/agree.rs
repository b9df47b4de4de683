//! What programs see in a mount of ours is what they see in the kernel's own mount of the same image.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use vixmntapi::fs::{FileKind, FileSystem};

use crate::{
    disks::raw,
    ntfs,
    peers::{peer, run},
    support::{Filled, Mounted, assert_same_parts, run_in},
    tree::{Manifest, Names, Tree},
};

/// All that file systems of Linux hold, small enough to be read several times.
fn tree() -> Tree {
    Tree::new().many(400).deep(40).sizes().sparse(64 << 20).names(Names::Bytes).links().xattrs().modes().times()
}

/// What programs say of a mounted tree.
struct Said {
    /// Kind, mode, size, space, times, owners, links, number and target of every file.
    find: Vec<u8>,
    xattrs: Vec<u8>,
    manifest: Manifest,
}

/// XFS shows an ACL twice: as all do, and by the name under which it keeps it, which ours leaves out.
const XFS_ACL: &[u8] = b"trusted.SGI_ACL_";

fn ask(folder: &Path) -> Said {
    let all = r"%P|%y|%m|%s|%b|%T@|%C@|%U|%G|%n|%i|%l\0";
    let find = run_in(folder, "find", &[".", "-printf", all]);
    let manifest = Manifest::of(folder).map(|_, node| node.xattrs.retain(|name, _| !name.starts_with(XFS_ACL)));
    Said { find, xattrs: xattrs(folder), manifest }
}

/// What `getfattr` says, the attributes of a file in their order by name.
fn xattrs(folder: &Path) -> Vec<u8> {
    let text = run_in(folder, "getfattr", &["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."]);
    let mut files: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    for line in text.split(|byte| *byte == b'\n') {
        match line {
            b"" => files.push(Vec::new()),
            line if line.starts_with(XFS_ACL) => {}
            line => files.last_mut().unwrap().push(line.to_vec()),
        }
    }
    files.iter_mut().for_each(|lines| lines.sort());
    files.into_iter().map(|lines| lines.join(&b'\n')).collect::<Vec<_>>().join(&b"\n\n"[..])
}

fn assert_same_manifest(ours: &Manifest, theirs: &Manifest) {
    for (path, node) in &theirs.0 {
        assert_eq!(ours.0.get(path), Some(node), "{}", path.escape_ascii());
    }
    assert_eq!(ours.0.len(), theirs.0.len());
}

#[test]
fn find_and_getfattr_say_of_ext4_xfs_and_btrfs_what_they_say_of_the_kernels_mount() {
    let (Some(_), Some(_)) = (peer("find"), peer("getfattr")) else { return };
    let tree = tree();
    for format in [&["mkfs.ext4", "-q", "-F"][..], &["mkfs.xfs", "-q", "-f"], &["mkfs.btrfs", "-q", "-f", "-M"]] {
        let Some(filled) = Filled::new(format, tree.path(), ask) else { return };
        let Some(mounted) = Mounted::of(filled.files()) else { return };
        let (ours, theirs) = (ask(mounted.path()), &filled.said);
        assert_same_parts(format[0], &ours.find, &theirs.find, 0);
        assert_same_parts(format[0], &ours.xattrs, &theirs.xattrs, b'\n');
        assert_same_manifest(&ours.manifest, &theirs.manifest);
        programs_of_copying_agree(&tree, mounted.path());
    }
}

/// The tree that was copied in comes out by `sha256sum -c`, `rsync` and `tar`.
fn programs_of_copying_agree(tree: &Tree, folder: &Path) {
    let (Some(_), Some(_)) = (peer("rsync"), peer("tar")) else { return };
    let temporary = tempfile::tempdir().unwrap();
    let sums = temporary.path().join("sums");
    let made = run_in(tree.path(), "find", &[".", "-type", "f", "-exec", "sha256sum", "{}", "+"]);
    std::fs::write(&sums, &made).unwrap();
    let checked = run_in(folder, "sha256sum", &["-c", sums.to_str().unwrap()]);
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines(&checked) == lines(&made) && lines(&made) > 450, "{} of {}", lines(&checked), lines(&made));

    let source = format!("{}/", tree.path().display());
    let target = format!("{}/", folder.display());
    let there = ["-n", "-i", "--checksum", "-aHAX", "--delete", "--exclude=/lost+found"];
    let differences = run_in(folder, "rsync", &[&there[..], &[&source, &target]].concat());
    assert_eq!(String::from_utf8_lossy(&differences), "", "rsync into {}", folder.display());
    let differences = run_in(folder, "rsync", &[&there[..], &[&target, &source]].concat());
    assert_eq!(String::from_utf8_lossy(&differences), "", "rsync out of {}", folder.display());

    let archive = temporary.path().join("archive.tar");
    let keep = ["--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--format=posix"];
    let make = ["-cf", archive.to_str().unwrap(), "--exclude=./lost+found", "--exclude=./links/socket", "."];
    run_in(folder, "tar", &[&keep[..], &make].concat());
    let taken = tempfile::tempdir().unwrap();
    run_in(taken.path(), "tar", &[&keep[..], &["-xpf", archive.to_str().unwrap()]].concat());
    let of = |path: &Path| {
        Manifest::of(path).without("links/socket").map(|path, node| {
            // The socket is left out, and a copy of its folder has changed.
            if path == b"links" || path.is_empty() {
                (node.modified, node.links) = Default::default();
            }
        })
    };
    assert_same_manifest(&of(taken.path()), &of(tree.path()));
}

#[test]
fn ntfs_has_the_files_that_ntfs_3g_wrote_and_the_security_that_it_reads() {
    let Some(image) = ntfs::Image::new(&["-c", "4096"], 256) else { return };
    let Some(theirs) = image.mount() else { return };
    let tree = Tree::new().many(400).deep(40).sizes().sparse(64 << 20).names(Names::Utf8).times();
    std::fs::hard_link(tree.path().join("times/2001"), tree.path().join("times/again")).unwrap();
    run("cp", &[&"-a", &"--sparse=always", &tree.path().join("."), &theirs.path()]);
    let security = ntfs::get(&theirs.path().join("times/2001"), "system.ntfs_acl");
    let attributes = ntfs::get(&theirs.path().join("times/2001"), "system.ntfs_attrib_be");
    drop(theirs);
    let files = vixmntapi::fs::open(&raw(image.path())).unwrap().unwrap();
    let Some(mounted) = Mounted::of(files) else { return };
    // NTFS has no owners and modes as Linux has them, counts in 100 ns, and directories are not linked to from below.
    let plain = |manifest: Manifest| {
        manifest.map(|_, node| {
            (node.mode, node.uid, node.gid) = Default::default();
            node.modified.nanos -= node.modified.nanos % 100;
            if node.kind == FileKind::Directory {
                node.links = 1;
            }
            node.xattrs.clear();
        })
    };
    assert_same_manifest(&plain(Manifest::of(mounted.path())), &plain(Manifest::of(tree.path())));
    assert_eq!(ntfs::get(&mounted.path().join("times/2001"), "system.ntfs_acl"), security);
    assert_eq!(ntfs::get(&mounted.path().join("times/2001"), "system.ntfs_attrib_be"), attributes);
}

fn ext4(tree: &Tree) -> Option<(Arc<dyn FileSystem>, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let image: PathBuf = folder.path().join("ext4.img");
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    run(peer("mke2fs")?, &[&"-q", &"-F", &"-t", &"ext4", &"-N", &"30000", &"-d", &tree.path(), &image]);
    Some((vixmntapi::fs::open(&raw(&image)).unwrap().unwrap(), folder))
}

#[test]
fn sixteen_readers_at_once_read_the_same() {
    let tree = Tree::new().many(200).deep(10).sizes().sparse(8 << 20).links();
    let Some((files, _image)) = ext4(&tree) else { return };
    let Some(mounted) = Mounted::of(files) else { return };
    // This mke2fs sets whole seconds.
    let of = |path: &Path| Manifest::of(path).without("lost+found").map(|_, node| node.modified.nanos = 0);
    let theirs = of(tree.path());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let ours = of(mounted.path());
                for (path, node) in theirs.0.iter().filter(|(path, _)| !path.is_empty()) {
                    assert_eq!(ours.0.get(path), Some(node), "{}", path.escape_ascii());
                }
            });
        }
    });
}

#[test]
fn a_directory_of_20_000_files_is_listed_whole_and_again() {
    let tree = Tree::new().many(20_000);
    let names = [".", "-printf", r"%P\0"];
    let all = [".", "-printf", r"%P|%s|%b|%T@|%n|%m|%i\0"];
    let asked =
        Filled::new(&["mkfs.ext4", "-q", "-F"], tree.path(), |folder| run_in(&folder.join("many"), "find", &all));
    let Some(filled) = asked else { return };
    let Some(mounted) = Mounted::of(filled.files()) else { return };
    let folder = mounted.path().join("many");
    // With `stat` of each, and without, and from what the kernel has kept.
    assert_same_parts("stat", &run_in(&folder, "find", &all), &filled.said, 0);
    let (first, second) = (run_in(&folder, "find", &names), run_in(&folder, "find", &names));
    assert_same_parts("again", &first, &second, 0);
    assert_eq!(first.iter().filter(|byte| **byte == 0).count(), 20_001);
    // Back and forth: a program may go back to where it was.
    let directory = std::fs::File::open(&folder).unwrap();
    let mut listing = rustix::fs::Dir::new(directory).unwrap();
    let count = |listing: &mut rustix::fs::Dir| listing.by_ref().map(Result::unwrap).count();
    assert_eq!(listing.by_ref().take(10_000).map(Result::unwrap).count(), 10_000);
    let at = listing.next().unwrap().unwrap();
    let rest = count(&mut listing);
    assert_eq!(rest, 20_002 - 10_001);
    listing.seek(at.offset()).unwrap();
    assert_eq!(count(&mut listing), rest);
    listing.rewind();
    assert_eq!(count(&mut listing), 20_002);
}
