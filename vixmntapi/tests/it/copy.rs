//! Copying out: what a guest has comes whole, and what a guest says leads nowhere else.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use vixmntapi::{
    Error,
    copy::{CopyOut, Names, Report},
    fs::{FileKind, NodeId, Timestamp},
};

use crate::{
    compare::{Compare, assert_same},
    disks::raw,
    images,
    made_up::MadeUp,
    peers::peer,
    tree::{Manifest, Names as Kinds, Tree},
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn failures(report: &Report) -> Vec<String> {
    let text = |error: &Error| {
        let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    assert_eq!(report.failed, report.failures.len() as u64);
    report.failures.iter().map(text).collect()
}

#[test]
fn a_tree_is_copied_with_all_that_the_guest_has() {
    let Some(_) = peer("mke2fs") else { return };
    let tree = Tree::new().many(100).deep(40).sizes().sparse(300 << 20).names(Kinds::Bytes).links().xattrs().modes();
    let (files, image) = images::ext4(&tree);
    let folder = tempfile::tempdir().unwrap();
    let all = |folder: &Path| {
        let copy = CopyOut::new(&files).named("all").keep_owners().keep_set_id().keep_special_files();
        copy.keep_all_xattrs().run(folder).unwrap()
    };
    let report = all(folder.path());
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!((report.hard_links, report.unchanged, report.cancelled), (2, 0, false));
    let copied = Manifest::of(&folder.path().join("all"));
    // And `lost+found`.
    assert_eq!(copied.0.len(), Manifest::of(tree.path()).0.len() + 1);
    assert_same(&files, &raw(image.path()), &copied, Compare::ALL);
    let blocks = fs::metadata(folder.path().join("all/sparse/holes.bin")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} sectors of 300 MiB with 50 kB in them");
    // Once more there is nothing to do.
    let again = all(folder.path());
    assert_eq!((again.files, again.bytes, again.links, again.hard_links, again.special), (0, 0, 0, 0, 0));
    assert_eq!(again.unchanged, report.files + report.links + report.hard_links + report.special);
    assert_eq!(failures(&again), [""; 0]);
}

#[test]
fn owners_privileges_and_devices_are_left_out_unless_they_are_asked_for() {
    let files = MadeUp::new(&[(b"su", 2), (b"pipe", 3), (b"disk", 4), (b"d", 5)])
        .file(2, b"program")
        .special(3, FileKind::Fifo)
        .special(4, FileKind::BlockDevice)
        .directory(5, &[])
        .change(2, |metadata| (metadata.mode, metadata.uid, metadata.gid) = (0o6755, 12_345, 12_345))
        .change(5, |metadata| metadata.mode = 0o3777)
        .xattr(2, "user.kept", b"yes")
        .xattr(2, "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .shared();
    let folder = tempfile::tempdir().unwrap();
    let report = CopyOut::new(&files).run(folder.path()).unwrap();
    assert_eq!((report.files, report.directories, report.special, report.left_out), (1, 1, 0, 2));
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(names(folder.path()), ["d", "su"]);
    let node = &Manifest::of(folder.path()).0[&b"su"[..]];
    assert_eq!((node.mode, node.xattrs.len()), (0o755, 1));
    assert_ne!(node.uid, 12_345);
    let mode = fs::metadata(folder.path().join("d")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o1777);
}

#[test]
fn nothing_is_made_outside_the_folder_whatever_names_and_links_say() {
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().to_str().unwrap().as_bytes();
    let files =
        MadeUp::new(&[(b"d", 2), (b"d", 3), (b"..", 3), (b"../up", 4), (b"/tmp/abs", 4), (b"", 4), (b"good", 4)])
            .link(2, there)
            .directory(3, &[(b"inside", 4), (b"..", 4)])
            .file(4, b"bytes")
            .change(4, |metadata| metadata.links = 9)
            .shared();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let report = CopyOut::new(&files).run(&target).unwrap();
    let failed = failures(&report);
    assert_eq!(failed.len(), 5, "{failed:#?}");
    assert!(failed[0].contains("cannot read \"d\": cannot enter the folder"), "{failed:#?}");
    assert!(failed[1..].iter().all(|why| why.contains("cannot be on this computer")), "{failed:#?}");
    assert_eq!((names(folder.path()), names(&target)), (vec!["target".into()], vec!["d".into(), "good".into()]));
    assert!(names(outside.path()).is_empty());
    // Escaped they all have their place.
    let target = folder.path().join("escaped");
    let report = CopyOut::new(&files).names(Names::Escaped).run(&target).unwrap();
    assert_eq!(report.failed, 1, "{:?}", failures(&report)); // `d` again.
    assert_eq!(names(&target.join("%2E%2E")), ["%2E%2E", "inside"]);
    assert_eq!(names(&target), ["%", "%2E%2E", "..%2Fup", "%2Ftmp%2Fabs", "d", "good"].map(String::from).sorted());
    assert_eq!(names(folder.path()), ["escaped", "target"]);
    assert!(names(outside.path()).is_empty());
}

#[test]
fn links_that_are_in_the_folder_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "mine").unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("etc")).unwrap();
    symlink(outside.path().join("passwd"), folder.path().join("file")).unwrap();
    symlink(outside.path().join("new"), folder.path().join(".vixmntapi-partial")).unwrap();
    let files = MadeUp::new(&[(b"etc", 2), (b"file", 3)])
        .directory(2, &[(b"passwd", 3), (b"new", 3)])
        .file(3, b"the guest's")
        .shared();
    let report = CopyOut::new(&files).run(folder.path()).unwrap();
    assert_eq!(report.failed, 2, "{:?}", failures(&report));
    let report = CopyOut::new(&files).overwrite().run(folder.path()).unwrap();
    assert_eq!((report.failed, report.files), (1, 1), "{:?}", failures(&report));
    assert!(fs::symlink_metadata(folder.path().join("file")).unwrap().is_file());
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"the guest's");
    assert_eq!(fs::read(outside.path().join("passwd")).unwrap(), b"mine");
    assert_eq!(names(outside.path()), ["passwd"]);
}

