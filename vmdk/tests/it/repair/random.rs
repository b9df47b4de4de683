//! Random damage: a repair ends, loses nothing, and leaves nothing to repair.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use proptest::prelude::*;
use vmdk::{
    Disk, OpenOptions, Resolver,
    check::{CheckOptions, Severity},
    repair::Repair,
};

use crate::{
    check::{damage, streams},
    support::MemFiles,
};

fn grains(files: &Arc<MemFiles>) -> Vec<Option<Vec<u8>>> {
    let options = OpenOptions::new().resolver(Arc::clone(files) as Arc<dyn Resolver>);
    let Ok(disk) = Disk::open("s.vmdk", &options) else { return Vec::new() };
    // Those with data, and some without.
    let count = disk.capacity().div_ceil(65536);
    let some = (0..20).chain(505..550).chain(700..720).chain([1024, 1600]).filter(|grain| *grain < count);
    some.map(|grain| {
        let mut buf = vec![0; (disk.capacity() - grain * 65536).min(65536) as usize];
        disk.read_at(grain * 65536, &mut buf).ok().map(|()| buf)
    })
    .collect()
}

fn mend(bytes: &[u8]) {
    let files = MemFiles::with(&[("s.vmdk", bytes)]);
    let options = CheckOptions::new().resolver(Arc::clone(&files) as Arc<dyn Resolver>);
    let before = grains(&files);
    let plan = Repair::plan("s.vmdk", &options).unwrap();
    if plan.actions().is_empty() {
        return;
    }
    let left = plan.apply_in_place().unwrap();
    let after = grains(&files);
    for (grain, was) in before.iter().enumerate() {
        // What reads as zeros may come back, and tables that two entries share are taken from their copies.
        let was_data = was.as_ref().is_some_and(|was| was.iter().any(|&byte| byte != 0));
        let shared = plan.actions().iter().any(|action| action.kind == vmdk::repair::ActionKind::RestoreTables);
        assert!(!was_data || shared || after.get(grain) == Some(was), "grain {grain} was changed: {plan:?}");
    }
    let again = Repair::plan("s.vmdk", &options).unwrap();
    assert!(again.actions().is_empty(), "{:?} after {:?}", again.actions(), plan.actions());
    let has_directory = plan.report().worst() < Some(Severity::CannotOpen);
    assert!(!has_directory || left.worst() < Some(Severity::Damaged), "{left} after {:?}", plan.actions());
}

fn read(once: &OnceLock<Vec<u8>>, make: fn(&Path) -> PathBuf) -> Vec<u8> {
    let read = || {
        let dir = tempfile::tempdir().unwrap();
        std::fs::read(make(dir.path())).unwrap()
    };
    once.get_or_init(read).clone()
}

static SPARSE: OnceLock<Vec<u8>> = OnceLock::new();
static STREAM: OnceLock<Vec<u8>> = OnceLock::new();

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn entries_of_sparse_extents(
        damage in prop::collection::vec((0_usize..4, 0_usize..1700, 0_u32..2000), 1..20),
    ) {
        let mut bytes = read(&SPARSE, damage::image);
        let header = vmdk::layout::SparseHeader::parse(bytes[..512].try_into().unwrap(), "test").unwrap();
        let places = [
            header.directory_sector as usize * 512,
            header.redundant_directory_sector as usize * 512,
            (header.directory_sector as usize + 1) * 512,
            (header.redundant_directory_sector as usize + 1) * 512,
        ];
        for (which, index, value) in damage {
            let index = if which < 2 { index % 4 } else { index };
            let at = places[which] + index * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        mend(&bytes);
    }

    #[test]
    fn bytes_of_streams(
        damage in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 0..6),
        cut in 0_usize..200_000,
    ) {
        let mut bytes = read(&STREAM, streams::image);
        let start = 128 * 512;
        for (at, value) in damage {
            let at = start + ((bytes.len() - start) as f64 * at) as usize;
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.saturating_sub(100_000));
        mend(&bytes);
    }
}
