//! Layers, snapshots and change tracking against a model that keeps every state as plain bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use vsphere_sim::storage::{Access, BLOCK, Datastore, DiskOptions, DiskSource, DiskStore, Point, TrackingError};

const CAPACITY: usize = 10 * BLOCK as usize + 1536;

fn disk(options: &DiskOptions) -> (Datastore, Arc<DiskStore>) {
    let store = Datastore::temporary("ds1").unwrap();
    let disk = store.create_disk("web", 0, &DiskSource::Empty(CAPACITY as u64), options).unwrap();
    (store, disk)
}

fn content(disk: &Arc<DiskStore>, point: &Point) -> Vec<u8> {
    let handle = disk.open(point.node(), Access::ReadOnly).unwrap();
    let mut bytes = vec![0; handle.capacity().unwrap() as usize];
    handle.read_at(0, &mut bytes).unwrap();
    bytes
}

fn running(disk: &DiskStore) -> Vec<u8> {
    let mut bytes = vec![0; disk.capacity() as usize];
    disk.guest_read(0, &mut bytes).unwrap();
    bytes
}

fn changed(disk: &DiskStore, point: &Point, since: &str) -> Vec<std::ops::Range<u64>> {
    let mut areas = Vec::new();
    let mut start = 0;
    while start < CAPACITY as u64 {
        let page = disk.changed_areas(point, since, start as i64).unwrap();
        assert_eq!(page.start, start);
        assert!(page.length > 0);
        areas.extend(page.areas);
        start += page.length;
    }
    areas
}

#[derive(Debug, Clone)]
enum Step {
    Write { at: usize, len: usize, value: u8 },
    Snapshot,
    Remove(usize),
    Revert(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..CAPACITY, 1usize..200_000, 1u8..).prop_map(|(at, len, value)| Step::Write { at, len: len.min(CAPACITY - at), value }),
        3 => Just(Step::Snapshot),
        2 => (0usize..8).prop_map(Step::Remove),
        1 => (0usize..8).prop_map(Step::Revert),
    ];
    proptest::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_snapshot_keeps_its_bytes_and_changes_are_never_missed(steps in steps(), max_areas in 1usize..4) {
        let mut options = DiskOptions::default();
        options.tracking.max_areas = max_areas;
        let (_store, disk) = disk(&options);
        disk.set_tracking(true);
        disk.stun();
        let mut now = vec![0u8; CAPACITY];
        let mut kept: BTreeMap<usize, (Point, Vec<u8>)> = BTreeMap::new();
        // Every change id ever seen, with the bytes it stands for: a backup program keeps ids of snapshots long gone.
        let mut ids: Vec<(String, Vec<u8>)> = Vec::new();
        for (serial, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { at, len, value } => {
                    disk.guest_write(at as u64, &vec![value; len]).unwrap();
                    now[at..at + len].fill(value);
                }
                Step::Snapshot => {
                    let point = disk.freeze().unwrap();
                    let id = point.change_id().unwrap();
                    for (old, before) in &ids {
                        let areas = changed(&disk, &point, old);
                        for (offset, (a, b)) in before.iter().zip(&now).enumerate() {
                            prop_assert!(a == b || areas.iter().any(|area| area.contains(&(offset as u64))), "byte {} missed since {}", offset, old);
                        }
                    }
                    let allocated = changed(&disk, &point, "*");
                    prop_assert!(now.iter().enumerate().all(|(offset, byte)| *byte == 0 || allocated.iter().any(|area| area.contains(&(offset as u64)))));
                    ids.push((id, now.clone()));
                    kept.insert(serial, (point, now.clone()));
                }
                Step::Remove(n) => {
                    if let Some(key) = kept.keys().nth(n).copied() {
                        let (point, _) = kept.remove(&key).unwrap();
                        disk.release(&point).unwrap();
                        prop_assert!(!disk.consolidate().unwrap().blocked);
                    }
                }
                Step::Revert(n) => {
                    if let Some((point, bytes)) = kept.values().nth(n) {
                        disk.revert(point).unwrap();
                        now.clone_from(bytes);
                    }
                }
            }
            prop_assert!(running(&disk) == now);
            for (point, bytes) in kept.values() {
                prop_assert!(&content(&disk, point) == bytes);
            }
        }
        for (point, _) in kept.values() {
            disk.release(point).unwrap();
        }
        disk.consolidate().unwrap();
        prop_assert!(running(&disk) == now);
        prop_assert_eq!(disk.files().len(), 1, "one file is left when no snapshot is");
        prop_assert_eq!(disk.snapshots(), 0);
    }
}

