//! Systems in subvolumes of Btrfs, which the kernel makes.

use std::{fs, path::Path};

use vixmntapi::set::DiskSet;

use super::{debian, mounts};
use crate::{
    btrfs::{Image, Pool},
    peers::{Mount, peer, run},
    tree::Tree,
};

#[test]
fn a_system_in_a_subvolume_is_found_and_its_snapshots_are_not_taken_for_more() {
    let Some(btrfs) = peer("btrfs") else { return };
    let uuid = "0b5d3f0e-93b1-4a52-a5a5-6a3c7a0f1e12";
    for (name, options) in [("@", "subvol=@,compress=zstd"), ("mine", "rw,subvol=/mine"), ("@rootfs", "defaults")] {
        let Some(image) = Image::new(&["-U", uuid], &Tree::new()) else { return };
        let Some(mount) = Mount::new(&image.path, "") else { return };
        let at = |path: &str| mount.path().join(path);
        for subvolume in [name, "@home", "@snapshots"] {
            run(&btrfs, &[&"subvolume", &"create", &at(subvolume)]);
        }
        debian(&at(name));
        let lines = format!("UUID={uuid} / btrfs {options} 0 0\nUUID={uuid} /home btrfs subvol=@home 0 0\n");
        fs::write(at(name).join("etc/fstab"), lines).unwrap();
        fs::create_dir(at("@home/somebody")).unwrap();
        for number in 1..3 {
            run(&btrfs, &[&"subvolume", &"snapshot", &at(name), &at(&format!("@snapshots/{number}"))]);
        }
        drop(mount);
        let set = DiskSet::builder().raw(&image.path).unwrap().open().unwrap();
        let report = set.os_info();
        assert!(report.problems.is_empty(), "{report:?}");
        let [system] = &report.systems[..] else { panic!("{report:?}") };
        assert_eq!((system.vendor.as_str(), system.host_name.as_deref()), ("debian", Some("web-1")));
        assert_eq!(system.subvolume.as_ref().map(|path| path.to_string_lossy().into_owned()).as_deref(), Some(name));
        assert_eq!(mounts(system), [("/", Some("disk0")), ("/home", Some("disk0"))]);
        let mounted = set.volumes().unwrap()[0].mount().unwrap();
        let root = mounted.subvolume(name).unwrap();
        assert_eq!(root.read("/etc/hostname", 100).unwrap(), b"web-1\n");
        assert!(mounted.subvolume("@home").unwrap().exists("somebody").unwrap());
        assert!(mounted.subvolume("none").is_err());
        // Which one is mounted when none is named can be set.
        let Some(mount) = Mount::new(&image.path, "") else { return };
        run(&btrfs, &[&"subvolume", &"set-default", &Path::new(mount.path()).join(name)]);
        drop(mount);
        let report = DiskSet::builder().raw(&image.path).unwrap().open().unwrap().os_info();
        let [system] = &report.systems[..] else { panic!("{report:?}") };
        assert_eq!(system.subvolume, None);
    }
}

#[test]
fn a_system_on_two_devices_is_one() {
    let pool = Pool::filled("raid1", |root| {
        debian(root);
        fs::write(root.join("etc/fstab"), "LABEL=two / btrfs defaults 0 0\nLABEL=two /home btrfs subvol=home 0 0\n")
            .unwrap();
        run(peer("btrfs").unwrap(), &[&"filesystem", &"label", &root, &"two"]);
    });
    let Some(pool) = pool else { return };
    let set = DiskSet::builder().raw(&pool.paths[0]).unwrap().raw(&pool.paths[1]).unwrap().open().unwrap();
    let report = set.os_info();
    assert!(report.problems.is_empty(), "{report:?}");
    let [system] = &report.systems[..] else { panic!("{report:?}") };
    assert_eq!(mounts(system), [("/", Some("disk0")), ("/home", Some("disk0"))]);
    assert_eq!(set.volumes().unwrap()[1].mount().unwrap().file_system().info().devices, 2);
}
