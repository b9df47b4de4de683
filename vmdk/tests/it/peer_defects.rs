//! What other readers of VMDK get wrong, each with the right answer. Where a peer is installed its own answer is
//! shown (`--nocapture`) and not asserted: its next version may be right.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use vmdk::{
    ChainProblem, Cid, CreateType, Disk, Error, MAX_CAPACITY, MapKind, OpenOptions, PathPolicy,
    descriptor::{ExtentLine, ExtentType, NewDescriptor},
};

use crate::support::{
    MemFiles, Random, assert_is, peer, run,
    snapshot::{Snapshot, Stored},
};

fn open(files: &[(&str, &[u8])]) -> vmdk::Result<Disk> {
    Disk::open("d.vmdk", &OpenOptions::new().resolver(MemFiles::with(files)))
}

/// What a peer says of `d.vmdk` among these files.
fn show(title: &str, tool: &str, args: &[&str], files: &[(&str, &[u8])]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    show_in(title, dir.path(), tool, args);
}

fn show_in(title: &str, dir: &Path, tool: &str, args: &[&str]) {
    if let Ok(output) = Command::new(tool).current_dir(dir).args(args).output() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let said: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
        eprintln!("{title}: {tool} says: {}", said.join(" | "));
    }
}

const INFO: [&str; 4] = ["info", "-f", "vmdk", "d.vmdk"];

/// QEMU skips them: the data behind them are read from the wrong place.
#[test]
fn zero_extents_take_their_place() {
    let data = Random::new(1).bytes(3 << 20);
    let text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
        RW 2048 FLAT \"a\" 0\nRW 2048 ZERO\nRW 2048 FLAT \"a\" 4096\n";
    let files = [("d.vmdk", text.as_bytes()), ("a", data.as_slice())];
    let disk = open(&files).unwrap();
    let mut expected = data[..1 << 20].to_vec();
    expected.resize(2 << 20, 0);
    expected.extend_from_slice(&data[2 << 20..]);
    assert_is(&disk, &expected);
    let kinds: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap().kind).collect();
    assert_eq!(kinds, [MapKind::Data, MapKind::Zero, MapKind::Data]);
    show("a ZERO extent between two others, 3 MiB in all", "qemu-img", &INFO, &files);
}

/// QEMU skips these as well.
#[test]
fn read_only_extents_take_their_place() {
    let text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRDONLY 1 FLAT \"a\" 0\nRW 1 FLAT \"a\" 1\n";
    let data = Random::new(2).bytes(1024);
    let files = [("d.vmdk", text.as_bytes()), ("a", data.as_slice())];
    assert_is(&open(&files).unwrap(), &data);
    show("an extent that may not be written, 1 KiB in all", "qemu-img", &INFO, &files);
}

/// QEMU compares keys and types with case, and refuses an offset of `VMFS`.
#[test]
fn keys_and_words_are_read_without_case_and_vmfs_may_have_an_offset() {
    let data = Random::new(2).bytes(4096);
    let text = "\r\n  Version = 1\r\nCid=0000000A\r\nCREATETYPE=\"VMFS\"\r\n\trw 4 vmfs \"x y-flat.vmdk\" 2  \r\n";
    let files = [("d.vmdk", text.as_bytes()), ("x y-flat.vmdk", data.as_slice())];
    assert_is(&open(&files).unwrap(), &data[1024..3072]);
    show("keys in another case", "qemu-img", &INFO, &files);
    let text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 8 VMFS \"x\" 0\n";
    let files = [("d.vmdk", text.as_bytes()), ("x", data.as_slice())];
    assert_is(&open(&files).unwrap(), &data);
    show("VMFS with an offset", "qemu-img", &INFO, &files);
}

/// QEMU finds keys with `strstr`, in comments and in other values too.
#[test]
fn only_entries_are_entries() {
    let text = "# CID=11111111 createType=\"streamOptimized\" parentCID=22222222\nversion=1\n\
        vendor.note=\"parentFileNameHint=\"\nvendor.parentCID=33333333\nCID=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"a\" 0\n";
    let files = [("d.vmdk", text.as_bytes()), ("a", &[6; 512][..])];
    let disk = open(&files).unwrap();
    assert_is(&disk, &[6; 512]);
    let descriptor = disk.descriptor().unwrap();
    assert_eq!((descriptor.cid().unwrap(), descriptor.parent_cid().unwrap()), (Cid(1), Cid::NONE));
    assert_eq!(descriptor.create_type(), Some(CreateType::MonolithicFlat));
    show("keys in comments and values", "qemu-img", &INFO, &files);
}

