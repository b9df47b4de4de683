//! Disks chosen by hand.

use vmdk::{Disk, MapKind, OpenOptions};

use super::qemu::Qemu;
use crate::support::{assert_is, run};

/// vmdk-core returns the parent's bytes.
#[test]
fn a_zeroed_grain_of_a_child_hides_the_parent() {
    let Some(qemu) = Qemu::new() else { return };
    run("qemu-img", qemu.dir(), &["create", "-f", "vmdk", "base.vmdk", "1M"]);
    run("qemu-io", qemu.dir(), &["-f", "vmdk", "-c", "write -P 0xaa 0 1M", "base.vmdk"]);
    run(
        "qemu-img",
        qemu.dir(),
        &["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "-o", "zeroed_grain=on", "child.vmdk"],
    );
    run("qemu-io", qemu.dir(), &["-f", "vmdk", "-c", "write -z 0 128k", "-c", "write -P 0x55 256k 64k", "child.vmdk"]);
    let mut expected = vec![0xaa; 1 << 20];
    expected[..128 << 10].fill(0);
    expected[256 << 10..320 << 10].fill(0x55);
    assert_is(&Disk::open(qemu.dir().join("child.vmdk"), &OpenOptions::new()).unwrap(), &expected);
    let disk = Disk::open(qemu.dir().join("child.vmdk"), &OpenOptions::new().writable()).unwrap();
    assert_is(&disk, &expected);
    let map: Vec<_> = disk.map(0..1 << 20).map(|entry| entry.unwrap()).collect();
    assert_eq!((map[0].range.clone(), map[0].kind), (0..128 << 10, MapKind::Zero));

    // Writes into the child take the rest of the grain from the parent; zeroing hides the parent.
    disk.write_at((600 << 10) + 5, b"hello").unwrap();
    disk.zero_at((700 << 10) + 1..(900 << 10) + 3).unwrap();
    disk.write_at(5, b"over a zeroed grain").unwrap();
    expected[(600 << 10) + 5..][..5].copy_from_slice(b"hello");
    expected[(700 << 10) + 1..(900 << 10) + 3].fill(0);
    expected[5..24].copy_from_slice(b"over a zeroed grain");
    assert_is(&disk, &expected);
    disk.close().unwrap();
    qemu.assert_is("vmdk", "child.vmdk", &expected);
    qemu.check("child.vmdk");
}
