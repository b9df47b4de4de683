//! Single calls: what a program gets that no tool asks for.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{FileExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use rustix::{
    fs::{SeekFrom, XattrFlags},
    io::Errno,
};
use vixmntapi::fuse::{Access, FuseMount};

use crate::{
    made_up::MadeUp,
    support::{Mounted, can_mount},
};

fn files() -> MadeUp {
    MadeUp::new(&[(b"file", 2), (b"folder", 3), (b"link", 4), (b"twin", 2), (b"null", 5)])
        .file(2, b"the bytes of the file")
        .directory(3, &[])
        .link(4, b"folder/nowhere")
        .special(5, vixmntapi::fs::FileKind::CharDevice)
        .xattr(2, "user.name", b"a value")
        .xattr(2, "user.empty", b"")
        .xattr(2, "user.large", &[7; 40_000])
}

/// The number of the error that a call ended with.
fn code<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_io_error(&error).unwrap())
}

#[test]
fn nothing_can_be_changed_even_when_it_is_mounted_anew_for_writing() {
    let Some(mounted) = Mounted::of(files().shared()) else { return };
    let path = mounted.path();
    let refused = || {
        let file = path.join("file");
        let new = path.join("new");
        let owner = || std::os::unix::fs::chown(&file, Some(1), None);
        let xattr = rustix::fs::setxattr(&file, "user.new", b"x", XattrFlags::empty());
        for (what, code) in [
            ("open", code(File::options().write(true).open(&file))),
            ("truncate", code(File::options().write(true).truncate(true).open(&file))),
            ("append", code(File::options().append(true).open(&file))),
            ("create", code(File::create(&new))),
            ("mkdir", code(fs::create_dir(&new))),
            ("unlink", code(fs::remove_file(&file))),
            ("rmdir", code(fs::remove_dir(path.join("folder")))),
            ("rename", code(fs::rename(&file, &new))),
            ("link", code(fs::hard_link(&file, &new))),
            ("symlink", code(std::os::unix::fs::symlink("x", &new))),
            ("chmod", code(fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))),
            ("chown", code(owner())),
            ("setxattr", xattr.err()),
            ("removexattr", rustix::fs::removexattr(&file, "user.name").err()),
        ] {
            assert_eq!(code, Some(Errno::ROFS), "{what}");
        }
    };
    refused();
    let anew = Command::new("mount").args(["-o", "remount,rw"]).arg(path).output().unwrap();
    if anew.status.success() {
        refused();
    }
    assert_eq!(fs::read(path.join("file")).unwrap(), b"the bytes of the file");
}

#[test]
fn numbers_links_and_devices_are_the_guests() {
    let Some(mounted) = Mounted::of(files().change(2, |metadata| metadata.links = 2).shared()) else { return };
    let of = |name: &str| fs::symlink_metadata(mounted.path().join(name)).unwrap();
    let (file, twin) = (of("file"), of("twin"));
    assert_eq!((file.ino(), twin.ino(), file.nlink()), (2, 2, 2));
    assert_eq!((of("folder").ino(), of("link").ino()), (3, 4));
    assert_eq!(fs::read_link(mounted.path().join("link")).unwrap(), Path::new("folder/nowhere"));
    let null = of("null").rdev();
    assert_eq!((rustix::fs::major(null), rustix::fs::minor(null)), (1, 3));
    // It is there, and it is no way to a device of this computer.
    assert_eq!(code(File::open(mounted.path().join("null"))), Some(Errno::ACCESS));
    let mut numbers = fs::read_dir(mounted.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        std::os::unix::fs::DirEntryExt::ino(&entry) == entry.metadata().unwrap().ino()
    });
    assert!(numbers.all(|is_same| is_same));
}

#[test]
fn attributes_are_told_by_size_first_and_too_small_buffers_are_refused() {
    let Some(mounted) = Mounted::of(files().shared()) else { return };
    let file = mounted.path().join("file");
    let get = |name: &str, buffer: &mut [u8]| rustix::fs::lgetxattr(&file, name, buffer);
    assert_eq!(rustix::fs::lgetxattr_query(&file, "user.name"), Ok(7));
    assert_eq!(get("user.name", &mut [0; 6]), Err(Errno::RANGE));
    let mut buffer = [0; 50_000];
    assert_eq!(get("user.name", &mut buffer), Ok(7));
    assert_eq!(&buffer[..7], b"a value");
    assert_eq!(get("user.empty", &mut buffer), Ok(0));
    assert_eq!((get("user.large", &mut buffer), buffer[39_999]), (Ok(40_000), 7));
    assert_eq!(get("user.other", &mut buffer), Err(Errno::NODATA));
    let list = |buffer: &mut [u8]| rustix::fs::llistxattr(&file, buffer);
    let names = b"user.name\0user.empty\0user.large\0";
    assert_eq!(rustix::fs::llistxattr_query(&file), Ok(names.len()));
    assert_eq!(list(&mut [0; 10]), Err(Errno::RANGE));
    let len = list(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], names);
}

