//! ISO 9660 against genisoimage and xorriso: what goes in has to come out.

use std::fs;

use tempfile::TempDir;
use vixmntapi::fs::{FileKind, open};

use crate::{
    compare::{Compare, assert_same},
    disks::raw,
    peers::{peer, run},
    tree::{Manifest, Names, Tree},
};

/// Makes a disc of a tree.
pub(crate) fn disc(program: &str, options: &[&str], tree: &Tree) -> Option<(TempDir, std::path::PathBuf)> {
    let program = peer(program)?;
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disc.iso");
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = options.iter().map(|option| option as _).collect();
    let path = tree.path();
    arguments.extend([&"-quiet" as &dyn AsRef<std::ffi::OsStr>, &"-V", &"MY DISC", &"-o", &image, &path]);
    run(program, &arguments);
    Some((folder, image))
}

#[test]
fn a_tree_with_rock_ridge_is_read_with_owners_links_and_times() {
    let tree = Tree::new().many(200).deep(20).names(Names::Utf8).links().modes();
    let cases = [
        ("xorriso", &["-as", "mkisofs", "-R"][..]),
        ("genisoimage", &["-R"]),
        ("genisoimage", &["-R", "-J", "-joliet-long"]),
    ];
    for (program, options) in cases {
        // What genisoimage cuts, as isoinfo says too.
        if program == "genisoimage" {
            let _ = fs::remove_file(tree.path().join("links/long"));
        }
        // Joliet has no names outside of UCS-2; Rock Ridge is what is read of such a disc.
        if options.contains(&"-J") {
            fs::remove_dir_all(tree.path().join("names")).unwrap();
        }
        let Some((_folder, image)) = disc(program, options, &tree) else { return };
        let device = raw(&image);
        let files = open(&device).unwrap().expect("it is a disc");
        let root = files.metadata(files.root()).unwrap();
        let mut manifest = Manifest::of(tree.path());
        // Where genisoimage keeps the directories that are deeper than eight.
        if let Some(moved) = files.lookup(files.root(), &"rr_moved".into()).unwrap() {
            let there = files.metadata(moved).unwrap();
            let mut node = manifest.0.get(&b"deep"[..]).unwrap().clone();
            (node.mode, node.uid, node.gid, node.modified) = (there.mode, there.uid, there.gid, there.times.modified);
            manifest.0.insert(b"rr_moved".to_vec(), node);
        }
        let manifest = manifest.map(|path, node| {
            if path.is_empty() {
                node.modified = root.times.modified;
            }
            // Rock Ridge keeps the components of a link, so that a slash at its end is lost.
            if let Some(target) = node.target.as_mut().filter(|target| target.len() > 1 && target.ends_with(b"/")) {
                target.pop();
                node.size -= 1;
            }
        });
        let what = Compare { owners: true, modified: 1_000_000_000, xattrs: false, links: false };
        assert_same(&files, &device, &manifest, what);
        assert_eq!((files.info().kind, files.info().label.as_deref()), ("iso9660", Some("MY DISC")));
    }
}

#[test]
fn a_tree_with_joliet_is_read_by_its_long_names() {
    let tree = Tree::new().many(300).sizes();
    fs::write(tree.path().join("Größe 漢字.text"), "x").unwrap();
    let Some((_folder, image)) = disc("genisoimage", &["-J", "-input-charset", "utf-8"], &tree) else { return };
    let device = raw(&image);
    let files = open(&device).unwrap().expect("it is a disc");
    assert_same(&files, &device, &Manifest::of(tree.path()), Compare::CONTENT);
}

#[test]
fn a_plain_disc_has_names_without_versions() {
    let tree = Tree::new();
    fs::create_dir(tree.path().join("SUB")).unwrap();
    fs::write(tree.path().join("SUB/FILE.TXT"), "x").unwrap();
    fs::write(tree.path().join("README"), "y").unwrap();
    let Some((_folder, image)) = disc("genisoimage", &[], &tree) else { return };
    let device = raw(&image);
    let files = open(&device).unwrap().expect("it is a disc");
    assert_same(&files, &device, &Manifest::of(tree.path()), Compare::CONTENT);
    let sub = files.lookup(files.root(), &"sub".into()).unwrap().expect("it is there");
    assert_eq!(files.metadata(sub).unwrap().kind, FileKind::Directory);
}
