//! Random disks that we make and write are read, checked and gone on with by the peers.

use proptest::prelude::*;
use vmdk::{Disk, OpenOptions};

use super::{
    assert_sound, cases,
    changes::{apply, capacity, changes},
    libvmdk,
    ours::{Ours, export, write},
    qemu::{Made, Qemu},
};
use crate::support::assert_is;

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_is_created_is_read_by_the_peers_and_written_in_turn(
        made in Ours::any(),
        capacity in capacity(),
        [ours, theirs, again] in [changes(0..10), changes(1..6), changes(1..6)],
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        made.create(&qemu, "d.vmdk", capacity);
        write(&qemu, "d.vmdk", &ours);
        apply(&ours, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        if !made.has_zeroed_grains() {
            libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &content);
        }

        qemu.change("d.vmdk", capacity, &theirs);
        write(&qemu, "d.vmdk", &again);
        apply(&theirs, &mut content);
        apply(&again, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        if !made.has_zeroed_grains() {
            libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &content);
        }
        let disk = Disk::open(qemu.dir().join("d.vmdk"), &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        assert_sound(qemu.dir(), "d.vmdk");
        if made.is_sparse() {
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
        qemu.change("d.vmdk", capacity, &theirs);
        write(&qemu, "d.vmdk", &ours);
        apply(&theirs, &mut content);
        apply(&ours, &mut content);
        qemu.assert_is("vmdk", "d.vmdk", &content);
        assert_sound(qemu.dir(), "d.vmdk");
        if !made.has_zeroed_grains() {
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
        export(&qemu, "s.vmdk", &content, level);
        qemu.assert_is("vmdk", "s.vmdk", &content);
        qemu.check("s.vmdk");
        assert_sound(qemu.dir(), "s.vmdk");
        libvmdk::assert_is(qemu.dir(), &["s.vmdk"], &content);
        let disk = Disk::open(qemu.dir().join("s.vmdk"), &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        qemu.assert_maps("s.vmdk", &disk);
    }
}