#[test]
fn holes_are_found_from_everywhere() {
    const KIB: u64 = 1024;
    let piece = vec![1; 4096];
    let pieces: Vec<_> = (0..300_u64).map(|number| (number * 12 * KIB + 8 * KIB, &*piece)).collect();
    let size = 300 * 12 * KIB + (1 << 40);
    let files =
        MadeUp::new(&[(b"sparse", 2), (b"empty", 3), (b"full", 4)]).sparse(2, size, &pieces).file(3, b"").file(4, b"x");
    let Some(mounted) = Mounted::of(files.shared()) else { return };
    let open = |name: &str| File::open(mounted.path().join(name)).unwrap();
    let (sparse, empty, full) = (open("sparse"), open("empty"), open("full"));
    let data = |file: &File, at| rustix::fs::seek(file, SeekFrom::Data(at));
    let hole = |file: &File, at| rustix::fs::seek(file, SeekFrom::Hole(at));
    let mut at = 0;
    for (start, _) in &pieces {
        assert_eq!(data(&sparse, at), Ok(*start));
        at = hole(&sparse, *start).unwrap();
        assert_eq!(at, start + 4 * KIB);
    }
    assert_eq!(data(&sparse, at), Err(Errno::NXIO));
    assert_eq!((hole(&sparse, at), hole(&sparse, size - 1)), (Ok(at), Ok(size - 1)));
    // Backwards as well.
    assert_eq!(
        (data(&sparse, 100 * KIB), data(&sparse, 5), hole(&sparse, 9 * KIB)),
        (Ok(104 * KIB), Ok(8 * KIB), Ok(12 * KIB))
    );
    assert_eq!((data(&sparse, size), hole(&sparse, size + 1)), (Err(Errno::NXIO), Err(Errno::NXIO)));
    assert_eq!((data(&empty, 0), hole(&empty, 0)), (Err(Errno::NXIO), Err(Errno::NXIO)));
    assert_eq!((data(&full, 0), hole(&full, 0)), (Ok(0), Ok(1)));
    let mut buffer = [9; 8];
    sparse.read_exact_at(&mut buffer, 8 * KIB - 4).unwrap();
    assert_eq!(buffer, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(sparse.read_at(&mut buffer, size - 2).unwrap(), 2);
}

#[test]
fn statfs_tells_the_size_of_the_volume() {
    let Some(mounted) = Mounted::of(files().shared()) else { return };
    let of = rustix::fs::statvfs(mounted.path()).unwrap();
    assert_eq!((of.f_bsize, of.f_blocks, of.f_namemax), (4096, (1 << 30) / 4096, 255));
    assert!(of.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOSUID));
}

/// The options of a mount, as the system has them.
fn options(path: &Path) -> String {
    let list = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = list.lines().find(|line| line.split(' ').nth(1) == path.to_str()).unwrap();
    line.to_owned()
}

#[test]
fn mounts_are_for_their_owner_and_without_devices_setuid_and_programs_unless_asked() {
    let Some(mounted) = Mounted::of(files().shared()) else { return };
    let line = options(mounted.path());
    let (what, how) = (line.split(' ').next().unwrap(), line.split(' ').nth(3).unwrap().split(',').collect::<Vec<_>>());
    assert!(line.contains(" fuse.vixmntapi "), "{line}");
    assert_eq!(what, "vixmntapi");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(how.contains(&option), "{option}: {how:?}");
    }
    assert!(!line.contains("allow_other") && !line.contains("default_permissions"), "{line}");

    let checked = FuseMount::of_files(files().shared()).access(Access::Everyone).executable().name("a, b");
    let Some(mounted) = Mounted::new(checked) else { return };
    let line = options(mounted.path());
    assert!(line.contains("allow_other") && line.contains("default_permissions") && !line.contains("noexec"), "{line}");
    assert!(line.starts_with("a__b "), "{line}");
    let Some(mounted) = Mounted::new(FuseMount::of_files(files().shared()).access(Access::EveryoneUnchecked)) else {
        return;
    };
    let line = options(mounted.path());
    assert!(line.contains("allow_other") && !line.contains("default_permissions"), "{line}");
}

#[test]
fn others_see_what_the_guests_permissions_allow() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let files = || {
        let files = files().change(2, |metadata| (metadata.mode, metadata.uid) = (0o640, 4000));
        files.change(1, |metadata| metadata.mode = 0o755).shared()
    };
    let read_as = |user: u32, path: &Path| {
        // What the other user sees is asked by a program that has become that user.
        let mut command = Command::new("cat");
        command.uid(user).gid(user).arg(path).output().unwrap().status.success()
    };
    for (access, owner, other) in
        [(Access::Owner, false, false), (Access::Everyone, true, false), (Access::EveryoneUnchecked, true, true)]
    {
        let mounted = Mounted::new(FuseMount::of_files(files()).access(access)).unwrap();
        let file = mounted.path().join("file");
        assert_eq!((read_as(4000, &file), read_as(4001, &file)), (owner, other), "{access:?}");
        assert!(read_as(0, &file), "{access:?}");
    }
}
