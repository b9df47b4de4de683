//! Disks that grow, are renamed and removed, with all their files and no others.

use std::{fs, path::Path};

use proptest::prelude::*;
use vmdk::{
    ChildSpec, CreateKind, CreateSpec, Disk, Error, GrowOptions, MAX_CAPACITY, OpenOptions, PathPolicy, create,
    create_child, grow,
    layout::{SparseFlags, SparseHeader},
    rename, unlink,
};

use crate::support::{Random, assert_is, content, holey, peer, run};

const MIB: u64 = 1 << 20;

const KINDS: [CreateKind; 5] = [
    CreateKind::Flat,
    CreateKind::Vmfs,
    CreateKind::MonolithicSparse,
    CreateKind::TwoGbMaxExtentFlat,
    CreateKind::TwoGbMaxExtentSparse,
];

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn compare(dir: &Path, content: &[u8], name: &str, kind: CreateKind) {
    if !peer("qemu-img") {
        return;
    }
    fs::write(dir.join("raw"), content).unwrap();
    let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", "vmdk", "raw", name]);
    assert!(text.contains("identical"), "{kind:?}: {text}");
    if kind.is_sparse() {
        run("qemu-img", dir, &["check", "-f", "vmdk", name]);
    }
    fs::remove_file(dir.join("raw")).unwrap();
}

#[test]
fn a_grown_disk_has_its_data_and_zeros_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let name = format!("{kind:?}.vmdk");
        let path = dir.path().join(&name);
        // Inside of a grain, to the end of a table, over tables, over a sector of the directory.
        let mut expected = holey(3 * 1024 * 1024 + 512, 5);
        let disk = create(&path, &CreateSpec::new(expected.len() as u64, kind)).unwrap();
        disk.write_at(0, &expected).unwrap();
        disk.write_at(expected.len() as u64 - 3, b"end").unwrap();
        let at = expected.len() - 3;
        expected[at..].copy_from_slice(b"end");
        let cid = disk.descriptor().unwrap().cid().unwrap();
        disk.close().unwrap();
        for sectors in [7000, 65536, 65537, 140_000] {
            let capacity = sectors * 512;
            grow(&path, capacity, &GrowOptions::new()).unwrap();
            expected.resize(capacity as usize, 0);
            let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
            assert_eq!(disk.descriptor().unwrap().capacity().unwrap(), capacity, "{kind:?}");
            assert_eq!(disk.descriptor().unwrap().cid().unwrap(), cid);
            assert_is(&disk, &expected);
            disk.close().unwrap();
            compare(dir.path(), &expected, &name, kind);
            // What is added takes writes, and the next growth keeps them.
            let disk = Disk::open(&path, &OpenOptions::new().writable().update_cid(false)).unwrap();
            disk.write_at(capacity - 70_000, &[sectors as u8 | 1; 70_000]).unwrap();
            expected[capacity as usize - 70_000..].fill(sectors as u8 | 1);
            disk.close().unwrap();
        }
        assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
        compare(dir.path(), &expected, &name, kind);
    }
}

#[test]
fn a_split_disk_grows_by_files() {
    for kind in [CreateKind::TwoGbMaxExtentFlat, CreateKind::TwoGbMaxExtentSparse] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.vmdk");
        let spec = CreateSpec::new(MIB, kind).grain_bytes(16384).zeroed_grains(true);
        create(&path, &spec).unwrap().write_at(0, b"first").unwrap();
        let capacity = 5 << 30;
        grow(&path, capacity, &GrowOptions::new()).unwrap();
        let letter = if kind.is_sparse() { 's' } else { 'f' };
        let files = [1, 2, 3].map(|number| format!("d-{letter}00{number}.vmdk"));
        assert_eq!(names(dir.path())[..3], files);
        let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
        let sizes: Vec<_> =
            disk.descriptor().unwrap().extents().unwrap().iter().map(|line| line.size_sectors).collect();
        assert_eq!(sizes, [4_192_256, 4_192_256, (5 << 21) - 2 * 4_192_256]);
        for at in [4_192_256 * 512 - 2, 2 * 4_192_256 * 512 - 2, capacity - 4] {
            disk.write_at(at, b"over").unwrap();
            let mut buf = [0; 4];
            disk.read_at(at, &mut buf).unwrap();
            assert_eq!(&buf, b"over");
        }
        disk.close().unwrap();
        if kind.is_sparse() {
            let bytes = fs::read(dir.path().join(&files[2])).unwrap();
            let header = SparseHeader::parse(bytes[..512].try_into().unwrap(), "x").unwrap();
            assert!(header.grain_sectors == 32 && header.flags.has(SparseFlags::ZEROED_GRAINS));
            if peer("qemu-img") {
                run("qemu-img", dir.path(), &["check", "-f", "vmdk", "d.vmdk"]);
            }
        }
        // A file that is in the way stays, and so does the disk.
        let blocked = dir.path().join(format!("d-{letter}004.vmdk"));
        fs::write(&blocked, "mine").unwrap();
        assert!(matches!(grow(&path, 9 << 30, &GrowOptions::new()), Err(Error::Io { .. })));
        assert_eq!(Disk::open(&path, &OpenOptions::new()).unwrap().capacity(), capacity);
        assert_eq!(fs::read(&blocked).unwrap(), b"mine");
        fs::remove_file(blocked).unwrap();
        grow(&path, 9 << 30, &GrowOptions::new()).unwrap();
        assert_eq!(Disk::open(&path, &OpenOptions::new()).unwrap().capacity(), 9 << 30);
    }
}

