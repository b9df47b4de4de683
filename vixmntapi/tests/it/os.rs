//! Operating systems found on sets of disks: trees of Linux, and layouts of Windows with hives that hivexsh wrote.

mod installed;
mod logs;
mod registry;
mod subvolumes;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::{
    fs::FileName,
    os::{Architecture, OsFamily, OsInfo},
    set::{DiskSet, DiskSetBuilder, VolumeKind},
};

use self::registry::{Setting, hive};
use crate::{
    disks::Memory,
    ext::made_of,
    guest::Guest,
    ldm,
    ntfs::image::Image as Ntfs,
    peers::{peer, run},
    tree::Tree,
};

const MIB: u64 = 1 << 20;
const ROOT_UUID: &str = "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e11";

#[test]
fn a_debian_is_found_with_its_release_kernel_machine_and_mounts() {
    let tree = Tree::new();
    debian(tree.path());
    let Some(root) = made_of(&tree, &["-t", "ext4", "-L", "root disk", "-U", ROOT_UUID], 16 * MIB) else { return };
    let Some(home) = made_of(&Tree::new(), &["-t", "ext4", "-L", "home"], 8 * MIB) else { return };
    let Some(disk) =
        Disk::new("gpt", &[(16, "type=L,uuid=11111111-2222-3333-4444-555555555555,name=sys"), (8, "type=L")])
    else {
        return;
    };
    disk.put(0, &root.path);
    disk.put(1, &home.path);
    let srv = made_of(&Tree::new(), &["-t", "ext4", "-L", "my data"], 8 * MIB).unwrap();
    let set = DiskSet::builder().raw(&disk.path).unwrap().raw(&srv.path).unwrap().open().unwrap();
    let report = set.os_info();
    assert!(report.problems.is_empty(), "{report:?}");
    let [system] = &report.systems[..] else { panic!("{report:?}") };
    assert_eq!((system.family, system.root.as_str()), (OsFamily::Linux, "disk0p1"));
    assert_eq!((system.vendor.as_str(), system.name.as_str()), ("debian", "Debian GNU/Linux 12 (bookworm)"));
    assert_eq!((system.version.as_deref(), system.major_minor), (Some("12"), (12, 0)));
    assert_eq!(system.architecture, Some(own_architecture()));
    assert_eq!(system.host_name.as_deref(), Some("web-1"));
    assert_eq!(system.kernels, ["6.1.0-9-amd64", "6.1.0-18-amd64"]);
    assert_eq!(system.package_manager, Some("dpkg"));
    let expected = [
        ("/", Some("disk0p1")),
        ("/home", Some("disk0p2")),
        ("/srv/my data", Some("disk1")),
        ("/again", Some("disk0p1")),
        ("/second", Some("disk0p2")),
        ("/gone", None),
        ("/tmp", None),
    ];
    assert_eq!(mounts(system), expected);
    assert_eq!(points(&set, "disk1"), ["/srv/my data"]);
    assert_eq!(points(&set, "disk0p2"), ["/home", "/second"]);
}

