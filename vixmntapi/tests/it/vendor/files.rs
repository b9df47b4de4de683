//! The files of a folder that the library has mounted.

use std::sync::Arc;

use vixmntapi::{
    Error,
    copy::CopyOut,
    device::Device,
    fs::{Consistency, ExtentKind, FileKind, FileName},
};

use super::fake::{Begun, alone};
use crate::{
    compare::{Compare, assert_same},
    disks::Memory,
    ext::made_of,
    peers::Mount,
    tree::{Manifest, Tree},
};

fn no_device() -> Arc<dyn Device> {
    Arc::new(Memory(Vec::new()))
}

#[test]
fn every_path_byte_and_attribute_is_that_of_the_folder() {
    alone("vendor::files::every_path_byte_and_attribute_is_that_of_the_folder", || {
        let tree = Tree::linux(300);
        let begun = Begun::linux(&tree);
        let mounted = begun.open("a").volumes().unwrap()[0].mount().unwrap();
        assert_same(mounted.file_system(), &no_device(), &Manifest::of(tree.path()), Compare::ALL);
        let sparse = mounted.file_system().clone().open(mounted.lookup("sparse/holes.bin").unwrap(), None).unwrap();
        let extents = sparse.extents(0..sparse.size()).unwrap();
        let holes = extents.iter().filter(|extent| extent.kind == ExtentKind::Hole);
        assert!(
            holes.map(|hole| hole.range.end - hole.range.start).sum::<u64>() > (3 << 30) - (1 << 20),
            "{extents:?}"
        );
        assert_eq!(mounted.file_system().info().consistency, Consistency::NotTold);

        // What else is done with files takes them as well.
        let out = tempfile::tempdir().unwrap();
        let start = mounted.lookup("names").unwrap();
        let report = CopyOut::of(mounted.file_system(), start).named("all").run(out.path()).unwrap();
        assert!(report.failures.is_empty(), "{report:?}");
        let of =
            |path: &std::path::Path| Manifest::of(path).0.into_values().map(|node| node.digest).collect::<Vec<_>>();
        assert_eq!(of(&out.path().join("all")), of(&tree.path().join("names")));
        drop((mounted, sparse));
        begun.end();
    });
}

#[test]
fn a_volume_that_the_kernel_has_mounted_is_read_and_named() {
    alone("vendor::files::a_volume_that_the_kernel_has_mounted_is_read_and_named", || {
        let tree = Tree::new().many(100).deep(10).sizes().links().xattrs().modes().times();
        let Some(image) = made_of(&tree, &["-t", "ext4"], 40 << 20) else { return };
        let Some(mount) = Mount::new(&image.path, "ro") else { return };
        let begun = Begun::linux_at(mount.path());
        let mounted = begun.open("a").volumes().unwrap()[0].mount().unwrap();
        let info = mounted.file_system().info();
        assert_eq!((info.kind, info.block_size > 0, info.free < Some(info.total)), ("ext4", true, true));
        assert_same(mounted.file_system(), &no_device(), &Manifest::of(mount.path()), Compare::ALL);
        drop(mounted);
        begun.end();
    });
}

#[test]
fn nothing_leads_out_of_the_folder_and_nothing_special_is_opened() {
    alone("vendor::files::nothing_leads_out_of_the_folder_and_nothing_special_is_opened", || {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "of this machine").unwrap();
        let tree = Tree::new().links();
        let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, tree.path().join(name)).unwrap();
        link("absolute", outside.path().join("secret").to_str().unwrap());
        link("up", "../../../../../../../etc/passwd");
        link("folder", outside.path().to_str().unwrap());
        let begun = Begun::linux(&tree);
        let mounted = begun.open("a").volumes().unwrap()[0].mount().unwrap();
        for path in ["absolute", "up", "folder/secret", "../secret", "links/absolute"] {
            assert!(matches!(mounted.lookup(path), Err(Error::NotFound(_))), "{path}");
        }
        let files = mounted.file_system();
        for name in ["..", ".", "", "links/target", "a\0b"] {
            assert_eq!(files.lookup(files.root(), &FileName::from(name)).unwrap(), None, "{name:?}");
        }
        let folder = files.lookup(files.root(), &"folder".into()).unwrap().unwrap();
        assert!(matches!(files.lookup(folder, &"secret".into()), Err(Error::NotADirectory(_))));
        assert!(matches!(files.read_link(files.root()), Err(Error::Invalid(_))));
        assert!(matches!(files.metadata(vixmntapi::fs::NodeId { tree: 0, number: 1 << 60 }), Err(Error::NotFound(_))));

        // A pipe would wait for a writer.
        let entries = files.clone().read_dir(mounted.lookup("links").unwrap()).unwrap();
        let special = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| !matches!(entry.kind, Some(FileKind::File | FileKind::Directory | FileKind::Symlink)));
        let special: Vec<_> = special.collect();
        assert!(special.iter().any(|entry| entry.kind == Some(FileKind::Fifo)), "{special:?}");
        for entry in special {
            assert!(matches!(files.clone().open(entry.node, None), Err(Error::NotAFile { .. })), "{entry:?}");
        }
        drop(mounted);
        begun.end();
    });
}

#[test]
fn a_file_that_was_replaced_is_not_taken_for_the_one_that_was_seen() {
    alone("vendor::files::a_file_that_was_replaced_is_not_taken_for_the_one_that_was_seen", || {
        let tree = Tree::new();
        let begun = Begun::linux(&tree);
        let mounted = begun.open("a").volumes().unwrap()[0].mount().unwrap();
        let seen = mounted.lookup("file").unwrap();
        std::fs::write(tree.path().join("other"), "other").unwrap();
        std::fs::rename(tree.path().join("other"), tree.path().join("file")).unwrap();
        assert!(matches!(mounted.file_system().metadata(seen), Err(Error::NotFound(_))));
        std::fs::remove_file(tree.path().join("file")).unwrap();
        assert!(mounted.file_system().metadata(seen).is_err());
        drop(mounted);
        begun.end();
    });
}