#[test]
fn what_others_left_behind_the_end_does_not_appear_when_a_disk_grows() {
    let dir = tempfile::tempdir().unwrap();
    // A flat file that is longer than its extent.
    let path = dir.path().join("f.vmdk");
    create(&path, &CreateSpec::new(MIB, CreateKind::Flat)).unwrap().close().unwrap();
    fs::write(dir.path().join("f-flat.vmdk"), vec![7; 2 << 20]).unwrap();
    grow(&path, 3 * MIB, &GrowOptions::new()).unwrap();
    let mut expected = vec![0; 3 << 20];
    expected[..1 << 20].fill(7);
    assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
    // A sparse file with a full last grain, and table entries behind it.
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(MIB - 512, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(0, &vec![7; (1 << 20) - 512]).unwrap();
    disk.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let header = SparseHeader::parse(bytes[..512].try_into().unwrap(), "s").unwrap();
    let len = bytes.len();
    bytes[len - 512..].fill(0xee);
    let word = |bytes: &[u8], at: u64| u32::from_le_bytes(bytes[at as usize..at as usize + 4].try_into().unwrap());
    for directory in [header.directory_sector, header.redundant_directory_sector] {
        let table = u64::from(word(&bytes, directory * 512)) * 512;
        let (first, behind) = (word(&bytes, table), table as usize + 16 * 4);
        bytes[behind..behind + 4].copy_from_slice(&first.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    grow(&path, 2 * MIB, &GrowOptions::new()).unwrap();
    expected.fill(0);
    expected.truncate(2 << 20);
    expected[..(1 << 20) - 512].fill(7);
    assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
}

#[test]
fn the_geometry_follows_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vmdk");
    let disk = create(&path, &CreateSpec::new(100 * MIB, CreateKind::MonolithicSparse)).unwrap();
    disk.ddb_set("geometry.heads", "16").unwrap();
    disk.close().unwrap();
    let geometry = |key: &str| Disk::open(&path, &OpenOptions::new()).unwrap().ddb_get(key).unwrap();
    let before = geometry("geometry.cylinders");
    grow(&path, 200 * MIB, &GrowOptions::new()).unwrap();
    assert_eq!(geometry("geometry.cylinders"), before);
    grow(&path, 200 * MIB, &GrowOptions::new().update_geometry(true)).unwrap();
    assert_eq!(geometry("geometry.cylinders"), (200 * 2048 / (16 * 63)).to_string());
    assert_eq!((geometry("geometry.heads").as_str(), geometry("geometry.sectors").as_str()), ("16", "63"));
}

#[test]
fn what_cannot_grow_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create(at("b.vmdk"), &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new()).unwrap().close().unwrap();
    let before = (fs::read(at("b.vmdk")).unwrap(), fs::read(at("c.vmdk")).unwrap());
    let error = grow(at("c.vmdk"), 2 * MIB, &GrowOptions::new()).unwrap_err();
    assert!(matches!(&error, Error::NotSupported { format, .. } if format.contains("child")), "{error}");
    for capacity in [MIB - 512, MIB + 1, MAX_CAPACITY + 512] {
        let error = grow(at("b.vmdk"), capacity, &GrowOptions::new()).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { what: "capacity", .. }), "{error}");
    }
    assert!((fs::read(at("b.vmdk")).unwrap(), fs::read(at("c.vmdk")).unwrap()) == before);
    let stream = vmdk::stream::StreamWriter::new(Vec::new(), &vmdk::stream::StreamSpec::new(MIB)).unwrap();
    fs::write(at("s.vmdk"), stream.finish().unwrap()).unwrap();
    let error = grow(at("s.vmdk"), 2 * MIB, &GrowOptions::new()).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }), "{error}");
    grow(at("b.vmdk"), MIB, &GrowOptions::new()).unwrap();
    assert!(fs::read(at("b.vmdk")).unwrap() == before.0);
}