#[test]
fn an_incremental_query_names_exactly_the_written_blocks() {
    let (_store, disk) = disk(&DiskOptions::default());
    disk.set_tracking(true);
    disk.stun();
    let first = disk.freeze().unwrap();
    disk.guest_write(BLOCK + 5, b"x").unwrap();
    disk.guest_write(CAPACITY as u64 - 1, b"y").unwrap();
    let second = disk.freeze().unwrap();
    disk.guest_write(0, b"after").unwrap();
    let areas = changed(&disk, &second, &first.change_id().unwrap());
    assert_eq!(areas, [BLOCK..2 * BLOCK, 10 * BLOCK..CAPACITY as u64]);
}

#[test]
fn stale_foreign_and_newer_ids_are_refused_and_so_is_a_start_at_the_end() {
    let (_store, disk) = disk(&DiskOptions::default());
    let untracked = disk.freeze().unwrap();
    assert_eq!(untracked.change_id(), None);
    assert!(matches!(disk.changed_areas(&untracked, "*", 0), Err(TrackingError::Stale { .. })));
    disk.set_tracking(true);
    disk.stun();
    let first = disk.freeze().unwrap();
    let second = disk.freeze().unwrap();
    let id = first.change_id().unwrap();
    for bad in ["", "x", "52/1", second.change_id().unwrap().as_str()] {
        assert!(matches!(disk.changed_areas(&first, bad, 0), Err(TrackingError::Stale { .. })), "{bad:?}");
    }
    assert!(matches!(disk.changed_areas(&second, &id, CAPACITY as i64), Err(TrackingError::StartOffset { .. })));
    assert!(matches!(disk.changed_areas(&second, &id, -1), Err(TrackingError::StartOffset { .. })));
    disk.reset_tracking();
    assert!(matches!(disk.changed_areas(&second, &id, 0), Err(TrackingError::Stale { .. })));
}

#[test]
fn an_open_layer_blocks_consolidation_until_it_is_closed() {
    let (_store, disk) = disk(&DiskOptions::default());
    let point = disk.freeze().unwrap();
    let handle = disk.open(point.node(), Access::ReadOnly).unwrap();
    disk.release(&point).unwrap();
    assert!(disk.consolidate().unwrap().blocked);
    assert!(disk.needs_consolidation());
    drop(handle);
    assert_eq!(disk.consolidate().unwrap().merged, 1);
    assert!(!disk.needs_consolidation());
}

#[test]
fn the_users_file_changes_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.img");
    std::fs::write(&path, vec![7u8; 300_000]).unwrap();
    let store = Datastore::temporary("ds1").unwrap();
    let cow = store.create_disk("web", 0, &DiskSource::Raw(path.clone()), &DiskOptions::default()).unwrap();
    assert_eq!(cow.capacity(), 300_032, "a disk has whole sectors");
    cow.guest_write(1000, b"secret").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), vec![7u8; 300_000]);
    let mut back = [0; 7];
    cow.guest_read(999, &mut back).unwrap();
    assert_eq!(&back, b"\x07secret");
    let mut tail = [1; 32];
    cow.guest_read(300_000, &mut tail).unwrap();
    assert_eq!(tail, [0; 32]);

    let even = dir.path().join("even.img");
    std::fs::write(&even, vec![7u8; 512 * 512]).unwrap();
    let mut options = DiskOptions::default();
    options.write_through = true;
    let direct = store.create_disk("db", 0, &DiskSource::Raw(even.clone()), &options).unwrap();
    let point = direct.freeze().unwrap();
    direct.guest_write(1000, b"secret").unwrap();
    assert_eq!(std::fs::read(&even).unwrap(), vec![7u8; 512 * 512], "the snapshot's layer takes the write");
    direct.release(&point).unwrap();
    direct.consolidate().unwrap();
    assert_eq!(&std::fs::read(&even).unwrap()[999..1006], b"\x07secret", "merging wrote it into the image");
}