/// QEMU opens six create types; what the extents are is what counts.
#[test]
fn the_create_type_is_a_hint() {
    let of_files =
        ["custom", "vmfsThin", "vmfsPreallocated", "2GbMaxExtentFlat", "vmfsEagerZeroedThick", "somethingNew"];
    // Bytes of a device are as good when they are given as a file.
    for kind in of_files.into_iter().chain(["fullDevice", "partitionedDevice", "vmfsRawDeviceMap"]) {
        let text = format!("version=1\nCID=1\ncreateType=\"{kind}\"\nRW 1 FLAT \"a\" 0\n");
        let files = [("d.vmdk", text.as_bytes()), ("a", &[5; 512][..])];
        assert_is(&open(&files).unwrap(), &[5; 512]);
        show(kind, "qemu-img", &INFO, &files);
    }
}

/// Other readers open the name of a device, or of an object, as a file beside the descriptor.
#[test]
fn devices_and_objects_are_refused_with_the_reason() {
    for (kind, line, reason) in [
        ("vmfsRawDeviceMap", "RW 1 VMFSRDM \"x-rdm.vmdk\"", "in virtual mode"),
        ("vmfs", "RW 1 VMFSRDM \"x-rdm.vmdk\"", "raw device mapping"),
        ("vmfsPassthroughRawDeviceMap", "RW 1 VMFSRDM \"x-rdmp.vmdk\"", "in physical mode"),
        ("vmfsRaw", "RW 1 VMFSRAW \"/vmfs/devices/disks/naa.6\"", "device of the ESXi host"),
        ("fullDevice", "RW 1 FLAT \"\\\\.\\PhysicalDrive1\" 0", "device of a Windows host"),
        ("vmfs", "RW 1 VMFS \"vsan://52a5\"", "object of a datastore"),
        ("vsanSparse", "RW 1 VSANSPARSE \"vsan://52a5\"", "not published"),
    ] {
        let text = format!("version=1\nCID=1\ncreateType=\"{kind}\"\n{line}\n");
        let options = OpenOptions::new().resolver(MemFiles::with(&[("d.vmdk", text.as_bytes())]));
        for options in [options.clone(), options.writable()] {
            let error = Disk::open("d.vmdk", &options).unwrap_err();
            assert!(matches!(error, Error::NotSupported { .. }), "{kind}: {error}");
            assert!(error.to_string().contains(reason), "{kind}: {error}");
        }
    }
    // A device of this machine is a file like others, where the caller trusts the descriptor.
    let text = b"version=1\nCID=1\ncreateType=\"fullDevice\"\nRW 1 FLAT \"/dev/fake\" 0\n";
    let files = MemFiles::with(&[("d.vmdk", text), ("/dev/fake", &[4; 512])]);
    let refused = Disk::open("d.vmdk", &OpenOptions::new().resolver(files.clone())).unwrap_err();
    assert!(matches!(refused, Error::PathRefused { .. }), "{refused}");
    assert_is(&Disk::open("d.vmdk", &OpenOptions::new().resolver(files).paths(PathPolicy::Any)).unwrap(), &[4; 512]);
}

/// QEMU reads the content ids from the first twenty sectors only.
#[test]
fn a_long_descriptor_is_read_to_its_end() {
    let mut text = "# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n".to_owned();
    text.extend((0..1000).map(|line| format!("# a comment that takes room, number {line}\n")));
    text += "CID=2\nparentCID=1\nparentFileNameHint=\"p.vmdk\"\nRW 1 FLAT \"a\" 0\n";
    let parent = b"version=1\nCID=3\nRW 1 FLAT \"a\" 0\n";
    let error = open(&[("d.vmdk", text.as_bytes()), ("a", &[1; 512]), ("p.vmdk", parent)]).unwrap_err();
    assert!(matches!(error, Error::Chain { problem: ChainProblem::CidMismatch { .. }, .. }), "{error}");
}

/// QEMU checks content ids at the first read that falls through to the parent.
#[test]
fn a_changed_parent_is_noticed_at_open() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run("qemu-img", dir, &["create", "-q", "-f", "vmdk", "base.vmdk", "1M"]);
    run("qemu-img", dir, &["create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk"]);
    assert_is(&Disk::open(dir.join("child.vmdk"), &OpenOptions::new()).unwrap(), &[0; 1 << 20]);
    run("qemu-io", dir, &["-f", "vmdk", "-c", "write -P 1 0 64k", "base.vmdk"]);
    let error = Disk::open(dir.join("child.vmdk"), &OpenOptions::new()).unwrap_err();
    assert!(matches!(error, Error::Chain { problem: ChainProblem::CidMismatch { .. }, .. }), "{error}");
    show_in("a parent written to after its child", dir, "qemu-img", &["info", "-f", "vmdk", "child.vmdk"]);
    show_in("the same, read", dir, "qemu-io", &["-f", "vmdk", "-c", "read 0 512", "child.vmdk"]);
}

