//! Sets of disks: their volumes and how these are mounted.

use std::{fs::File, io::Write, os::unix::fs::FileExt, path::PathBuf, process::Stdio, sync::Arc};

use tempfile::TempDir;
use vixmntapi::{
    Error,
    fs::{FileKind, FileName},
    part::Scheme,
    set::{Contents, DiskSet, VolumeKind},
};
use vmdk::{CopyOptions, CreateKind, CreateSpec, OpenOptions};

use crate::{
    disks::Memory,
    guest::{Guest, SIZE, UUID},
    peers::{peer, run},
    tree::noise,
};

const MIB: u64 = 1 << 20;

/// A disk partitioned by sfdisk, with the guest's file system in partition 1, swap space in 2 and noise in 3.
struct Partitioned {
    folder: TempDir,
    path: PathBuf,
}

impl Partitioned {
    fn new(guest: &Guest, label: &str) -> Option<Self> {
        let (sfdisk, mkswap) = (peer("sfdisk")?, peer("mkswap")?);
        let folder = tempfile::tempdir().unwrap();
        let (path, swap) = (folder.path().join("disk.img"), folder.path().join("swap"));
        let file = File::create(&path).unwrap();
        file.set_len(24 * MIB).unwrap();
        let script = format!("label: {label}\nsize=12M,type=L\nsize=2M,type=S\nsize=2M,type=L\n");
        let mut command = std::process::Command::new(sfdisk);
        let mut child = command.arg("-q").arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        File::create(&swap).unwrap().set_len(2 * MIB).unwrap();
        run(mkswap, &[&"-L", &"more", &"-U", &UUID, &swap]);
        file.write_all_at(&guest.bytes, MIB).unwrap();
        file.write_all_at(&std::fs::read(&swap).unwrap(), MIB + SIZE as u64).unwrap();
        file.write_all_at(&noise(2 << 20), 3 * MIB + SIZE as u64).unwrap();
        Some(Self { folder, path })
    }
}

/// What a set says that it has.
fn ids(set: &DiskSet) -> Vec<String> {
    set.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect()
}

#[test]
fn partitions_and_disks_without_partitions_are_volumes() {
    let Some(guest) = Guest::get() else { return };
    for (label, kind) in [("gpt", VolumeKind::Gpt), ("dos", VolumeKind::Mbr)] {
        let Some(disk) = Partitioned::new(guest, label) else { return };
        let set = DiskSet::builder().raw(&disk.path).unwrap().device(Arc::new(Memory(guest.bytes.clone())));
        let set = set.open().unwrap();
        assert_eq!(ids(&set), ["disk0p1", "disk0p2", "disk0p3", "disk1"]);
        let volumes = set.volumes().unwrap();
        let place = volumes[0].partition().unwrap();
        assert_eq!((place.disk, place.partition.number, place.partition.range.start), (Some(0), 1, MIB));
        assert_eq!((volumes[0].kind(), volumes[0].size()), (&kind, SIZE as u64));
        guest.assert_is(&volumes[0]);
        let swap = Contents::Swap { label: Some("more".into()), uuid: Some(UUID.into()) };
        assert_eq!(volumes[1].contents().unwrap(), swap);
        let error = volumes[1].mount().unwrap_err();
        assert!(error.to_string().contains("swap space"), "{error}");
        assert_eq!(volumes[2].contents().unwrap(), Contents::Unknown);
        assert!(matches!(volumes[2].mount().unwrap_err(), Error::Invalid(_)));
        assert_eq!(volumes[3].kind(), &VolumeKind::Disk);
        guest.assert_is(&volumes[3]);
    }
}

