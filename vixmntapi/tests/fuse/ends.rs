//! How mounts end.

use std::{
    fs::{self, File},
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vixmntapi::{Error, fuse::FuseMount};

use crate::{
    made_up::MadeUp,
    support::{Mounted, can_mount},
};

fn files() -> std::sync::Arc<dyn vixmntapi::fs::FileSystem> {
    MadeUp::new(&[(b"file", 2)]).file(2, &[5; 300_000]).shared()
}

#[test]
fn a_mount_in_use_is_not_ended_until_it_is_free() {
    let Some(mut mounted) = Mounted::of(files()) else { return };
    let file = File::open(mounted.path().join("file")).unwrap();
    let error = mounted.mount.unmount().unwrap_err();
    assert!(matches!(error, Error::Local { operation: "unmount", .. }), "{error:?}");
    assert!(mounted.mount.is_mounted() && mounted.path().join("file").exists());
    drop(file);
    mounted.mount.unmount().unwrap();
    assert!(!mounted.mount.is_mounted() && !mounted.path().join("file").exists());
    mounted.mount.unmount().unwrap();
}

#[test]
fn dropping_frees_the_folder_and_serves_who_has_a_file_open() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = FuseMount::of_files(files()).at(folder.path()).unwrap();
    let mut file = File::open(folder.path().join("file")).unwrap();
    drop(mount);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [5; 300_000]);
    // Another can be there while the first still serves.
    let again = FuseMount::of_files(files()).at(folder.path()).unwrap();
    drop(file);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(again);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_panic_of_the_program_ends_its_mounts() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _mount = FuseMount::of_files(files()).at(folder.path()).unwrap();
        assert!(folder.path().join("file").exists());
        panic!("as the test wants it");
    }));
    assert!(panicked.is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_is_mounted_once_and_only_a_folder_is() {
    let Some(mounted) = Mounted::of(files()) else { return };
    let again = FuseMount::of_files(files()).at(mounted.path()).unwrap_err();
    let reason = |error: &Error| std::error::Error::source(error).unwrap().to_string();
    assert!(reason(&again).contains("mounted there already"), "{again:?}");
    let Err(error) = FuseMount::of_files(files()).at(mounted.path().join("file")) else { panic!("mounted on a file") };
    assert!(matches!(error, Error::Local { operation: "mount on", .. }), "{error:?}");
    assert!(FuseMount::of_files(files()).at("/does/not/exist").is_err());
}

#[test]
fn a_mount_that_somebody_else_has_ended_is_left_alone() {
    let Some(mut mounted) = Mounted::of(files()) else { return };
    let folder = mounted.path().to_owned();
    crate::peers::run("umount", &[&folder]);
    // Now somebody has another there, which is not ours to end.
    let other = FuseMount::of_files(files()).at(&folder).unwrap();
    mounted.mount.unmount().unwrap();
    assert!(other.is_mounted() && folder.join("file").exists());
    drop(mounted);
    assert!(folder.join("file").exists() || !folder.exists());
}
