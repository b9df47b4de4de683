//! Random disks that qemu-img makes and qemu-io writes are read by us.

use proptest::{prelude::*, sample::select};
use vmdk::{CreateType, Disk, OpenOptions, stream::StreamReader};

use super::{
    assert_sound, cases,
    changes::{apply, capacity, changes},
    qemu::{Made, Qemu},
};
use crate::support::assert_is;

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_qemu_io_writes_is_read_and_mapped(made in Made::any(), capacity in capacity(), changes in changes(1..12)) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        apply(&changes, &mut content);
        qemu.create("d.vmdk", capacity, &made.options());
        qemu.change("d.vmdk", capacity, &changes);

        let disk = Disk::open(qemu.dir().join("d.vmdk"), &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        if !made.is_flat() {
            qemu.assert_maps("d.vmdk", &disk);
        }
        assert_sound(qemu.dir(), "d.vmdk");
        prop_assert_eq!(disk.ddb_get("adapterType").unwrap(), made.adapter);
        prop_assert_eq!(disk.links().next().unwrap().create_type, Some(CreateType::from_name(made.subformat)));
    }

    #[test]
    fn what_qemu_img_compresses_is_read(
        capacity in capacity(),
        changes in changes(0..12),
        adapter in select(&["ide", "lsilogic"][..]),
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        apply(&changes, &mut content);
        qemu.convert(&content, "s.vmdk", &format!("subformat=streamOptimized,adapter_type={adapter}"));

        let file = std::fs::File::open(qemu.dir().join("s.vmdk")).unwrap();
        let mut reader = StreamReader::open(file, "s.vmdk").unwrap();
        prop_assert_eq!(reader.capacity(), capacity);
        let mut read = vec![0; capacity as usize];
        while let Some(grain) = reader.next_grain().unwrap() {
            read[grain.offset as usize..][..grain.data.len()].copy_from_slice(grain.data);
        }
        prop_assert!(read == content, "the content differs");
        let disk = Disk::open(qemu.dir().join("s.vmdk"), &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        qemu.assert_maps("s.vmdk", &disk);
        assert_sound(qemu.dir(), "s.vmdk");
    }
}