#[test]
fn a_62_tb_disk_costs_what_was_written() {
    let store = Datastore::temporary("ds1").unwrap();
    let capacity = 68_169_720_922_112u64;
    let disk = store.create_disk("big", 0, &DiskSource::Empty(capacity), &DiskOptions::default()).unwrap();
    disk.set_tracking(true);
    disk.stun();
    let first = disk.freeze().unwrap();
    disk.guest_write(capacity - 512, &[9; 512]).unwrap();
    let second = disk.freeze().unwrap();
    let page = disk.changed_areas(&second, &first.change_id().unwrap(), 0).unwrap();
    assert_eq!((page.areas, page.length), (vec![capacity - BLOCK..capacity], capacity));
    assert_eq!(disk.changed_areas(&second, "*", 0).unwrap().areas, [capacity - BLOCK..capacity]);
    disk.grow(capacity + 512).unwrap_err();
}

#[test]
fn names_follow_the_host() {
    let (_store, disk) = disk(&DiskOptions::default());
    assert_eq!(disk.paths(disk.current()), ["[ds1] web/web.vmdk"]);
    let point = disk.freeze().unwrap();
    assert_eq!(disk.paths(disk.current()), ["[ds1] web/web-000001.vmdk", "[ds1] web/web.vmdk"]);
    assert_eq!(disk.paths(point.node()), ["[ds1] web/web.vmdk"]);
    disk.release(&point).unwrap();
    disk.consolidate().unwrap();
    assert_eq!(disk.paths(disk.current()), ["[ds1] web/web.vmdk"]);
}

#[test]
fn a_sparse_vmdk_is_a_base_whose_holes_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.vmdk");
    let capacity = 64 << 20;
    let image = vmdk::create(&path, &vmdk::CreateSpec::new(capacity, vmdk::CreateKind::MonolithicSparse)).unwrap();
    image.write_at(3 * BLOCK, &[5; 4096]).unwrap();
    image.close().unwrap();
    let before = std::fs::read(&path).unwrap();

    let store = Datastore::temporary("ds1").unwrap();
    let disk = store.create_disk("web", 0, &DiskSource::Vmdk(path.clone()), &DiskOptions::default()).unwrap();
    assert_eq!(disk.capacity(), capacity);
    disk.set_tracking(true);
    disk.stun();
    disk.guest_write(9 * BLOCK, b"x").unwrap();
    let point = disk.freeze().unwrap();
    assert_eq!(disk.changed_areas(&point, "*", 0).unwrap().areas, [3 * BLOCK..4 * BLOCK, 9 * BLOCK..10 * BLOCK]);
    let mut back = [0; 4097];
    disk.guest_read(3 * BLOCK, &mut back).unwrap();
    assert_eq!((&back[..4096], back[4096]), (&[5; 4096][..], 0));
    assert_eq!(disk.metadata("adapterType").as_deref(), Some("lsilogic"));
    assert!(std::fs::read(&path).unwrap() == before, "the user's file is as it was");
    assert!(store.create_disk("web", 1, &DiskSource::Vmdk("/nonexistent".into()), &DiskOptions::default()).is_err());
}

#[test]
fn a_directory_used_before_begins_empty() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = Datastore::at("ds1", dir.path()).unwrap();
        let disk = store.create_disk("web", 0, &DiskSource::Empty(CAPACITY as u64), &DiskOptions::default()).unwrap();
        assert!(running(&disk).iter().all(|byte| *byte == 0), "bytes of an earlier run showed up");
        disk.guest_write(BLOCK * 2, &[1; 100]).unwrap();
        assert_eq!(running(&disk)[BLOCK as usize * 2 + 100..].iter().filter(|byte| **byte != 0).count(), 0);
    }
    let store = Datastore::at("ds1", dir.path()).unwrap();
    assert!(store.create_disk("../x", 0, &DiskSource::Empty(512), &DiskOptions::default()).is_err());
    assert!(store.create_disk("x", 0, &DiskSource::Empty(u64::MAX), &DiskOptions::default()).is_err());
}
