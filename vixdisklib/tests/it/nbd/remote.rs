//! Disks of the simulator, over `nbdssl`, served to clients of others.

use std::sync::Arc;

use vixdisklib::{Access, nbd::NbdServer};
use vsphere_sim::{Power, nfc::NfcServerConfig};

use super::{MIB, raw};
use crate::{
    simulator::{BASE, Lab},
    support::{peer, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_mapped_and_copied_and_its_holes_are_not_asked_for() {
    let (Some(nbdinfo), Some(nbdcopy)) = (peer("nbdinfo"), peer("nbdcopy")) else { return };
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let disk = lab.connect(Access::ReadOnly, "nbdssl").await.open(BASE).await.unwrap();
    let server = NbdServer::bind("127.0.0.1:0").export("web", Arc::new(disk)).serve().await.unwrap();
    let info = run(&nbdinfo, &[&server.uri("web")]);
    assert!(info.contains("block_size_minimum: 512") && info.contains("is_read_only: true"), "{info}");
    let map = run(&nbdinfo, &["--map", &server.uri("web")]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(lines, [["0", "1048576", "3"], ["1048576", "262144", "0"], ["1310720", "32243712", "3"]], "{map}");

    let folder = tempfile::tempdir().unwrap();
    let target = raw(folder.path(), "copy.img", b"");
    run(&nbdcopy, &[&server.uri("web"), &target]);
    let mut expected = vec![0; 32 << 20];
    expected[1 << 20..][..200_000].fill(5);
    assert!(std::fs::read(&target).unwrap() == expected);
    // Without extents every byte is asked for here, and still not there.
    run(&nbdcopy, &["--no-extents", &server.uri("web"), "null:"]);
    let read = lab.sim.nfc().counters().file(BASE).read;
    assert!(read <= 2 * 262_144, "{read} bytes were read of a host that has 262144");
    server.stop().await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_writes_a_disk_of_a_machine_that_is_off() {
    let (Some(qemu_io), Some(nbdinfo)) = (peer("qemu-io"), peer("nbdinfo")) else { return };
    let lab = Lab::new(Power::Off).await;
    let disk = lab.connect(Access::ReadWrite, "nbdssl").await.open(BASE).await.unwrap();
    let server = NbdServer::bind("127.0.0.1:0").export("web", Arc::new(disk)).serve().await.unwrap();
    // The second one is not whole sectors.
    let commands = ["-c", "write -P 7 2M 1M", "-c", "write -P 8 1000 100", "-c", "write -z 2M 64k", "-c", "flush"];
    run(&qemu_io, &[&["-f", "raw"][..], &commands, &[&server.uri("web")]].concat());
    let map = run(&nbdinfo, &["--map", &server.uri("web")]);
    assert!(map.contains("data") && !map.contains("hole"), "what is not known counts as data: {map}");
    server.stop().await.unwrap();
    assert_eq!(lab.guest_reads(999, 102), [&[0][..], &[8; 100], &[0]].concat());
    assert_eq!(lab.guest_reads(2 * MIB + 65535, 2), [0, 7]);
    lab.end().await;
}