#[test]
fn a_descriptor_without_room_keeps_its_disk_from_growing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vmdk");
    create(&path, &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    let mut before = fs::read(&path).unwrap();
    let room = 512..21 * 512;
    let text = before[room.clone()].iter().position(|byte| *byte == 0).unwrap();
    before[512 + text..room.end].fill(b'#');
    before[room.end - 1] = b'\n';
    fs::write(&path, &before).unwrap();
    // One digit more than 2048 sectors.
    let error = grow(&path, 16 * MIB, &GrowOptions::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "descriptor", .. }), "{error}");
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_file_of_two_extents_does_not_grow_whatever_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vmdk");
    create(&path, &CreateSpec::new(MIB, CreateKind::Flat)).unwrap().close().unwrap();
    let flat = Random::new(91).bytes(MIB as usize);
    fs::write(dir.path().join("d-flat.vmdk"), &flat).unwrap();
    std::os::unix::fs::symlink("d-flat.vmdk", dir.path().join("e-flat.vmdk")).unwrap();
    for name in ["d-flat.vmdk", "./d-flat.vmdk", "e-flat.vmdk"] {
        let lines = format!("RW 1024 FLAT \"d-flat.vmdk\" 1024\nRW 1024 FLAT \"{name}\" 0");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.lines().filter(|line| !line.starts_with("RW")).collect::<Vec<_>>().join("\n");
        fs::write(&path, text.replace("# Extent description", &format!("# Extent description\n{lines}"))).unwrap();
        let error = grow(&path, 2 * MIB, &GrowOptions::new()).unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. } | Error::PathRefused { .. }), "{name}: {error}");
        assert!(fs::read(dir.path().join("d-flat.vmdk")).unwrap() == flat, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_disk_that_grows_between_writes_is_what_was_written(
        kind in prop::sample::select(KINDS.to_vec()),
        grain in prop::sample::select(vec![4096_u64, 65536]),
        steps in prop::collection::vec((1_u64..9000, any::<u64>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.vmdk");
        let mut expected = vec![0; 512];
        create(&path, &CreateSpec::new(512, kind).grain_bytes(grain)).unwrap().close().unwrap();
        for (sectors, seed) in steps {
            expected.resize(expected.len() + sectors as usize * 512, 0);
            grow(&path, expected.len() as u64, &GrowOptions::new()).unwrap();
            let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
            prop_assert!(content(&disk) == expected);
            let mut random = Random::new(seed);
            for _ in 0..5 {
                let at = random.below(expected.len() as u64) as usize;
                let len = random.below(40_000).min((expected.len() - at) as u64) as usize;
                expected[at..at + len].copy_from_slice(&random.bytes(len));
                disk.write_at(at as u64, &expected[at..at + len]).unwrap();
            }
            disk.close().unwrap();
        }
        assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &expected);
        compare(dir.path(), &expected, "d.vmdk", kind);
    }
}

#[test]
fn a_renamed_disk_takes_all_its_files_along() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        let at = |name: &str| dir.path().join(name);
        let expected = holey(2 << 20, 9);
        let disk = create(at("old name.vmdk"), &CreateSpec::new(2 * MIB, kind)).unwrap();
        disk.write_at(0, &expected).unwrap();
        disk.close().unwrap();
        let before = names(dir.path());
        fs::write(at("old name-flat.vmdk.bak"), "mine").unwrap();
        for (from, to) in [("old name.vmdk", "new.vmdk"), ("new.vmdk", "other/new.vmdk"), ("other/new.vmdk", "ü.vmdk")]
        {
            rename(at(from), at(to), PathPolicy::SameDirectory).unwrap();
            let disk = Disk::open(at(to), &OpenOptions::new()).unwrap();
            assert_is(&disk, &expected);
            drop(disk);
            let shown = names(at(to).parent().unwrap()).join(" ");
            assert!(!at(from).exists(), "{shown}");
        }
        assert!(names(&at("other")).is_empty());
        let expected_names: Vec<_> = before.iter().map(|name| name.replace("old name", "ü")).collect();
        let mut found = names(dir.path());
        found.retain(|name| !name.ends_with(".bak"));
        let mut wanted = expected_names.clone();
        wanted.sort();
        assert_eq!(found, wanted, "{kind:?}");
        assert_eq!(fs::read(at("old name-flat.vmdk.bak")).unwrap(), b"mine");
    }
}

