//! VMware's library, by small libraries of the same interface that the C compiler makes on the spot: theirs was never at
//! hand. Each test runs in a process of its own, as a library begins once a process.
#![cfg(all(feature = "vendor", target_os = "linux"))]

mod fake;
mod files;

use std::{error::Error as _, thread};

use vixmntapi::{
    Error,
    backend::{self, VolumeKind},
    fs::FileName,
    os::OsFamily,
    vendor::{LibraryError, LibraryOptions, Proxy, VixCode, VixMntapi},
};

use self::fake::{Begun, Fake, alone};
use crate::tree::Tree;

#[test]
fn whatever_is_dropped_last_dismounts_and_closes_in_the_right_order() {
    alone("vendor::whatever_is_dropped_last_dismounts_and_closes_in_the_right_order", || {
        let tree = Tree::new();
        let begun = Begun::linux(&tree);
        let ending = ["dismount 0", "free handles", "close a"];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [2, 0, 1, 3]] {
            let set = begun.open("a");
            let volume = set.volumes().unwrap().remove(0);
            let mounted = volume.mount().unwrap();
            // The file system alone keeps the volume mounted.
            let files = mounted.file_system().clone();
            begun.calls();
            let mut parts: [Option<Box<dyn std::any::Any>>; 4] =
                [Some(Box::new(set)), Some(Box::new(volume)), Some(Box::new(mounted)), Some(Box::new(files))];
            for (at, part) in order.into_iter().enumerate() {
                parts[part] = None;
                assert!(at == 3 || !begun.calls().iter().any(|call| call.starts_with("close")), "{order:?}");
            }
        }
        // An open file keeps it as well, and what is told comes at the end.
        let set = begun.open("a");
        let mounted = set.volumes().unwrap()[0].mount().unwrap();
        let content = mounted.file_system().clone().open(mounted.lookup("file").unwrap(), None).unwrap();
        begun.calls();
        mounted.dismount().unwrap();
        drop(set);
        assert!(begun.calls().is_empty());
        assert_eq!(content.size(), 4);
        drop(content);
        assert_eq!(begun.calls(), ending);
        begun.end();
    });
}

#[test]
fn errors_name_what_was_tried_and_keep_the_librarys_own() {
    alone("vendor::errors_name_what_was_tried_and_keep_the_librarys_own", || {
        let broken = Fake::new(&["-DWITHOUT_FREE"]);
        let disks = broken.disks();
        let error = VixMntapi::load(&disks, broken.path(), LibraryOptions::default()).unwrap_err();
        let source = error.source().unwrap().to_string();
        assert!(source.contains("libvixMntapi.so.1 has no VixMntapi_FreeVolumeHandles"), "{source}");
        drop(disks);

        let tree = Tree::new();
        let begun = Begun::with(&tree, Fake::new(&[]), Proxy::Linux);
        let connection = begun.connect();
        let error = begun.vendor.open(&connection, &["a", "b"]).unwrap_err();
        assert_eq!(error.to_string(), "cannot open a, b by VMware's library");
        let limit = |error: &Error| {
            let Error::Vendor { source, .. } = error else { panic!("{error}") };
            assert!(matches!(**source, LibraryError::Limit { .. }), "{source}");
        };
        limit(&error);
        let set = begun.open("busy");
        limit(&set.os_info().unwrap_err());
        limit(&backend::DiskSet::from(set.clone()).os_info().unwrap_err());
        // The second volume is mounted nowhere, says the library.
        let error = set.volumes().unwrap()[1].mount().unwrap_err();
        assert!(matches!(&error, Error::Invalid(what) if what.contains("volume 1 of busy")), "{error}");
        let error = set.volumes().unwrap()[0].mount().unwrap().dismount().unwrap_err();
        assert_eq!(
            (error.vix_code(), error.to_string()),
            (Some(VixCode::MNTAPI_OPEN_HANDLES), "cannot dismount volume 0 of busy by VMware's library".into())
        );
        set.close().unwrap();
        assert_eq!(begun.calls().last().unwrap(), "close busy");
        let error = begun.vendor.open(&connection, &["fail=1,24017"]).unwrap_err();
        assert_eq!((error.vix_code(), error.hint()), (Some(VixCode::MNTAPI_NO_ROOT), Some("run as root")));
        drop(connection);
        begun.end();
    });
}

