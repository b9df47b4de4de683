//! Chains over HTTPS and the same chains read locally.

use std::{collections::BTreeMap, os::unix::fs::FileExt as _, path::Path};

use vixdisklib::{
    Access, AllocationBasis, CloneOptions, Error, OpenOptions, TransportMode, clone_disk, https::HttpsOptions,
};
use vsphere_sim::{DeltaFormat, FileOptions, Power, Simulator};
use vsphere_vim::{CreateSnapshotOptions, RemoveSnapshotOptions};

use super::{BASE, MIB, Site, files};
use crate::{
    lab::{self, Random},
    snapshot::{Snapshot, Stored},
};

/// The disk of the measurements: 1 GiB.
const CAPACITY: u64 = 1 << 30;

/// Puts a chain of three into the datastore, as ESXi would have left it: a flat base with data here and there, a `COWD`
/// file with grains of a sector over it, a `seSparse` file over that. The snapshots hold a run of 64 KiB somewhere in
/// every 4 MiB of the disk, so that there are tables for all of it. Returns the name of the disk, and where those runs
/// begin.
fn put_chain(sim: &Simulator, folder: &str) -> (String, Vec<u64>) {
    let place = |name: &str| sim.stored_file(&format!("{folder}/{name}")).unwrap();
    let mut random = Random::new(7);
    let base = std::fs::File::create(place("deep-flat.vmdk")).unwrap();
    base.set_len(CAPACITY).unwrap();
    for area in 0..CAPACITY / (16 * MIB) {
        let at = area * 16 * MIB + random.below(14 * MIB);
        base.write_all_at(&random.bytes(100_000), at).unwrap();
    }
    let mut runs = Vec::new();
    let mut snapshot = |grain_sectors: u64, order: u64| {
        let run = 64 * 1024 / (grain_sectors * 512);
        let mut grains = BTreeMap::new();
        for area in 0..CAPACITY / (4 * MIB) {
            let at = area * 4 * MIB + random.below(900) * 4096;
            runs.push(at);
            let first = at / (grain_sectors * 512);
            for grain in first..first + run {
                grains.insert(grain, Stored::Data(random.next()));
            }
        }
        Snapshot { sectors: CAPACITY / 512, grain_sectors, grains, order }
    };
    let cowd = snapshot(1, 0);
    let mut sesparse = snapshot(8, 3);
    // The guest has given back some of it, and zeroed some.
    for (number, stored) in sesparse.grains.values_mut().enumerate() {
        match number % 37 {
            1 => *stored = Stored::Zero,
            2 => *stored = Stored::Unmapped,
            _ => {}
        }
    }
    std::fs::write(place("deep-000001-delta.vmdk"), cowd.cowd()).unwrap();
    std::fs::write(place("deep-000002-sesparse.vmdk"), sesparse.sesparse()).unwrap();
    let sectors = CAPACITY / 512;
    let describe = |cid: u32, parent: &str, kind: &str, extent: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\n{parent}createType=\"{kind}\"\nRW {sectors} {extent}\n\
             ddb.adapterType = \"lsilogic\"\nddb.uuid = \"60 00 C2 9{cid} 00 00 00 00-00 00 00 00 00 00 00 01\"\n"
        )
    };
    let none = "parentCID=ffffffff\n";
    std::fs::write(place("deep.vmdk"), describe(1, none, "vmfs", "VMFS \"deep-flat.vmdk\"")).unwrap();
    let over_base = "parentCID=00000001\nparentFileNameHint=\"deep.vmdk\"\n";
    let extent = "VMFSSPARSE \"deep-000001-delta.vmdk\"";
    std::fs::write(place("deep-000001.vmdk"), describe(2, over_base, "vmfsSparse", extent)).unwrap();
    // Hosts write absolute names for files in other folders.
    let over_first =
        format!("parentCID=00000002\nparentFileNameHint=\"/vmfs/volumes/ds1/{folder}/deep-000001.vmdk\"\n");
    let extent = "SESPARSE \"deep-000002-sesparse.vmdk\"";
    std::fs::write(place("deep-000002.vmdk"), describe(3, &over_first, "seSparse", extent)).unwrap();
    (format!("[ds1] {folder}/deep-000002.vmdk"), runs)
}

