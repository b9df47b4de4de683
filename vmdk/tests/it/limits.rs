//! The largest disks of vSphere, with data at both ends.

use vmdk::{CreateKind, CreateSpec, Disk, MAX_CAPACITY, MapKind, OpenOptions, create};

#[test]
fn disks_of_62_tb_are_made_written_mapped_and_read() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [CreateKind::Flat, CreateKind::MonolithicSparse] {
        let path = dir.path().join(format!("{kind:?}.vmdk"));
        let disk = match create(&path, &CreateSpec::new(MAX_CAPACITY, kind)) {
            Ok(disk) => disk,
            // ext4 ends at 16 TiB: a flat file of this size cannot be made there.
            Err(vmdk::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
                eprintln!("SKIPPED: the file system takes no file of 62 TB");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        disk.write_at(0, b"first").unwrap();
        disk.write_at(MAX_CAPACITY - 4, b"last").unwrap();
        disk.close().unwrap();
        let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
        let mut buf = [0; 9];
        disk.read_at(MAX_CAPACITY - 9, &mut buf).unwrap();
        assert_eq!(&buf, b"\0\0\0\0\0last");
        let map: Vec<_> = disk.map(0..u64::MAX).map(|entry| entry.unwrap()).collect();
        let data =
            |index: usize| map[index].kind == MapKind::Data && map[index].range.end - map[index].range.start < 1 << 20;
        assert!(map.len() == 3 && data(0) && !data(1) && data(2), "{kind:?}: {map:?}");
    }
}