#[test]
fn a_disk_converted_to_vmdk_has_the_same_files() {
    let Some(guest) = Guest::get() else { return };
    let Some(disk) = Partitioned::new(guest, "gpt") else { return };
    let mut converted = Vec::new();
    let raw = vmdk::Disk::open_raw(&disk.path, vmdk::Access::ReadOnly).unwrap();
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse, CreateKind::TwoGbMaxExtentSparse] {
        let path = disk.folder.path().join(format!("{kind:?}.vmdk"));
        let spec = CreateSpec::new(raw.capacity(), kind);
        vmdk::convert(&raw, &path, &spec, &CopyOptions::default()).unwrap().close().unwrap();
        converted.push(path);
    }
    if let Some(program) = peer("qemu-img") {
        for kind in ["monolithicSparse", "streamOptimized"] {
            let path = disk.folder.path().join(format!("qemu-{kind}.vmdk"));
            let option = format!("subformat={kind}");
            run(&program, &[&"convert", &"-O", &"vmdk", &"-o", &option, &disk.path, &path]);
            converted.push(path);
        }
    }
    for path in converted {
        eprintln!("{}", path.display());
        let set = DiskSet::builder().vmdk(&path).unwrap().open().unwrap();
        guest.assert_is(&set.volume("disk0p1").unwrap());
    }
    // As `vixdisklib` and backups hand disks over: as a shared image.
    let path = disk.folder.path().join("Flat.vmdk");
    let image: Arc<dyn vmdk::Image> = Arc::new(vmdk::Disk::open(path, &OpenOptions::new()).unwrap());
    let set = DiskSet::builder().disk(image).open().unwrap();
    guest.assert_is(&set.volume("disk0p1").unwrap());
}

#[test]
fn a_mounted_volume_keeps_its_disks_open_and_is_opened_once() {
    let Some(guest) = Guest::get() else { return };
    let image: Arc<dyn vmdk::Image> = Arc::new(vmdk::Disk::from_source("memory", memory(guest.bytes.clone())).unwrap());
    let held = Arc::downgrade(&image);
    let set = DiskSet::builder().disk(image).open().unwrap();
    let volume = set.volume("disk0").unwrap();
    drop(set);
    let first = volume.mount().unwrap();
    let second = volume.mount().unwrap();
    assert!(Arc::ptr_eq(first.file_system(), second.file_system()));
    assert!(volume.info().unwrap().is_mounted);
    first.dismount();
    assert!(volume.info().unwrap().is_mounted);
    let content = second.open("etc/hostname").unwrap();
    drop(second);
    assert!(!volume.info().unwrap().is_mounted);
    drop(volume);
    let mut bytes = [0; 6];
    assert_eq!((content.read_at(0, &mut bytes).unwrap(), &bytes), (6, b"guest\n"));
    assert!(held.upgrade().is_some());
    drop(content);
    assert!(held.upgrade().is_none(), "something still holds the disk");
}

fn memory(bytes: Vec<u8>) -> vmdk::Handle {
    vmdk::Handle::ReadOnly(Arc::new(vmdk::MemSource::new(bytes)))
}

#[test]
fn links_are_followed_within_the_volume_and_never_out_of_it() {
    let Some(guest) = Guest::get() else { return };
    let set = DiskSet::builder().device(Arc::new(Memory(guest.bytes.clone()))).open().unwrap();
    let files = set.volume("disk0").unwrap().mount().unwrap();
    let name = files.lookup("/etc/hostname").unwrap();
    for path in ["etc/absolute", "etc/out", "configuration/hostname", "../../etc/./hostname", "//etc//../etc/hostname"]
    {
        assert_eq!(files.lookup(path).unwrap(), name, "{path}");
        assert_eq!(files.read(path, 100).unwrap(), b"guest\n", "{path}");
    }
    assert_eq!(files.metadata("configuration").unwrap().kind, FileKind::Directory);
    let link = files.lookup_link("etc/absolute").unwrap();
    assert_eq!(files.file_system().metadata(link).unwrap().kind, FileKind::Symlink);
    assert_eq!(files.lookup_link("configuration/").unwrap(), files.lookup("etc").unwrap());
    let refused = |path: &str| files.lookup(path).unwrap_err();
    assert!(matches!(refused("etc/around"), Error::TooManyLinks(_)));
    // `deeper` is not there, so nothing leads back from it.
    assert!(matches!(refused("etc/up"), Error::NotFound(_)));
    assert!(matches!(refused("etc/nothing"), Error::NotFound(_)));
    for path in ["etc/hostname/", "etc/hostname/x", "etc/hostname/..", "etc/hostname/."] {
        assert!(matches!(refused(path), Error::NotADirectory(_)), "{path}");
    }
    assert!(!files.exists("etc/nothing").unwrap() && files.exists("etc/out").unwrap());
    let error = files.read("large", 1000).unwrap_err();
    assert!(error.to_string().contains("more than the 1000"), "{error}");
    assert_eq!(files.read_dir("etc").unwrap().count(), 6);
}