/// The same chain on this machine. Its absolute name means nothing here, so the top is opened by a copy of its
/// descriptor that names its neighbour.
fn local(sim: &Simulator, folder: &str) -> vmdk::Disk {
    let top = sim.stored_file(&format!("{folder}/deep-000002.vmdk")).unwrap();
    let text = std::fs::read_to_string(&top).unwrap();
    let here = top.with_file_name("local.vmdk");
    std::fs::write(&here, text.replace(&format!("/vmfs/volumes/ds1/{folder}/"), "")).unwrap();
    open(&here)
}

fn open(path: &Path) -> vmdk::Disk {
    vmdk::Disk::open(path, &vmdk::OpenOptions::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_hundredth_of_a_chain_of_three_travels_with_less_than_a_third_more() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let (path, runs) = put_chain(&site.sim, "chain");
    let here = local(&site.sim, "chain");
    let before = site.sim.folder().bytes();
    let disk = site.connect(HttpsOptions::new()).await.open(&path).await.unwrap();
    assert_eq!((disk.capacity(), disk.transport()), (CAPACITY, TransportMode::Https));
    // Distinct blocks of 64 KiB, in no order, until a hundredth of the disk was read.
    let (mut random, mut seen) = (Random::new(11), std::collections::BTreeSet::new());
    let same = async |at: u64, len: usize| {
        let mut expected = vec![0xee; len];
        here.read_at(at, &mut expected).unwrap();
        assert!(disk.read_at(at, len).await.unwrap() == expected, "{len} bytes at {at}");
    };
    while seen.len() as u64 * 65536 < CAPACITY / 100 {
        let block = random.below(CAPACITY / 65536);
        if seen.insert(block) {
            same(block * 65536, 65536).await;
        }
    }
    let sent = site.sim.folder().bytes() - before;
    let needed = seen.len() as u64 * 65536;
    println!("{sent} bytes for {needed}, {} requests", site.sim.folder().requests());
    // Descriptors, headers, directories and tables of three links are in it. The base is flat: its zeros travel.
    assert!(sent * 10 < needed * 13, "{sent} bytes for {needed}");
    // And where the snapshots' own data begin and end, at odd offsets.
    for at in runs.iter().step_by(9) {
        same(at.saturating_sub(777), 1500).await;
        same(at + 65536 - 5, 4097).await;
    }
    disk.close().await.unwrap();
    site.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_is_told_and_mapped_as_it_is_locally() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let (path, _) = put_chain(&site.sim, "[prod] chain");
    let here = local(&site.sim, "[prod] chain");
    let disk = site.connect(HttpsOptions::new()).await.open(&path).await.unwrap();
    let info = disk.info().await.unwrap();
    assert_eq!((info.capacity, info.links, info.adapter_type.as_deref()), (CAPACITY, Some(3), Some("lsilogic")));
    assert_eq!(info.parent_hint.as_deref(), Some("/vmfs/volumes/ds1/[prod] chain/deep-000001.vmdk"));
    assert_eq!(disk.metadata("UUID").await.unwrap(), here.ddb_get("uuid"));
    let keys: Vec<String> = here.ddb_list().into_iter().map(|(key, _)| key).collect();
    assert_eq!(disk.metadata_keys().await.unwrap(), keys);
    // One link alone: what its parents have is not asked for. Its own tables are all that travels.
    let alone =
        site.connect(HttpsOptions::new()).await.open_with(&path, OpenOptions::new().single_link(true)).await.unwrap();
    let areas = alone.allocated(0..CAPACITY).await.unwrap();
    let single = vmdk::OpenOptions::new().single_link(true);
    let local = vmdk::Disk::open(site.sim.stored_file("[prod] chain/local.vmdk").unwrap(), &single).unwrap();
    let grid = 64 * 1024;
    let mut expected: Vec<std::ops::Range<u64>> = Vec::new();
    for entry in local.map(0..CAPACITY).map(Result::unwrap).filter(|entry| entry.kind != vmdk::MapKind::Unallocated) {
        let area = entry.range.start / grid * grid..entry.range.end.next_multiple_of(grid).min(CAPACITY);
        match expected.last_mut() {
            Some(last) if area.start <= last.end => last.end = last.end.max(area.end),
            _ => expected.push(area),
        }
    }
    assert!(areas.areas == expected, "{} areas, {} expected", areas.areas.len(), expected.len());
    assert_eq!(areas.basis, AllocationBasis::Known);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_machine_with_snapshots_is_what_its_guest_wrote() {
    for deltas in [DeltaFormat::SeSparse, DeltaFormat::Cowd] {
        let options = files(|files| {
            files.lock_running_disks = false;
            files.deltas = deltas;
        });
        let site = Site::new(Power::On, options).await;
        let vm = lab::machine(&site.sim, "web");
        let mut random = Random::new(3);
        let mut snapshots = Vec::new();
        for name in ["one", "two", "three"] {
            for _ in 0..20 {
                let at = random.below(31 * MIB);
                let len = random.below(200_000) as usize + 1;
                let bytes = random.bytes(len);
                site.guest_writes(at, &bytes);
            }
            let snapshot = CreateSnapshotOptions::new(name);
            snapshots.push(site.vim.create_snapshot(&vm, snapshot).await.unwrap());
        }
        let (over_https, newest) = (site.connect(HttpsOptions::new()).await, "[ds1] web/web-000003.vmdk");
        let disk = over_https.open(newest).await.unwrap();
        assert_eq!(disk.info().await.unwrap().links, Some(4));
        let read = disk.read_at(0, 32 << 20).await.unwrap();
        let mut expected = vec![0; 32 << 20];
        site.sim.guest("web").unwrap().disk(2000).unwrap().read_at(0, &mut expected).unwrap();
        assert!(read == expected, "{deltas:?}");
        disk.close().await.unwrap();
        let server = site.connect_over("nbdssl", Access::ReadWrite, HttpsOptions::new()).await.unwrap();
        let replacing = CloneOptions::new().overwrite(true);
        let refused = clone_disk(&server, BASE, &over_https, newest, &replacing).await.unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "a parent is not replaced by its child: {refused}");
        for snapshot in snapshots {
            site.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await.unwrap();
        }
        site.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_front_to_back_ranges_travel_side_by_side_over_few_connections() {
    let site = Site::new(Power::Off, FileOptions::default()).await;
    let content = Random::new(5).bytes(32 << 20);
    site.guest_writes(0, &content);
    let options = HttpsOptions::new().connections(4).longest(512 << 10).read_ahead(8 * MIB);
    let disk = site.connect(options).await.open(BASE).await.unwrap();
    let (bytes, connections) = (site.sim.folder().bytes(), site.sim.folder().connections());
    let mut read = Vec::new();
    while (read.len() as u64) < disk.capacity() {
        read.extend_from_slice(
            &disk.read_at(read.len() as u64, 300_000.min(content.len() - read.len())).await.unwrap(),
        );
    }
    assert!(read == content);
    let folder = site.sim.folder();
    assert_eq!(folder.bytes() - bytes, 32 * MIB, "every byte travels once");
    assert!((2..=4).contains(&folder.most_at_once()), "{}", folder.most_at_once());
    // Connections are used again; a few more may be made when one is not ready in time.
    assert!(folder.connections() - connections <= 16, "{}", folder.connections() - connections);
    disk.close().await.unwrap();
    site.close().await;
}