#[test]
fn each_call_that_fails_leaves_nothing_behind() {
    alone("vendor::each_call_that_fails_leaves_nothing_behind", || {
        let tree = Tree::new();
        let begun = Begun::with(&tree, Fake::new(&["-DWINDOWS"]), Proxy::Windows);
        let everything = |path: &str| {
            let set: backend::DiskSet = begun.vendor.open(&begun.connect(), &[path])?.into();
            let volume = set.volumes()?.remove(0);
            volume.info()?;
            let mounted = volume.mount()?;
            set.os_info()?;
            mounted.read("file", 100)?;
            mounted.dismount()?;
            drop(volume);
            set.vendor().unwrap().clone().close()
        };
        everything("a").unwrap();
        let mut steps = 0;
        while let Err(error) = everything(&format!("fail={},24020", steps + 1)) {
            assert_eq!(error.vix_code(), Some(VixCode::MNTAPI_INTERNAL), "{error}");
            everything("after").unwrap();
            steps += 1;
        }
        // Open, list, describe, mount, describe, ask for the system, dismount; what fails at the end is not told, as a
        // clone of the set is closed.
        println!("{steps} calls made to fail, each with an error");
        assert_eq!(steps, 7);
        begun.end();
    });
}

#[test]
fn one_function_reads_through_either_backend() {
    alone("vendor::one_function_reads_through_either_backend", || {
        let tree = Tree::new().many(50).deep(3).links();
        std::fs::write(tree.path().join("file"), "file").unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        std::fs::write(tree.path().join("etc/hostname"), "guest\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", tree.path().join("etc/name")).unwrap();
        let Some(image) = crate::ext::made_of(&tree, &["-t", "ext4"], 12 << 20) else { return };
        let begun = Begun::linux(&tree);
        let embedded = vixmntapi::set::DiskSet::builder().raw(&image.path).unwrap().open().unwrap();
        let vendor = begun.open("a");
        let told = [backend::DiskSet::from(embedded), vendor.into()].map(|set| {
            let volume = set.volumes().unwrap().remove(0);
            let mounted = volume.mount().unwrap();
            assert!(volume.info().unwrap().is_mounted && set.embedded().is_some() == mounted.folder().is_none());
            let paths = vixmntapi::walk::Walk::new(mounted.file_system()).map(|found| found.unwrap());
            let mut paths: Vec<_> = paths.map(|found| (found.path, found.kind)).collect();
            paths.retain(|(path, _)| *path != *"lost+found");
            paths.sort_by(|one, other| one.0.cmp(&other.0));
            let name = mounted.read("/etc/name", 100).unwrap();
            let exists = ["etc/../etc", "etc/none", "etc/hostname/x"].map(|path| mounted.exists(path).unwrap());
            let link = mounted.file_system().read_link(mounted.lookup_link("etc/name").unwrap()).unwrap();
            let large = mounted.read("/etc/name", 3).unwrap_err().to_string();
            let modified = mounted.metadata("etc/hostname").unwrap().times.modified.seconds;
            let count = mounted.read_dir("many").unwrap().count();
            mounted.dismount().unwrap();
            (paths, name, exists, link, large, modified, count)
        });
        assert_eq!(told[0], told[1]);
        assert!(told[0].0.len() > 60 && told[0].1 == b"guest\n" && told[0].2 == [true, false, false]);
        begun.end();
    });
}

#[test]
fn systems_and_mount_points_of_windows_arrive() {
    alone("vendor::systems_and_mount_points_of_windows_arrive", || {
        let tree = Tree::new();
        let begun = Begun::with(&tree, Fake::new(&["-DWINDOWS"]), Proxy::Windows);
        let set: backend::DiskSet = begun.open("a").into();
        let volumes = set.volumes().unwrap();
        let infos: Vec<_> = volumes.iter().map(|volume| volume.info().unwrap()).collect();
        let kinds: Vec<_> = infos.iter().map(|info| info.kind).collect();
        assert_eq!(kinds, [VolumeKind::Mbr, VolumeKind::Gpt, VolumeKind::Dynamic]);
        assert_eq!(infos[2].mount_points, [FileName::from("C:\\"), FileName::new(b"C:\\Daten\\\xe4".to_vec())]);
        assert_eq!(infos[2].name, "volume2");
        let [system] = &set.os_info().unwrap()[..] else { panic!() };
        assert_eq!((system.family, system.version, system.is_64_bit), (Some(OsFamily::Windows), (10, 0), Some(true)));
        assert_eq!((system.vendor.as_deref(), &system.directory), (None, &Some("/Windows".into())));
        drop((set, volumes));
        begun.end();
    });
}

#[test]
fn many_threads_read_mount_and_dismount() {
    alone("vendor::many_threads_read_mount_and_dismount", || {
        let tree = Tree::new().many(20);
        let begun = Begun::linux(&tree);
        thread::scope(|scope| {
            for number in 0..8 {
                let begun = &begun;
                scope.spawn(move || {
                    for round in 0..10 {
                        let set = begun.vendor.open(&begun.connect(), &[&format!("{number}-{round}")]).unwrap();
                        let mounted = set.volumes().unwrap()[0].mount().unwrap();
                        drop(set);
                        let files = mounted.file_system().clone();
                        drop(mounted);
                        assert_eq!(vixmntapi::walk::Walk::new(&files).filter(|found| found.is_ok()).count(), 23);
                    }
                });
            }
        });
        begun.end();
    });
}