#[test]
fn opening_a_set_reads_its_tables_and_the_ends_of_its_partitions_alone() {
    let Some(guest) = Guest::get() else { return };
    let Some(disk) = Partitioned::new(guest, "gpt") else { return };
    let set = DiskSet::builder().raw(&disk.path).unwrap().open().unwrap();
    let figures = set.cache_figures();
    // The table, and of the disk and three partitions the first page and the last two, of which neighbours share some.
    assert!(figures.reads <= 1 + 3 * 3 && figures.read <= 10 * (64 << 10), "{figures:?}");
}

#[test]
fn a_damaged_table_hides_no_volumes_in_silence() {
    let Some(guest) = Guest::get() else { return };
    let Some(disk) = Partitioned::new(guest, "gpt") else { return };
    let mut bytes = std::fs::read(&disk.path).unwrap();
    let end = bytes.len();
    for header in [512, end - 512] {
        bytes[header + 16] ^= 1;
    }
    let both = [Memory(bytes), Memory(guest.bytes.clone())].map(Arc::new);
    let set = both.into_iter().fold(DiskSet::builder(), |set, disk| set.device(disk)).open().unwrap();
    assert!(matches!(set.volumes().unwrap_err(), Error::Damaged { .. }));
    assert_eq!((set.problems().len(), set.disks()[0].table.is_none()), (1, true));
    let sure = set.volumes_until_damage();
    assert_eq!(sure.len(), 1);
    guest.assert_is(&sure[0]);
}

#[test]
fn a_partition_behind_the_end_of_its_disk_is_listed_and_refused() {
    let Some(guest) = Guest::get() else { return };
    let Some(disk) = Partitioned::new(guest, "gpt") else { return };
    let mut bytes = std::fs::read(&disk.path).unwrap();
    bytes.truncate(14 << 20);
    let set = DiskSet::builder().device(Arc::new(Memory(bytes))).open().unwrap();
    assert_eq!(set.disks()[0].table.as_ref().unwrap().scheme, Scheme::Gpt);
    let volumes = set.volumes().unwrap();
    guest.assert_is(&volumes[0]);
    for _ in 0..2 {
        assert!(matches!(volumes[2].mount().unwrap_err(), Error::Damaged { .. }));
    }
}

#[test]
fn mount_points_are_told_once_they_are_noted() {
    let Some(guest) = Guest::get() else { return };
    let set = DiskSet::builder().device(Arc::new(Memory(guest.bytes.clone()))).open().unwrap();
    let volume = set.volume("disk0").unwrap();
    assert!(volume.info().unwrap().mount_points.is_empty());
    let points: Vec<FileName> = vec!["/".into(), "/srv".into()];
    set.note_mount_points(volume.id(), points.clone());
    assert_eq!(volume.info().unwrap().mount_points, points);
}

#[test]
fn encrypted_volumes_are_named_and_not_opened() {
    let Some(cryptsetup) = peer("cryptsetup") else { return };
    for (kind, scheme) in [("luks1", "LUKS1"), ("luks2", "LUKS2")] {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(20 * MIB).unwrap();
        let mut command = std::process::Command::new(&cryptsetup);
        command.args(["luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--type", kind]);
        let child = command.arg(image.path()).arg("-").stdin(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(b"a key").unwrap();
        assert!(child.wait().unwrap().success(), "{kind}");
        let set = DiskSet::builder().raw(image.path()).unwrap().open().unwrap();
        let volume = set.volume("disk0").unwrap();
        let error = volume.contents().unwrap_err();
        assert!(matches!(&error, Error::Encrypted { scheme: found, .. } if *found == scheme), "{error}");
        assert!(matches!(volume.mount().unwrap_err(), Error::Encrypted { .. }));
    }
}

#[test]
fn a_set_needs_disks_and_names_volumes_that_it_does_not_have() {
    assert!(matches!(DiskSet::builder().open().unwrap_err(), Error::Invalid(_)));
    let set = DiskSet::builder().device(Arc::new(Memory(vec![0; 1 << 20]))).open().unwrap();
    assert_eq!(ids(&set), ["disk0"]);
    assert!(set.volume("disk1").unwrap_err().to_string().contains("volume disk1"));
    assert!(matches!(DiskSet::builder().vmdk("/not/there.vmdk"), Err(Error::Local { .. })));
}