fn over_flat(snapshot: &Snapshot, base: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let line = |kind, name| vec![ExtentLine::new(kind, snapshot.sectors, name)];
    let bottom = NewDescriptor::new(CreateType::Vmfs, line(ExtentType::Vmfs, "base-flat.vmdk")).cid(Cid(1));
    let top = NewDescriptor::new(CreateType::SeSparse, line(ExtentType::SeSparse, "d-sesparse.vmdk"));
    let text = |new: NewDescriptor| new.build().unwrap().to_bytes();
    vec![
        ("base.vmdk", text(bottom)),
        ("base-flat.vmdk", base.to_vec()),
        ("d.vmdk", text(top.parent(Cid(1), "base.vmdk"))),
        ("d-sesparse.vmdk", snapshot.sesparse()),
    ]
}

/// dissect.hypervisor, and what was made after it, reads them from the parent: they took QEMU's "fall through" to
/// the next `case` for a fall through to the parent.
#[test]
fn sesparse_grains_that_the_guest_unmapped_are_zero_and_never_the_parents() {
    let base = vec![0xaa; 16 * 4096];
    let grains =
        BTreeMap::from([(1, Stored::Unmapped), (2, Stored::Unmapped), (4, Stored::Data(1)), (5, Stored::Zero)]);
    let snapshot = Snapshot { sectors: 128, grain_sectors: 8, grains, order: 0 };
    let files = over_flat(&snapshot, &base);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let expected = snapshot.over(base);
    assert!(expected[4096..3 * 4096].iter().all(|&byte| byte == 0) && expected[0] == 0xaa);
    let disk = open(&files).unwrap();
    assert_is(&disk, &expected);
    let unmapped = disk.map(4096..2 * 4096).next().unwrap().unwrap();
    assert_eq!((unmapped.kind, unmapped.layer), (MapKind::Zero, Some(0)));
    // QEMU is right here, and the source of the fact.
    show("unmapped grains", "qemu-io", &["-r", "-f", "vmdk", "-c", "read -P 0 4096 8192", "d.vmdk"], &files);
}

/// vmdk-core bounds the directory at 16 MiB: two million tables of 16 MiB, 32 TB.
#[test]
fn a_sesparse_disk_of_62_tb_is_opened_mapped_and_read() {
    let sectors = MAX_CAPACITY / 512;
    let (tables, last) = (sectors / 32768, sectors / 8 - 1);
    let directory_sectors = tables / 64;
    assert!(directory_sectors * 512 > 16 << 20);
    let (directory, table_area) = (8, 8 + directory_sectors);
    let grain_area = table_area + tables * 64;
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("big.vmdk")).unwrap();
    let put = |offset: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, offset).unwrap();
    };
    let areas = [1, 1, 2, 1, 3, 1, directory, directory_sectors, table_area, tables * 64, 4, 1, 5, 1];
    put(0, &[0xcafe_babe, 0x2_0000_0001, sectors, 8, 64]);
    put(80, &areas);
    put(80 + 14 * 8, &[grain_area, sectors]);
    put(512, &[0xcafe_cafe]);
    // Two tables: the first of the directory's entries has the second one.
    put(directory * 512, &[0x1000_0000_0000_0001]);
    put(directory * 512 + (tables - 1) * 8, &[0x1000_0000_0000_0000]);
    put((table_area + 64) * 512, &[0x3000_0000_0000_0000]);
    put(table_area * 512 + 4095 * 8, &[0x3001_0000_0000_0000]);
    put((grain_area * 512) + 4096 + 4088, &[u64::from_le_bytes(*b"the last")]);
    put(grain_area * 512, &[u64::from_le_bytes(*b"thefirst")]);
    let disk = Disk::open(dir.path().join("big.vmdk"), &OpenOptions::new().cache_bytes(1 << 20)).unwrap();
    assert_eq!((disk.capacity(), last), (MAX_CAPACITY, MAX_CAPACITY / 4096 - 1));
    let mut buf = [0; 8];
    disk.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"thefirst");
    disk.read_at(MAX_CAPACITY - 8, &mut buf).unwrap();
    assert_eq!(&buf, b"the last");
    let map: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap()).collect();
    let found: Vec<_> = map.iter().map(|entry| (entry.range.clone(), entry.kind)).collect();
    let (data, nothing) = (MapKind::Data, MapKind::Unallocated);
    assert_eq!(found, [(0..4096, data), (4096..last * 4096, nothing), (last * 4096..MAX_CAPACITY, data)]);
}
