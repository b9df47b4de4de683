//! Alternate streams and security descriptors in copies and archives: kept, or counted.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use vixmntapi::{
    Error,
    archive::Archive,
    copy::{CopyOut, Streams},
    fs::{FileKind, FileName, FileSystem, open},
};

use super::{
    image::{self, Image, reparse, set},
    whole,
};
use crate::{
    compare::walk,
    disks::raw,
    peers::{peer, run},
    tree::noise,
};

/// Contents and streams by path and name, and descriptors by path.
#[derive(Debug, PartialEq, Eq)]
struct All {
    contents: BTreeMap<(String, String), Vec<u8>>,
    descriptors: BTreeMap<String, Vec<u8>>,
}

impl All {
    fn of(fs: &Arc<dyn FileSystem>) -> Self {
        let (mut contents, mut descriptors) = (BTreeMap::new(), BTreeMap::new());
        for (path, node) in walk(fs) {
            let path = String::from_utf8(path).unwrap();
            let read = |stream: Option<&FileName>| whole(&*fs.clone().open(node, stream).unwrap());
            if fs.metadata(node).unwrap().kind == FileKind::File {
                contents.insert((path.clone(), String::new()), read(None));
            }
            for (name, _) in fs.streams(node).unwrap() {
                contents.insert((path.clone(), name.to_string()), read(Some(&name)));
            }
            descriptors.insert(path, fs.security_descriptor(node).unwrap().unwrap());
        }
        Self { contents, descriptors }
    }
}

/// A volume with a file that has two names and four streams, and what else there is of streams and descriptors.
fn source() -> Option<(Image, Arc<dyn FileSystem>)> {
    let image = Image::new(&["-c", "4096"], 64)?;
    let mount = image.mount_with_streams()?;
    let write = |name: &str, bytes: &[u8]| fs::write(mount.path().join(name), bytes).unwrap();
    fs::create_dir(mount.path().join("folder")).unwrap();
    write("folder/report.docx", b"content");
    write("folder/report.docx:Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n");
    write("folder/report.docx:middling", &noise(60_000));
    write("folder/report.docx:empty", b"");
    write("folder/report.docx:large", &noise(200_000));
    write("folder:of a folder", b"yes");
    write("plain", b"no streams");
    fs::hard_link(mount.path().join("folder/report.docx"), mount.path().join("another name")).unwrap();
    write("link", b"");
    write("link:of a link", b"x");
    reparse(&mount.path().join("link"), 0xa000_000c, &image::link(0xa000_000c, "plain"));
    let mut acl = image::get(&mount.path().join("plain"), "system.ntfs_acl");
    let at = acl.len() - 16;
    acl[at..at + 4].copy_from_slice(&0x0012_0089_u32.to_le_bytes());
    set(&mount.path().join("plain"), "system.ntfs_acl", &acl);
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    Some((image, fs))
}

fn says(failures: &[Error], what: &str) -> bool {
    matches!(failures, [Error::At { source, .. }] if source.to_string().contains(what))
}

#[test]
fn what_is_not_asked_for_is_counted() {
    let Some((_image, fs)) = source() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = CopyOut::new(&fs).run(folder.path()).unwrap();
    // The root is the caller's folder.
    assert_eq!((report.files, report.directories, report.links, report.hard_links), (2, 1, 1, 1));
    assert_eq!((report.streams, report.streams_left_out, report.descriptors_left_out, report.left_out), (0, 6, 4, 0));
    let again = CopyOut::new(&fs).run(folder.path()).unwrap();
    assert_eq!((again.unchanged, again.streams_left_out, again.descriptors_left_out), (4, 6, 4));
    let report = Archive::new(&fs).tar(Vec::new()).unwrap();
    assert_eq!((report.streams, report.streams_left_out, report.descriptors_left_out), (0, 6, 5), "{report:?}");
    // zip has no hard links: there the file is twice.
    let report = Archive::new(&fs).keep_streams().keep_security_descriptors().zip(Vec::new()).unwrap();
    assert_eq!((report.streams, report.streams_left_out, report.descriptors_left_out), (0, 10, 6), "{report:?}");
}

#[test]
fn streams_and_descriptors_are_those_of_the_guest_on_another_volume_of_ntfs() {
    let Some((_image, fs)) = source() else { return };
    let mut truth = All::of(&fs);
    // A link has no attributes here, and an attribute at most 64 KiB; what is left out is told.
    for (path, stream) in [("link", "of a link"), ("folder/report.docx", "large"), ("another name", "large")] {
        truth.contents.remove(&(path.into(), stream.into())).unwrap();
    }
    let same = |put: &dyn Fn(&Path)| {
        let image = Image::new(&["-c", "4096"], 64)?;
        let mount = image.mount()?;
        put(mount.path());
        drop(mount);
        let mut found = All::of(&open(&raw(image.path())).unwrap().unwrap());
        // ntfs-3g makes files of links, as Interix did. The root is the other volume's own.
        found.contents.remove(&("link".into(), String::new()));
        for (path, descriptor) in truth.descriptors.iter().filter(|(path, _)| !["", "link"].contains(&&***path)) {
            assert_eq!(found.descriptors.get(path), Some(descriptor), "{path}");
        }
        assert!(found.contents == truth.contents, "{:?} {:?}", found.contents.keys(), truth.contents.keys());
        Some(())
    };
    let copy = |folder: &Path| {
        let report = CopyOut::new(&fs).streams(Streams::Attributes).keep_security_descriptors().run(folder).unwrap();
        assert!(says(&report.failures, "200000 bytes"), "{report:?}");
        assert_eq!((report.failed, report.files, report.streams, report.streams_left_out), (1, 2, 4, 1));
        assert_eq!(report.descriptors_left_out, 1, "that of the link");
    };
    let Some(()) = same(&copy) else { return };
    let Some(tar) = peer("tar") else { return };
    let packed = tempfile::NamedTempFile::new().unwrap();
    let archive = Archive::new(&fs).keep_streams().keep_security_descriptors();
    let report = archive.tar(packed.reopen().unwrap()).unwrap();
    assert!(says(&report.failures, "200000 bytes"), "{report:?}");
    assert_eq!((report.entries, report.streams, report.descriptors_left_out), (6, 5, 0), "{report:?}");
    same(&|folder| {
        let arguments = ["--xattrs", "--xattrs-include=*", "--exclude=link", "-C"];
        run(&tar, &[&"-xpf", &packed.path(), &arguments[0], &arguments[1], &arguments[2], &arguments[3], &folder]);
    });
}

#[test]
fn streams_become_files_beside_their_own_and_a_second_copy_leaves_them() {
    let Some((_image, fs)) = source() else { return };
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let report = CopyOut::new(&fs).streams(Streams::Files).run(folder.path()).unwrap();
        assert_eq!((report.failed, report.streams, report.streams_left_out), (0, 5, 1), "{report:?}");
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert!(read("another name:large") == noise(200_000));
        assert_eq!((read("folder:of a folder"), read("folder/report.docx")), (b"yes".to_vec(), b"content".to_vec()));
        assert!(!folder.path().join("folder/report.docx:large").exists());
    }
}