#[test]
fn several_systems_on_one_set_are_all_found_and_what_is_no_system_is_not() {
    let old = Tree::new();
    fs::create_dir_all(old.path().join("etc")).unwrap();
    fs::write(old.path().join("etc/redhat-release"), "CentOS release 6.10 (Final)\n").unwrap();
    fs::write(old.path().join("etc/fstab"), "/dev/mapper/vg-root / ext4 defaults 1 1\n").unwrap();
    let bare = Tree::new();
    fs::create_dir_all(bare.path().join("usr/lib")).unwrap();
    fs::write(bare.path().join("usr/lib/os-release"), "ID=fedora\nNAME=Fedora\nVERSION_ID=39\nVARIANT_ID=server\n")
        .unwrap();
    // A home directory with somebody's notes is no system.
    let none = Tree::new();
    fs::create_dir_all(none.path().join("etc")).unwrap();
    fs::write(none.path().join("etc/notes"), "x").unwrap();
    let mut set = DiskSet::builder();
    for tree in [&old, &bare, &none] {
        let Some(image) = made_of(tree, &["-t", "ext4"], 4 * MIB) else { return };
        set = set.device(Arc::new(Memory(fs::read(&image.path).unwrap())));
    }
    let report = set.open().unwrap().os_info();
    let told: Vec<_> = report.systems.iter().map(|system| (system.root.as_str(), system.vendor.as_str())).collect();
    assert_eq!(told, [("disk0", "centos"), ("disk1", "fedora")]);
    let [old, bare] = &report.systems[..] else { panic!("{report:?}") };
    assert_eq!((old.version.as_deref(), old.name.as_str()), (Some("6.10"), "CentOS release 6.10 (Final)"));
    // The name of a volume that is not there does not hide that this is the root.
    assert_eq!(mounts(old), [("/", Some("disk0"))]);
    assert_eq!((bare.edition.as_deref(), bare.name.as_str()), (Some("server"), "Fedora"));
    assert_eq!(bare.architecture, None);
}

#[test]
fn links_of_a_merged_usr_are_followed_within_the_guest() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
    fs::create_dir_all(tree.path().join("usr/lib")).unwrap();
    fs::create_dir_all(tree.path().join("etc")).unwrap();
    fs::copy("/bin/sh", tree.path().join("usr/bin/dash")).unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, tree.path().join(name)).unwrap();
    link("usr/bin", "bin");
    link("/usr/bin/dash", "usr/bin/sh");
    link("../../../../usr/lib/os-release", "etc/os-release");
    fs::write(tree.path().join("usr/lib/os-release"), "ID=arch\n").unwrap();
    let Some(image) = made_of(&tree, &["-t", "ext4"], 8 * MIB) else { return };
    let report = DiskSet::builder().raw(&image.path).unwrap().open().unwrap().os_info();
    assert_eq!(report.systems[0].vendor, "arch");
    assert_eq!(report.systems[0].architecture, Some(own_architecture()));
}

#[test]
fn a_windows_on_fat_and_mbr_is_found_with_its_product_and_drive_letters() {
    let (Some(mkfs), Some(mcopy)) = (peer("mkfs.fat"), peer("mcopy")) else { return };
    let Some(disk) = Disk::new("dos\nlabel-id: 0x1a2b3c4d", &[(40, "type=c"), (8, "type=7")]) else { return };
    let mut letters = vec![];
    for (letter, start) in [('C', MIB), ('D', 41 * MIB), ('E', 99 * MIB)] {
        let value = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &start.to_le_bytes()].concat();
        letters.push((format!(r"\DosDevices\{letter}:"), Setting::Bytes(value)));
    }
    letters.push((r"\??\Volume{0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e11}".into(), Setting::Bytes(vec![1; 12])));
    let Some(folder) = windows("AMD64", &letters) else { return };
    let image = folder.path().join("fat.img");
    File::create(&image).unwrap().set_len(40 * MIB).unwrap();
    run(mkfs, &[&"-F", &"32", &image]);
    run(mcopy, &[&"-s", &"-i", &image, &folder.path().join("WINDOWS"), &"::"]);
    disk.put(0, &image);
    let set = DiskSet::builder().raw(&disk.path).unwrap().open().unwrap();
    let report = set.os_info();
    assert!(report.problems.is_empty(), "{report:?}");
    let [system] = &report.systems[..] else { panic!("{report:?}") };
    assert_windows(system);
    assert_eq!(mounts(system), [("C:", Some("disk0p1")), ("D:", Some("disk0p2")), ("E:", None)]);
    assert_eq!(points(&set, "disk0p1"), ["C:"]);
}

