//! The transports that share bandwidth under a governor without taking places.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use vixdisklib::{
    Access, CloneOptions, Connection, ConnectionOptions, Disk, DiskKind, Governor, GovernorLimits, OpenOptions,
    clone_disk,
};
use vsphere_sim::{Power, nfc::NfcServerConfig};

use crate::{
    images::{MIB, image, within},
    simulator::{BASE, Lab},
};

fn governed(governor: &Governor) -> ConnectionOptions {
    ConnectionOptions::new().governor(governor.clone())
}

async fn connect(lab: &Lab, governor: &Governor, transports: &str) -> Connection {
    let options = governed(governor);
    Connection::connect_with(&lab.vim, &lab.vm, Access::ReadOnly, transports, options).await.unwrap()
}

/// Reads `count` times 1 MiB at the same time; how long that took.
async fn read(disk: &Disk, count: u64) -> Duration {
    let begun = Instant::now();
    for bytes in join_all((0..count).map(|n| disk.read_at(n * MIB, MIB as usize))).await {
        assert_eq!(bytes.unwrap().len() as u64, MIB);
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_over_https_share_the_connections_to_a_host_and_the_rate() {
    let lab = Lab::new(Power::Off).await;
    let content: Vec<u8> = (0..16 * MIB).map(|at| (at / 512) as u8).collect();
    lab.sim.guest("web").unwrap().disk(2000).unwrap().write_at(0, &content).unwrap();
    let governor = Governor::new(GovernorLimits::default().connections_per_host(2));
    let mut disks = Vec::new();
    for _ in 0..3 {
        disks.push(connect(&lab, &governor, "https").await.open(BASE).await.unwrap());
    }
    join_all(disks.iter().map(|disk| read(disk, 8))).await;
    assert!(lab.sim.folder().most_at_once() <= 2, "{}", lab.sim.folder().most_at_once());
    governor.set_limits(GovernorLimits::default());
    for _ in 0..100 {
        if lab.sim.folder().most_at_once() > 2 {
            break; // Ranges of a quick server seldom meet.
        }
        join_all(disks.iter().map(|disk| disk.read_at(8 * MIB, 8 << 20))).await;
    }
    assert!(lab.sim.folder().most_at_once() > 2, "without the limit there are more");

    governor.set_limits(GovernorLimits::default().rate_per_host(20 * MIB));
    let begun = Instant::now();
    let bytes = disks[0].read_at(1000, 8 << 20).await.unwrap();
    assert!(bytes == content[1000..1000 + (8 << 20)]);
    // The last range and what the bucket holds are free.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?} for 8 MiB at 20 MiB/s", begun.elapsed());
    for disk in disks {
        disk.close().await.unwrap();
    }
    assert_eq!(governor.usage(), Governor::default().usage());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_keep_to_the_rate_whoever_reads_and_writes_them() {
    let (folder, path) = image("a.vmdk", 16 * MIB, vmdk::CreateKind::Flat);
    let governor = Governor::new(GovernorLimits::default().rate(20 * MIB));
    let local = Connection::local_with(Access::ReadWrite, governed(&governor));
    let disk = local.open(&*path).await.unwrap();
    let slow = Duration::from_millis(280);
    let begun = Instant::now();
    for n in 0..8 {
        disk.write_at(n * MIB, vec![1; MIB as usize].into()).await.unwrap();
    }
    assert!(begun.elapsed() >= slow, "writing 8 MiB at 20 MiB/s");
    assert!(read(&disk, 8).await >= slow);
    disk.close().await.unwrap();
    let begun = Instant::now();
    let options = CloneOptions::new().kind(DiskKind::MonolithicSparse);
    clone_disk(&Connection::local(Access::ReadWrite), &within(&folder, "b.vmdk"), &local, &path, &options)
        .await
        .unwrap();
    assert!(begun.elapsed() >= slow, "cloning 8 MiB");
    assert_eq!(governor.usage(), Governor::default().usage());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_and_its_attached_parent_do_not_wait_for_each_others_turns() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    // Room for a single request at a time.
    let governor = Governor::new(GovernorLimits::default().bytes_in_flight(1));
    let remote = connect(&lab, &governor, "nbdssl").await.open(BASE).await.unwrap();
    let (folder, base) = image("base.vmdk", remote.capacity(), vmdk::CreateKind::Flat);
    let child = within(&folder, "child.vmdk");
    let local = Connection::local_with(Access::ReadWrite, governed(&governor));
    let stand_in = local.open(&*base).await.unwrap();
    stand_in.create_child(&child, DiskKind::MonolithicSparse, None).await.unwrap();
    stand_in.close().await.unwrap();
    let upper = local.open_with(&*child, OpenOptions::new().single_link(true)).await.unwrap();
    Disk::attach(&remote, &upper).await.unwrap();
    let both = async { tokio::join!(read(&upper, 8), read(&remote, 8)) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("nobody waits for ever");
    assert_eq!(upper.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
    remote.close().await.unwrap();
    upper.close().await.unwrap();
    lab.end().await;
}
