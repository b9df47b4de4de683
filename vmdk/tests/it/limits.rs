//! The largest disks of vSphere, with data at both ends: everything works, in little memory.

use std::{fs, path::Path, process::Command};

use vmdk::{
    ChildSpec, CopyOptions, CreateKind, CreateSpec, Disk, Error, GrowOptions, MAX_CAPACITY, MapKind, OpenOptions,
    convert, copy, create, create_child, grow,
    stream::{StreamReader, StreamSpec, export},
};

const MIB: u64 = 1 << 20;

#[test]
fn disks_of_62_tb_are_made_written_mapped_and_read() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse] {
        let path = dir.path().join(format!("{kind:?}.vmdk"));
        let disk = match create(&path, &CreateSpec::new(MAX_CAPACITY, kind)) {
            Ok(disk) => disk,
            // ext4 ends at 16 TiB: a flat file of this size cannot be made there.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
                eprintln!("SKIPPED: the file system takes no file of 62 TB");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        disk.write_at(0, b"first").unwrap();
        disk.write_at(MAX_CAPACITY - 4, b"last").unwrap();
        assert_ends(&disk);
        disk.close().unwrap();
        assert_ends(&Disk::open(&path, &OpenOptions::new()).unwrap());
    }
}

/// Data at both ends, and nothing between.
fn assert_ends(disk: &Disk) {
    let mut buf = [0; 9];
    disk.read_at(MAX_CAPACITY - 9, &mut buf).unwrap();
    assert_eq!(&buf, b"\0\0\0\0\0last");
    disk.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"first\0\0\0\0");
    let map: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap()).collect();
    let is_small =
        |index: usize| map[index].kind == MapKind::Data && map[index].range.end - map[index].range.start < MIB;
    assert!(map.len() == 3 && is_small(0) && map[1].kind != MapKind::Data && is_small(2), "{map:?}");
}

/// Where the measured process works; only it has this set.
const WORK_DIR: &str = "VMDK_TEST_LIMITS_DIR";

#[test]
fn a_sparse_disk_of_62_tb_is_grown_copied_exported_and_read_back_in_128_mib() {
    if let Some(dir) = std::env::var_os(WORK_DIR) {
        work_with_62_tb(Path::new(&dir));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Memory is measured in a process that does nothing else.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limits::a_sparse_disk_of_62_tb_is_grown_copied_exported_and_read_back_in_128_mib"])
        .arg("--nocapture")
        .env(WORK_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .expect("the process tells its peak memory");
    assert!(peak < 128 << 10, "{peak} KiB");
}

fn work_with_62_tb(dir: &Path) {
    let at = |name: &str| dir.join(name);
    // Small first: growing leaves what was written where it is.
    create(at("s.vmdk"), &CreateSpec::new(MIB, CreateKind::MonolithicSparse)).unwrap().write_at(0, b"first").unwrap();
    grow(at("s.vmdk"), MAX_CAPACITY, &GrowOptions::new()).unwrap();
    let error = grow(at("s.vmdk"), MAX_CAPACITY + 512, &GrowOptions::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "capacity", .. }), "{error}");
    let disk = Disk::open(at("s.vmdk"), &OpenOptions::new().writable()).unwrap();
    disk.write_at(MAX_CAPACITY - 4, b"last").unwrap();
    disk.zero_at(MIB..MAX_CAPACITY - MIB).unwrap();
    assert_ends(&disk);
    disk.close().unwrap();

    let source = Disk::open(at("s.vmdk"), &OpenOptions::new()).unwrap();
    let stream = export(&source, Vec::new(), &StreamSpec::new(MAX_CAPACITY)).unwrap();
    assert!(stream.len() < 16 << 20);
    let mut reader = StreamReader::open(stream.as_slice(), "stream").unwrap();
    let mut grains = Vec::new();
    while let Some(grain) = reader.next_grain().unwrap() {
        grains.push(grain.offset);
    }
    assert_eq!(grains, [0, MAX_CAPACITY - 65536]);
    fs::write(at("stream.vmdk"), stream).unwrap();
    let packed = Disk::open(at("stream.vmdk"), &OpenOptions::new()).unwrap();
    assert_ends(&packed);
    let spec = CreateSpec::new(MAX_CAPACITY, CreateKind::MonolithicSparse);
    let again = convert(&packed, at("again.vmdk"), &spec, &CopyOptions::new()).unwrap();
    assert_ends(&again);
    // Over a disk that has data: what the source lacks is cleared.
    again.write_at(MAX_CAPACITY / 2, b"to be cleared").unwrap();
    copy(&source, &again, &CopyOptions::new()).unwrap();
    let mut buf = [1; 13];
    again.read_at(MAX_CAPACITY / 2, &mut buf).unwrap();
    assert_eq!(buf, [0; 13]);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

#[test]
fn zeros_over_all_of_a_large_child_take_time_once_for_each_table() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    const CAPACITY: u64 = 512 << 30;
    create(at("p.vmdk"), &CreateSpec::new(CAPACITY, CreateKind::MonolithicSparse)).unwrap().close().unwrap();
    let child = create_child(at("p.vmdk"), at("c.vmdk"), &ChildSpec::new().zeroed_grains(true)).unwrap();
    child.zero_at(0..CAPACITY).unwrap();
    let map: Vec<_> = child.map(0..CAPACITY).map(|entry| entry.unwrap()).collect();
    assert!(map.len() == 1 && map[0].kind == MapKind::Zero && map[0].range == (0..CAPACITY), "{map:?}");
}