#[test]
fn a_child_still_finds_its_parent_after_a_rename_and_tracking_files_go_along() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("below")).unwrap();
    create(at("below/b.vmdk"), &CreateSpec::new(MIB, CreateKind::Flat)).unwrap().write_at(0, b"base").unwrap();
    create_child(at("below/b.vmdk"), at("below/c.vmdk"), &ChildSpec::new()).unwrap().close().unwrap();
    rename(at("below/c.vmdk"), at("d.vmdk"), PathPolicy::SameDirectory).unwrap();
    let disk = Disk::open(at("d.vmdk"), &OpenOptions::new()).unwrap();
    assert_eq!(disk.descriptor().unwrap().parent_file_name_hint().unwrap().as_deref(), Some("below/b.vmdk"));
    let mut buf = [0; 4];
    disk.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"base");
    fs::create_dir(at("elsewhere")).unwrap();
    let error = rename(at("d.vmdk"), at("elsewhere/d.vmdk"), PathPolicy::SameDirectory).unwrap_err();
    assert!(matches!(error, Error::PathRefused { .. }) && at("d.vmdk").exists(), "{error}");
    assert!(names(&at("elsewhere")).is_empty());
    // A disk of ESXi with change tracking.
    let text = fs::read_to_string(at("below/b.vmdk")).unwrap() + "changeTrackPath=\"b-ctk.vmdk\"\n";
    fs::write(at("below/b.vmdk"), text).unwrap();
    fs::write(at("below/b-ctk.vmdk"), "ctk").unwrap();
    rename(at("below/b.vmdk"), at("below/n.vmdk"), PathPolicy::SameDirectory).unwrap();
    assert_eq!(names(&at("below")), ["n-ctk.vmdk", "n-flat.vmdk", "n.vmdk"]);
    assert!(fs::read_to_string(at("below/n.vmdk")).unwrap().contains("changeTrackPath=\"n-ctk.vmdk\""));
    unlink(at("below/n.vmdk"), PathPolicy::SameDirectory).unwrap();
    assert!(names(&at("below")).is_empty());
}

#[test]
fn a_rename_that_fails_changes_nothing() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create(at("a.vmdk"), &CreateSpec::new(MIB, kind)).unwrap().write_at(0, b"data").unwrap();
        fs::write(at("b.vmdk"), "mine").unwrap();
        let before: Vec<_> = names(dir.path()).iter().map(|name| (name.clone(), fs::read(at(name)).unwrap())).collect();
        let error = rename(at("a.vmdk"), at("b.vmdk"), PathPolicy::SameDirectory).unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists),
            "{error}"
        );
        let after: Vec<_> = names(dir.path()).iter().map(|name| (name.clone(), fs::read(at(name)).unwrap())).collect();
        assert!(before == after, "{kind:?}");
    }
}

#[test]
fn a_removed_disk_leaves_nothing_and_takes_nothing_else() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create(at("b.vmdk"), &CreateSpec::new(3 << 30, kind)).unwrap().close().unwrap();
        let base = names(dir.path());
        create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new()).unwrap().close().unwrap();
        unlink(at("c.vmdk"), PathPolicy::SameDirectory).unwrap();
        assert_eq!(names(dir.path()), base, "{kind:?}");
        // A removal that was interrupted is completed.
        if base.len() > 1 {
            fs::remove_file(at(&base[0])).unwrap();
        }
        unlink(at("b.vmdk"), PathPolicy::SameDirectory).unwrap();
        assert!(names(dir.path()).is_empty(), "{kind:?}");
    }
}

#[test]
fn a_descriptor_cannot_have_files_elsewhere_removed_or_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("below")).unwrap();
    fs::write(at("precious"), [1; 512]).unwrap();
    let absolute = at("precious").display().to_string();
    for line in [format!("RW 1 FLAT \"{absolute}\" 0"), "RW 1 FLAT \"../precious\" 0".to_owned()] {
        let text = format!("version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n{line}\n");
        fs::write(at("below/d.vmdk"), text).unwrap();
        for result in [
            unlink(at("below/d.vmdk"), PathPolicy::SameDirectory),
            rename(at("below/d.vmdk"), at("below/e.vmdk"), PathPolicy::SameDirectory),
        ] {
            assert!(matches!(result, Err(Error::PathRefused { .. })), "{result:?}");
        }
        assert_eq!(names(&at("below")), ["d.vmdk"]);
    }
    unlink(at("below/d.vmdk"), PathPolicy::Any).unwrap();
    assert!(!at("precious").exists());
    for (name, bytes) in [("plain", &b"some text\n"[..]), ("empty", b""), ("x-flat.vmdk", &[0; 4096])] {
        fs::write(at(name), bytes).unwrap();
        let result = unlink(at(name), PathPolicy::Any);
        assert!(matches!(result, Err(Error::InvalidInput { what: "path", .. })), "{name}: {result:?}");
        assert!(at(name).exists());
    }
}
