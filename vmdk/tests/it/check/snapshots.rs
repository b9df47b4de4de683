//! ESXi's snapshot formats: sound ones are clean, damaged ones are not.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use vmdk::{
    Handle, MemSource, ReadAt,
    check::{CheckOptions, Problem, Report, check_source},
};

use crate::support::snapshot::{Snapshot, Stored};

fn report(bytes: Vec<u8>) -> Report {
    let source: Arc<dyn ReadAt> = Arc::new(MemSource::new(bytes));
    check_source("s-delta.vmdk", Handle::ReadOnly(source), &CheckOptions::new().memory_bytes(0)).unwrap()
}

fn snapshot(grain_sectors: u64) -> Snapshot {
    let grains = [0, 1, 2, 4095, 4096, 5000].map(|grain| (grain, Stored::Data(grain + 1)));
    Snapshot { sectors: 5001 * grain_sectors, grain_sectors, grains: BTreeMap::from(grains), order: 3 }
}

fn kinds(mut bytes: Vec<u8>, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<(Problem, u64)> {
    damage(&mut bytes);
    report(bytes).counts().collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn set(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn damaged_redo_logs() {
    let image = snapshot(1).cowd();
    let clean = report(image.clone());
    assert!(clean.is_clean(), "{clean}");
    assert_eq!(clean.usage().grains, 6);
    let table = word(&image, 2048) as usize * 512;
    let damaged = |damage: &dyn Fn(&mut Vec<u8>)| kinds(image.clone(), damage);
    assert_eq!(damaged(&|bytes| set(bytes, 28, 5)), [(Problem::FreeSectorWrong, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, 28, u32::MAX)), [(Problem::FreeSectorWrong, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, 24, 1)), [(Problem::HeaderDamaged, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, 1648, 1)), [(Problem::UncleanShutdown, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, 4, 2)), [(Problem::NotSupported, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, 2052, 0x7fff_ffff))[0], (Problem::TableOutside, 1));
    assert_eq!(damaged(&|bytes| bytes.copy_within(table..table + 4, table + 4))[0], (Problem::GrainOverlap, 1));
    assert_eq!(damaged(&|bytes| set(bytes, table, 0x7fff_ffff))[0], (Problem::GrainOutside, 1));
    assert_eq!(damaged(&|bytes| set(bytes, table, 4))[0], (Problem::GrainInMetadata, 1));
    assert_eq!(damaged(&|bytes| set(bytes, table, 0)), [(Problem::Leaked, 1)]);
    assert_eq!(damaged(&|bytes| bytes.truncate(1000)), [(Problem::HeaderDamaged, 1)]);
}

#[test]
fn damaged_space_efficient_extents() {
    let mut snapshot = snapshot(8);
    snapshot.grains.insert(7, Stored::Zero);
    snapshot.grains.insert(8, Stored::Unmapped);
    let image = snapshot.sesparse();
    let clean = report(image.clone());
    assert!(clean.is_clean(), "{clean}");
    assert_eq!(clean.usage().grains, 6);
    let damaged = |damage: &dyn Fn(&mut Vec<u8>)| kinds(image.clone(), damage);
    let directory = word(&image, 128) as usize * 512;
    let table = (word(&image, 144) + word(&image, directory) * 64) as usize * 512;
    assert_eq!(damaged(&|bytes| bytes[512 + 24] = 1), [(Problem::JournalPending, 1)]);
    assert_eq!(damaged(&|bytes| bytes[512] = 1), [(Problem::HeaderDamaged, 1)]);
    assert_eq!(damaged(&|bytes| bytes[40] = 1), [(Problem::NotSupported, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, directory, 9)), [(Problem::TableOutside, 1)]);
    assert_eq!(damaged(&|bytes| set(bytes, directory + 4, 9)), [(Problem::TableOutside, 1)]);
    assert_eq!(
        damaged(&|bytes| bytes.copy_within(directory + 8..directory + 16, directory)),
        [(Problem::TableOverlap, 1)]
    );
    assert_eq!(damaged(&|bytes| set(bytes, table, u32::MAX)), [(Problem::GrainOutside, 1)]);
    assert_eq!(damaged(&|bytes| bytes[table + 7] = 0x90), [(Problem::GrainOutside, 1)]);
    let copied = damaged(&|bytes| bytes.copy_within(table..table + 8, table + 24));
    assert_eq!(copied, [(Problem::GrainOverlap, 1)]);
    let beyond = damaged(&|bytes| {
        let last = (word(bytes, 144) + word(bytes, directory + 8) * 64) as usize * 512 + 8 * 905;
        bytes[last] = 1;
    });
    assert_eq!(beyond, [(Problem::EntryBeyondEnd, 1)]);
    assert_eq!(damaged(&|bytes| bytes.truncate(bytes.len() - 1)), [(Problem::GrainOutside, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_is_in_them_a_check_ends(
        sesparse in any::<bool>(),
        damage in prop::collection::vec((0_usize..1 << 16, any::<u8>()), 1..20),
        len in 0.0..1.0_f64,
    ) {
        let mut bytes = if sesparse { snapshot(8).sesparse() } else { snapshot(1).cowd() };
        bytes.truncate((bytes.len() as f64 * (len + 0.5)) as usize);
        for (at, value) in damage {
            let at = at % bytes.len().clamp(1, 6000);
            bytes[at] = value;
        }
        report(bytes);
    }
}
