//! Any sequence of operations on a disk of this machine reads as the same on an array of bytes.

use std::ops::Range;

use proptest::prelude::*;
use vixdisklib::{Access, Connection, CreateSpec, DiskKind, OpenOptions};

use crate::images::within;

/// Three grains and a half, so that edges are met often.
const CAPACITY: u64 = 3 * 65536 + 32768;

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
    Read(Range<u64>),
    Flush,
    Shrink,
    Defragment,
    Reopen,
    Child,
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..=CAPACITY, 0..=CAPACITY).prop_map(|(a, b)| a.min(b)..a.max(b))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (range(), any::<u8>()).prop_map(|(range, byte)| {
            Step::Write(range.start, vec![byte; (range.end - range.start) as usize])
        }),
        2 => range().prop_map(Step::Zero),
        3 => range().prop_map(Step::Read),
        1 => Just(Step::Flush),
        1 => Just(Step::Shrink),
        1 => Just(Step::Defragment),
        1 => Just(Step::Reopen),
        1 => Just(Step::Child),
    ]
}

fn kind() -> impl Strategy<Value = DiskKind> {
    proptest::sample::select(vec![DiskKind::MonolithicSparse, DiskKind::MonolithicFlat, DiskKind::SplitSparse])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_is_an_array_of_bytes(kind in kind(), steps in proptest::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(kind, steps));
    }
}

async fn play(kind: DiskKind, steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::local(Access::ReadWrite);
    let mut path = within(&folder, "0.vmdk");
    connection.create(&path, &CreateSpec::new(kind, CAPACITY)).await.unwrap();
    let mut disk = connection.open(&path).await.unwrap();
    let mut model = vec![0; CAPACITY as usize];
    let mut children = 0;
    let span = |range: &Range<u64>| range.start as usize..range.end as usize;
    for step in steps {
        match step {
            Step::Write(offset, data) => {
                model[offset as usize..][..data.len()].copy_from_slice(&data);
                disk.write_at(offset, data.into()).await.unwrap();
            }
            Step::Zero(range) => {
                model[span(&range)].fill(0);
                disk.zero_range(range).await.unwrap();
            }
            Step::Read(range) => {
                let len = (range.end - range.start) as usize;
                assert!(disk.read_at(range.start, len).await.unwrap() == model[span(&range)], "{range:?}");
            }
            Step::Flush => disk.flush().await.unwrap(),
            Step::Shrink => disk.shrink(None).await.unwrap(),
            // Only base disks in one file.
            Step::Defragment => drop(disk.defragment(None).await),
            Step::Reopen => {
                disk.close().await.unwrap();
                disk = connection.open(&path).await.unwrap();
            }
            Step::Child => {
                children += 1;
                let child = within(&folder, &format!("{children}.vmdk"));
                disk.create_child(&child, DiskKind::MonolithicSparse, None).await.unwrap();
                disk.close().await.unwrap();
                // Attached by hand, or opened by its descriptor: the same.
                disk = if children % 2 == 0 {
                    let alone = connection.open_with(&*child, OpenOptions::new().single_link(true)).await.unwrap();
                    let below = OpenOptions::new().access(Access::ReadOnly);
                    let parent = connection.open_with(&*path, below).await.unwrap();
                    vixdisklib::Disk::attach(&parent, &alone).await.unwrap();
                    parent.close().await.unwrap();
                    alone
                } else {
                    connection.open(&child).await.unwrap()
                };
                path = child;
            }
        }
    }
    let allocation = disk.allocated(0..CAPACITY).await.unwrap();
    let mut at = 0;
    for area in allocation.areas.iter().cloned().chain([CAPACITY..CAPACITY]) {
        assert!(model[at..area.start as usize].iter().all(|byte| *byte == 0), "a hole before {area:?} has data");
        at = area.end as usize;
    }
    assert!(disk.read_at(0, CAPACITY as usize).await.unwrap() == model);
    disk.close().await.unwrap();
    assert!(connection.check_repair(&path, false).await.unwrap().is_clean());
}
