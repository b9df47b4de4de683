//! A real installed system: a Debian of its packages, with its kernel, on two disks.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use vixmntapi::{device::Device, set::DiskSet};

use super::{Disk, MIB, mounts, own_architecture, points};
use crate::{
    compare::{Compare, assert_same},
    lvm::linear_group,
    peers::{Mount, peer, run},
    tree::Manifest,
};

#[test]
#[ignore = "makes a Debian of packages, some minutes: cargo test -p vixmntapi --test it -- --ignored a_debian_that_debootstrap"]
fn a_debian_that_debootstrap_installed_is_found_and_read_whole() {
    let (Some(debootstrap), Some(apt)) = (peer("debootstrap"), peer("apt-get")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let targets = run(apt, &[&"indextargets", &"--format", &"$(REPO_URI) $(RELEASE)", &"Created-By: Packages"]);
    let (mirror, suite) = targets.lines().next().and_then(|line| line.split_once(' ')).unwrap();
    let kernel = "linux-image-cloud-amd64";
    let mut command = Command::new(debootstrap);
    command.args(["--variant=minbase", &format!("--include={kernel}"), suite]).arg(&root).arg(mirror);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::write(root.join("etc/hostname"), "installed-1\n").unwrap();
    let uuids = ["0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e21", "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e22"];
    for kind in ["ext4", "xfs", "btrfs"] {
        let lines = format!(
            "UUID={} / {kind} defaults 0 1\nUUID={} /boot ext4 defaults 0 2\n/dev/mapper/vg0-linear /home ext4 defaults 0 2\n\
             tmpfs /tmp tmpfs rw 0 0\n",
            uuids[0], uuids[1]
        );
        fs::write(root.join("etc/fstab"), lines).unwrap();
        let Some(disk) = Disk::new("gpt", &[(200, "type=L"), (1500, "type=L"), (41, "type=V")]) else { return };
        let file = folder.path().join("image");
        let Some(truth) = filled(&root, &file, kind, uuids[0]) else { return };
        disk.put(1, &file);
        make(&file, "ext4", uuids[1], 200, Some(&root.join("boot")));
        disk.put(0, &file);
        make(&file, "ext4", "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e23", 80, None);
        let home = fs::read(&file).unwrap();
        let heads = linear_group(&[40, 40]);
        let half = home.len() / 2;
        fs::write(&file, [&heads[0][..], &home[..half]].concat()).unwrap();
        disk.put(2, &file);
        let second = folder.path().join("second");
        fs::write(&second, [&heads[1][..], &home[half..]].concat()).unwrap();
        let set = DiskSet::builder().raw(&disk.path).unwrap().raw(&second).unwrap().open().unwrap();
        let report = set.os_info();
        assert!(report.problems.is_empty(), "{report:?}");
        let [system] = &report.systems[..] else { panic!("{report:?}") };
        println!("{kind}: {system:#?}");
        assert_eq!((system.vendor.as_str(), system.root.as_str()), ("debian", "disk0p2"));
        assert!(system.name.starts_with("Debian GNU/Linux"), "{}", system.name);
        assert_eq!(system.architecture, Some(own_architecture()));
        assert_eq!((system.host_name.as_deref(), system.package_manager), (Some("installed-1"), Some("dpkg")));
        assert!(matches!(&system.kernels[..], [kernel] if kernel.ends_with("-cloud-amd64")), "{:?}", system.kernels);
        let expected =
            [("/", Some("disk0p2")), ("/boot", Some("disk0p1")), ("/home", Some("lvm/vg0/linear")), ("/tmp", None)];
        assert_eq!(mounts(system), expected);
        assert_eq!(points(&set, "lvm/vg0/linear"), ["/home"]);
        let volume = set.volume("disk0p2").unwrap();
        let mounted = volume.mount().unwrap();
        let device: std::sync::Arc<dyn Device> = volume.device().unwrap();
        assert_same(mounted.file_system(), &device, &truth, Compare::ALL);
        println!("{kind}: {} paths are the same", truth.0.len());
    }
}

/// Makes a file system with a copy of a tree that the kernel writes, and tells what the kernel sees in it.
fn filled(root: &Path, image: &Path, kind: &str, uuid: &str) -> Option<Manifest> {
    make(image, kind, uuid, 1500, None);
    let mount = Mount::new(image, "")?;
    run("cp", &[&"-a", &root.join("."), &mount.path()]);
    Some(Manifest::of(mount.path()).map(|_, node| node.xattrs.retain(|name, _| !name.starts_with(b"trusted.SGI_ACL_"))))
}

fn make(image: &Path, kind: &str, uuid: &str, mib: u64, from: Option<&Path>) {
    drop(fs::remove_file(image));
    File::create(image).unwrap().set_len(mib * MIB).unwrap();
    match (kind, from) {
        ("xfs", _) => run(peer("mkfs.xfs").unwrap(), &[&"-q", &"-m", &format!("uuid={uuid}"), &image]),
        ("btrfs", _) => run(peer("mkfs.btrfs").unwrap(), &[&"-q", &"-U", &uuid, &image]),
        (_, Some(from)) => run(peer("mke2fs").unwrap(), &[&"-q", &"-t", &kind, &"-U", &uuid, &"-d", &from, &image]),
        (_, None) => run(peer("mke2fs").unwrap(), &[&"-q", &"-t", &kind, &"-U", &uuid, &image]),
    };
}