#[test]
fn a_windows_on_ntfs_and_gpt_is_found_with_its_product_and_drive_letters() {
    let guid = "a1b2c3d4-e5f6-4711-8899-aabbccddeeff";
    let Some(disk) = Disk::new("gpt", &[(40, &format!("type=L,uuid={guid}"))]) else { return };
    let on_disk = [0xd4, 0xc3, 0xb2, 0xa1, 0xf6, 0xe5, 0x11, 0x47, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let value = [&b"DMIO:ID:"[..], &on_disk].concat();
    let Some(folder) = windows("AMD64", &[(r"\DosDevices\C:".into(), Setting::Bytes(value))]) else { return };
    let Some(image) = Ntfs::new(&["-L", "system"], 40) else { return };
    let Some(mount) = image.mount() else { return };
    run("cp", &[&"-r", &folder.path().join("WINDOWS"), &mount.path().join("Windows")]);
    drop(mount);
    disk.put(0, image.path());
    let report = DiskSet::builder().raw(&disk.path).unwrap().open().unwrap().os_info();
    let [system] = &report.systems[..] else { panic!("{report:?}") };
    assert_windows(system);
    assert_eq!(mounts(system), [("C:", Some("disk0p1"))]);
}

#[test]
fn letters_of_volumes_on_dynamic_disks_are_told() {
    let (Some(mkfs), Some(mcopy), Some(guest)) = (peer("mkfs.fat"), peer("mcopy"), Guest::get()) else { return };
    let dynamic = ldm::disks(guest);
    let with = |set: DiskSetBuilder| dynamic.iter().fold(set, |set, disk| set.device(Arc::new(Memory(disk.clone()))));
    let guid = |name: &str| {
        let volume = with(DiskSet::builder()).open().unwrap().volume(&format!("ldm/Group0/{name}")).unwrap();
        let VolumeKind::Dynamic { guid, .. } = volume.kind() else { panic!("{volume:?}") };
        *guid
    };
    let mut swapped = guid("Mirrored");
    swapped[..4].reverse();
    swapped[4..6].reverse();
    swapped[6..8].reverse();
    let letter = |letter: char, guid: [u8; 16]| {
        (format!(r"\DosDevices\{letter}:"), Setting::Bytes([&b"DMIO:ID:"[..], &guid].concat()))
    };
    let letters = [letter('E', guid("Simple")), letter('F', swapped), letter('G', [7; 16])];
    let Some(folder) = windows("AMD64", &letters) else { return };
    let image = folder.path().join("fat.img");
    File::create(&image).unwrap().set_len(40 * MIB).unwrap();
    run(mkfs, &[&"-F", &"32", &image]);
    run(mcopy, &[&"-s", &"-i", &image, &folder.path().join("WINDOWS"), &"::"]);
    let set = with(DiskSet::builder()).raw(&image).unwrap().open().unwrap();
    let report = set.os_info();
    let [system] = &report.systems[..] else { panic!("{report:?}") };
    let expected = [("E:", Some("ldm/Group0/Simple")), ("F:", Some("ldm/Group0/Mirrored")), ("G:", None)];
    assert_eq!(mounts(system), expected);
}

fn assert_windows(system: &OsInfo) {
    assert_eq!((system.family, system.vendor.as_str()), (OsFamily::Windows, "Microsoft"));
    assert_eq!(system.name, "Windows 11 Pro");
    assert_eq!((system.version.as_deref(), system.major_minor), (Some("10.0.22631.3007"), (10, 0)));
    assert_eq!(system.edition.as_deref(), Some("Professional"));
    assert_eq!(system.architecture, Some(Architecture::X86_64));
    assert_eq!(system.host_name.as_deref(), Some("DESK-\u{dc}1"));
    assert_eq!(system.directory, FileName::from("/Windows"));
    assert!(!system.may_be_stale);
}

/// A directory of Windows with hives.
fn windows(machine: &str, letters: &[(String, Setting)]) -> Option<TempDir> {
    let text = |text: &str| Setting::Text(text.into());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("WINDOWS/system32/config");
    fs::create_dir_all(&config).unwrap();
    let version = [
        ("ProductName".into(), text("Windows 10 Pro")),
        ("CurrentVersion".into(), text("6.3")),
        ("CurrentBuildNumber".into(), text("22631")),
        ("EditionID".into(), text("Professional")),
        ("CurrentMajorVersionNumber".into(), Setting::Number(10)),
        ("CurrentMinorVersionNumber".into(), Setting::Number(0)),
        ("UBR".into(), Setting::Number(3007)),
    ];
    hive(&config.join("SOFTWARE"), &[(r"Microsoft\Windows NT\CurrentVersion", &version)])?;
    let system = [
        ("Select", &[("Current".to_owned(), Setting::Number(2)), ("Default".into(), Setting::Number(1))][..]),
        (r"ControlSet001\Control\ComputerName\ComputerName", &[("ComputerName".into(), text("not this one"))]),
        (r"ControlSet002\Control\ComputerName\ComputerName", &[("ComputerName".into(), text("DESK-\u{dc}1"))]),
        (r"ControlSet002\Control\Session Manager\Environment", &[("PROCESSOR_ARCHITECTURE".into(), text(machine))]),
        ("MountedDevices", letters),
    ];
    hive(&config.join("SYSTEM"), &system)?;
    Some(folder)
}

/// What a Debian has of which its release is told.
fn debian(root: &Path) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "usr/lib/os-release",
        "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n",
    );
    write("etc/hostname", "web-1\n");
    write("var/lib/dpkg/status", "");
    write(
        "etc/fstab",
        &format!(
            "# <file system> <mount point>\nUUID={} / ext4 errors=remount-ro 0 1\nLABEL=home /home ext4 defaults 0 2\n\
             /dev/disk/by-label/my\\x20data /srv/my\\040data ext4 defaults 0 2\n\
             PARTUUID=11111111-2222-3333-4444-555555555555 /again ext4 ro 0 0\n/dev/sda2 /second ext4 ro 0 0\n\
             /dev/sdq1 /gone ext4 ro 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sda9 none swap sw 0 0\n",
            ROOT_UUID.to_uppercase()
        ),
    );
    for kernel in ["6.1.0-18-amd64", "6.1.0-9-amd64"] {
        fs::create_dir_all(root.join("lib/modules").join(kernel)).unwrap();
    }
    write("boot/vmlinuz-6.1.0-18-amd64", "x");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/sh", root.join("bin/sh")).unwrap();
}