#[test]
fn a_copy_that_was_ended_goes_on_where_it_was() {
    let (one, two) = (vec![1; 3 << 20], vec![2; 3 << 20]);
    let files = MadeUp::new(&[(b"a", 2), (b"b", 3), (b"c", 2)])
        .file(2, &one)
        .file(3, &two)
        .change(2, |metadata| {
            metadata.links = 2;
            metadata.times.modified = Timestamp::new(1_000_000_000, 123_456_789);
        })
        .change(3, |metadata| metadata.times.modified = Timestamp::new(-5, 999_999_999))
        .shared();
    let folder = tempfile::tempdir().unwrap();
    let report = CopyOut::new(&files)
        .on_progress(|progress| match progress.bytes {
            bytes if bytes > 4 << 20 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .run(folder.path())
        .unwrap();
    assert!(report.cancelled && report.files == 1 && report.failed == 0, "{report:?}");
    assert_eq!(names(folder.path()), ["a"]);
    // What a process leaves that was killed.
    fs::write(folder.path().join(".vixmntapi-partial"), "half").unwrap();
    let report = CopyOut::new(&files).run(folder.path()).unwrap();
    assert_eq!((report.unchanged, report.files, report.hard_links, report.failed), (1, 1, 1, 0));
    assert_eq!(names(folder.path()), ["a", "b", "c"]);
    assert!(fs::read(folder.path().join("b")).unwrap() == two && fs::read(folder.path().join("c")).unwrap() == one);
    let node = |name: &str| fs::metadata(folder.path().join(name)).unwrap();
    assert_eq!((node("b").mtime(), node("b").mtime_nsec()), (-5, 999_999_999));
    assert_eq!(node("a").ino(), node("c").ino());
    // What is not the guest's is replaced when that is said, and only then.
    fs::write(folder.path().join("b"), "changed").unwrap();
    let report = CopyOut::new(&files).run(folder.path()).unwrap();
    assert!(failures(&report)[0].contains("something else is there") && report.failed == 1);
    let report = CopyOut::new(&files).overwrite().run(folder.path()).unwrap();
    assert_eq!((report.files, report.unchanged, report.failed), (1, 2, 0));
    assert!(fs::read(folder.path().join("b")).unwrap() == two);
}

#[test]
fn a_single_file_is_copied_by_the_name_that_is_said() {
    let files = MadeUp::new(&[(b"a", 2)]).file(2, b"bytes").shared();
    let folder = tempfile::tempdir().unwrap();
    let node = NodeId { tree: 0, number: 2 };
    assert!(matches!(CopyOut::of(&files, node).run(folder.path()), Err(Error::Invalid(_))));
    let report = CopyOut::of(&files, node).named("b").run(folder.path()).unwrap();
    assert_eq!((report.files, names(folder.path())), (1, vec!["b".into()]));
    let report = CopyOut::of(&files, node).named("../b").run(folder.path()).unwrap();
    assert_eq!(report.failed, 1);
}

#[test]
fn a_volume_that_says_it_holds_more_than_it_can_is_bounded() {
    let files = MadeUp::new(&[(b"a", 2), (b"b", 3), (b"huge", 4)])
        .file(2, &[7; 3000])
        .file(3, &[7; 3000])
        .sparse(4, 1 << 42, &[(1 << 41, b"here")])
        .shared();
    let folder = tempfile::tempdir().unwrap();
    let refused = CopyOut::new(&files).max_bytes(5000).run(folder.path()).unwrap_err();
    assert!(matches!(&refused, Error::Invalid(why) if why.contains("more than the 5000 bytes")), "{refused:?}");
    assert_eq!(names(folder.path()), ["a"]);
    let report = CopyOut::new(&files).run(folder.path()).unwrap();
    assert_eq!((report.bytes, failures(&report)), (3004, vec![]));
    assert!(fs::metadata(folder.path().join("huge")).unwrap().blocks() < 64);
    assert!(!fs::metadata(folder.path().join("huge")).unwrap().file_type().is_fifo());
}

/// Sorted, for lists that are compared.
trait Sorted {
    fn sorted(self) -> Self;
}

impl<const N: usize> Sorted for [String; N] {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}
