//! Many disks under one governor, against the simulator.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use vixdisklib::{Access, Connection, ConnectionOptions, Governor, GovernorLimits};
use vsphere_sim::{Personality, Power, nfc::NfcServerConfig};

use crate::simulator::{BASE, Lab};

const MIB: u64 = 1 << 20;

/// Disks of each host in a crowd.
const DISKS: usize = 6;

async fn connect(lab: &Lab, governor: &Governor) -> Connection {
    let options = ConnectionOptions::new().governor(governor.clone());
    Connection::connect_with(&lab.vim, &lab.vm, Access::ReadOnly, "nbdssl", options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_of_several_connections_wait_for_places_and_all_are_read() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let governor = Governor::new(GovernorLimits::default().disks(3, 52));
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let connection = connect(&lab, &governor).await;
        let governor = governor.clone();
        tasks.spawn(async move {
            let disk = connection.open(BASE).await.unwrap();
            assert!(governor.usage().disks <= 3);
            assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
            disk.close().await.unwrap();
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(governor.usage(), Governor::default().usage(), "everything was given back");
    lab.end().await;
}

/// Opens disks of all labs at the same time, reads them, holds them a while and ends them in every way there is; how many
/// could not be opened.
async fn crowd(labs: &[Lab], governor: Option<&Governor>) -> usize {
    let mut tasks = JoinSet::new();
    for (lab, number) in labs.iter().flat_map(|lab| (0..DISKS).map(move |number| (lab, number))) {
        let options =
            governor.map_or_else(ConnectionOptions::new, |all| ConnectionOptions::new().governor(all.clone()));
        let connecting = Connection::connect_with(&lab.vim, &lab.vm, Access::ReadOnly, "nbdssl", options);
        let connection = connecting.await.unwrap();
        tasks.spawn(async move {
            let Ok(disk) = connection.open(BASE).await else { return 1 };
            assert_eq!(disk.read_at(MIB, 512).await.unwrap(), vec![5; 512]);
            tokio::time::sleep(Duration::from_millis(50)).await;
            match number % 3 {
                0 => drop(disk),
                1 => drop(tokio::time::timeout(Duration::from_micros(1), disk.close()).await),
                _ => disk.close().await.unwrap(),
            }
            0
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_governed_never_meets_a_refusal_of_a_host_and_whoever_is_not_does() {
    type Limit = fn(&mut NfcServerConfig);
    let limits: [(Personality, Limit, GovernorLimits); 3] = [
        (Personality::Esxi, |host| host.max_connections = Some(3), GovernorLimits::default().disks(3, 52)),
        (Personality::Esxi, |host| host.memory = Some(9 * MIB), GovernorLimits::default().memory_per_host(9 * MIB)),
        (
            Personality::VCenter,
            |host| host.max_connections_via_vcenter = Some(2),
            GovernorLimits::default().disks(50, 2),
        ),
    ];
    for (server, limit, of_governor) in limits {
        // Three hosts of their own, or one that a vCenter has.
        let mut labs = Vec::new();
        for _ in 0..if server == Personality::Esxi { 3 } else { 1 } {
            let mut host = NfcServerConfig::default();
            limit(&mut host);
            labs.push(Lab::on(server, Power::On, host).await.snapshotted().await);
        }
        meets_no_refusal_unless_ungoverned(labs, Governor::new(of_governor)).await;
    }
}

async fn meets_no_refusal_unless_ungoverned(labs: Vec<Lab>, governor: Governor) {
    let refused = || labs.iter().map(|lab| lab.sim.nfc().counters().refused()).collect::<Vec<_>>();
    assert_eq!(crowd(&labs, Some(&governor)).await, 0, "{governor:?}");
    assert!(refused().iter().all(|refused| *refused == 0), "{governor:?}: {:?}", refused());
    // Those that were not closed keep their places a little longer.
    while governor.usage().disks > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failed = crowd(&labs, None).await;
    assert!(refused().iter().all(|refused| *refused > 0), "{governor:?}: {:?}", refused());
    // Where memory is missing the client waits, and asks for less.
    let for_memory = governor.limits().memory_per_host < GovernorLimits::default().memory_per_host;
    assert!(for_memory || failed > 0, "{governor:?}");
    // Tickets of connections that were refused are left over.
    for lab in labs {
        lab.sim.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_opened_gives_its_place_back() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let governor = Governor::new(GovernorLimits::default().disks(1, 1));
    let connection = connect(&lab, &governor).await;
    for _ in 0..3 {
        connection.open("[ds1] web/no.vmdk").await.unwrap_err();
    }
    let disk = connection.open(BASE).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), connection.open(BASE)).await;
    assert!(waiting.is_err(), "there is one place");
    drop(disk); // Without closing.
    connection.open(BASE).await.unwrap().close().await.unwrap();
    assert_eq!(governor.usage().disks, 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_all_disks_keep_to_the_rate_and_a_new_one_holds_at_once() {
    let lab = Lab::with_snapshot(NfcServerConfig::default()).await;
    let governor = Governor::new(GovernorLimits::default().rate(20 * MIB));
    let mut disks = Vec::new();
    for _ in 0..2 {
        disks.push(Arc::new(connect(&lab, &governor).await.open(BASE).await.unwrap()));
    }
    let read = async |count: u64| {
        let begun = std::time::Instant::now();
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let disk = Arc::clone(&disks[n as usize % 2]);
            tasks.spawn(async move { disk.read_at(n * MIB, MIB as usize).await.unwrap().len() });
        }
        tasks.join_all().await;
        begun.elapsed()
    };
    let slow = read(12).await;
    // The first one and what the bucket holds are free.
    assert!(slow >= Duration::from_millis(480), "{slow:?} for 12 MiB at 20 MiB/s");
    governor.set_limits(GovernorLimits::default());
    assert!(read(12).await < slow, "no limit any more");
    for disk in disks {
        Arc::into_inner(disk).unwrap().close().await.unwrap();
    }
    lab.end().await;
}
