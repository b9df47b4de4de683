//! Random disks that we make and write are read, checked and gone on with by the peers.

use proptest::{prelude::*, sample::select};
use vmdk::{
    AdapterType, CreateKind, CreateSpec, Disk, OpenOptions, create,
    stream::{StreamSpec, export},
};

use super::{
    cases,
    changes::{Change, apply, capacity, changes},
    libvmdk,
    qemu::{Made, Qemu},
};
use crate::support::assert_is;

/// Makes the changes through a newly opened disk and closes it.
fn write(qemu: &Qemu, name: &str, changes: &[Change]) {
    let disk = Disk::open(qemu.dir().join(name), &OpenOptions::new().writable()).unwrap();
    changes.iter().for_each(|change| change.write(&disk));
    disk.close().unwrap();
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn what_is_created_is_read_by_the_peers_and_written_in_turn(
        kind in select(&[CreateKind::MonolithicSparse, CreateKind::Flat, CreateKind::Vmfs][..]),
        adapter in select(&[AdapterType::Ide, AdapterType::LsiLogic, AdapterType::BusLogic][..]),
        capacity in capacity(),
        [ours, theirs, again] in [changes(0..10), changes(1..6), changes(1..6)],
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let path = qemu.dir().join("d.vmdk");
        let mut content = vec![0; capacity as usize];
        create(&path, &CreateSpec::new(capacity, kind).adapter_type(adapter)).unwrap().close().unwrap();
        write(&qemu, "d.vmdk", &ours);
        apply(&ours, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &content);

        qemu.change("d.vmdk", capacity, &theirs);
        write(&qemu, "d.vmdk", &again);
        apply(&theirs, &mut content);
        apply(&again, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &content);
        let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        if kind == CreateKind::MonolithicSparse {
            qemu.assert_maps("d.vmdk", &disk);
            qemu.check("d.vmdk");
        }
    }

    #[test]
    fn what_we_write_into_disks_of_qemu_img_is_read_by_the_peers(
        made in Made::any(),
        capacity in capacity(),
        [theirs, ours] in [changes(0..6), changes(1..10)],
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        qemu.create("d.vmdk", capacity, &made.options());
        if !theirs.is_empty() {
            qemu.change("d.vmdk", capacity, &theirs);
        }
        write(&qemu, "d.vmdk", &ours);
        apply(&theirs, &mut content);
        apply(&ours, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        if made.is_flat() || !made.zeroed_grain {
            libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &content);
        }
        if !made.is_flat() {
            qemu.check("d.vmdk");
        }
    }

    #[test]
    fn what_is_exported_is_read_by_the_peers(capacity in capacity(), changes in changes(0..12), level in 0..10_u32) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        apply(&changes, &mut content);
        let disk = Disk::from_source("m", vmdk::Handle::ReadOnly(std::sync::Arc::new(vmdk::MemSource::new(content.clone()))));
        // libvmdk looks for the data in the file that the extent line names, even if it is the same.
        let spec = StreamSpec::new(capacity).level(level).name("s.vmdk");
        let stream = export(&disk.unwrap(), Vec::new(), &spec).unwrap();
        std::fs::write(qemu.dir().join("s.vmdk"), stream).unwrap();
        qemu.assert_is("vmdk", "s.vmdk", &content);
        qemu.check("s.vmdk");
        libvmdk::assert_is(qemu.dir(), &["s.vmdk"], &content);
    }
}