/// What this computer's programs are for.
fn own_architecture() -> Architecture {
    match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        other => panic!("no test for {other}"),
    }
}

/// What is noted of a volume.
fn points(set: &DiskSet, id: &str) -> Vec<String> {
    let points = set.volume(id).unwrap().info().unwrap().mount_points;
    points.iter().map(|point| point.to_string_lossy().into_owned()).collect()
}

fn mounts(system: &OsInfo) -> Vec<(&str, Option<&str>)> {
    let point = |bytes| std::str::from_utf8(bytes).unwrap();
    let mounts = system.mounts.iter();
    mounts.map(|mount| (point(mount.point.as_bytes()), mount.volume.as_ref().map(|id| id.as_str()))).collect()
}

/// A disk that sfdisk partitioned; the partitions lie one after the other from 1 MiB on.
struct Disk {
    _folder: TempDir,
    path: PathBuf,
    starts: Vec<u64>,
}

impl Disk {
    /// With partitions of so many MiB, each with what else sfdisk is told of it.
    fn new(label: &str, partitions: &[(u64, &str)]) -> Option<Self> {
        let sfdisk = peer("sfdisk")?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut script = format!("label: {label}\n");
        let (mut at, mut starts) = (1, Vec::new());
        for (size, more) in partitions {
            script += &format!("start={at}M,size={size}M,{more}\n");
            starts.push(at * MIB);
            at += size;
        }
        File::create(&path).unwrap().set_len((at + 1) * MIB).unwrap();
        let mut child = Command::new(sfdisk).arg("-q").arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        Some(Self { _folder: folder, path, starts })
    }

    fn put(&self, partition: usize, image: &Path) {
        let disk = File::options().write(true).open(&self.path).unwrap();
        disk.write_all_at(&fs::read(image).unwrap(), self.starts[partition]).unwrap();
    }
}
