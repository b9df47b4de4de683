//! Streams: everything but the grains is made again from the markers.

use std::fs;

use vmdk::{
    check::Problem,
    repair::{ActionKind, Repair},
};

use super::{different, options, qemu_agrees, readable, repair, whole};
use crate::{
    check::{
        Patch,
        streams::{front_image, image, marker_of},
    },
    support::peer,
};

fn mended(damage: impl FnOnce(&mut Patch)) -> (Vec<(ActionKind, u64)>, Vec<usize>) {
    super::mended(image, &[], damage)
}

#[test]
fn a_sound_stream_has_no_plan() {
    assert_eq!(mended(|_| {}), (vec![], vec![]));
}

#[test]
fn a_stream_without_its_end_gets_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let bytes = fs::read(&path).unwrap();
    let sound = whole(&path);
    let last = marker_of(&Patch::of(&path), 544) as usize * 512;
    for cut in [1, 512, 1024, 1536, 2048, 4096, 6000] {
        fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        let (actions, after) = repair(&path, &[]);
        assert_eq!(actions, [(ActionKind::RebuildTail, 1)], "{cut}");
        let lost = if bytes.len() - cut < last + 530 { vec![544] } else { vec![] };
        assert_eq!(different(&sound, &after), lost, "{cut}");
    }
    // Cut inside of a grain: those before it are all there.
    fs::write(&path, &bytes[..last - 50_000]).unwrap();
    let (_, after) = repair(&path, &[]);
    assert_eq!(different(&sound, &after), [512, 544]);
}

#[test]
fn tables_footer_and_header_are_made_again() {
    let footer = |patch: &Patch| patch.bytes.len() as u64 - 1024;
    let rebuilt = (vec![(ActionKind::RebuildTail, 1)], vec![]);
    assert_eq!(mended(|patch| patch.set(footer(patch), 0)), rebuilt);
    assert_eq!(mended(|patch| patch.set(footer(patch) + 56, 0x00ff_ffff)), rebuilt);
    assert_eq!(mended(|patch| patch.set(footer(patch) + 12, 4096)), rebuilt);
    let end = |patch: &mut Patch| patch.bytes.truncate(patch.bytes.len() - 512);
    assert_eq!(mended(end), rebuilt);
    let header = mended(|patch| patch.bytes[20] = 127);
    assert_eq!(header, (vec![(ActionKind::RestoreHeader, 1)], vec![]));
    let header = mended(|patch| patch.bytes[..80].fill(0));
    assert_eq!(header, (vec![(ActionKind::RestoreHeader, 1)], vec![]));
    // A header that is possible, and wrong: the footer fits the markers.
    let header = mended(|patch| patch.set(12, 4096));
    assert_eq!(header, (vec![(ActionKind::RestoreHeader, 1), (ActionKind::RebuildTail, 1)], vec![]));
}

#[test]
fn damage_between_grains_costs_only_the_damaged_grain() {
    let (actions, lost) = mended(|patch| patch.set(marker_of(patch, 2) * 512 + 8, u32::MAX));
    assert_eq!((actions, lost), (vec![(ActionKind::RebuildTail, 1), (ActionKind::BridgeDamage, 1)], vec![2]));
}

#[test]
fn damaged_data_stay_an_error_and_never_become_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let sound = readable(&path);
    let mut patch = Patch::of(&path);
    let (from, to) = (marker_of(&patch, 1) as usize * 512 + 20, marker_of(&patch, 3) as usize * 512);
    patch.bytes[from..to].fill(0);
    patch.bytes.truncate(patch.bytes.len() - 700);
    patch.save();
    let left = Repair::plan(&path, &options()).unwrap().apply_in_place().unwrap();
    // The marker of grain 1 is still there, that of 2 is not.
    assert_eq!(left.counts().collect::<Vec<_>>(), [(Problem::GrainDamaged, 1)]);
    let after = readable(&path);
    let lost: Vec<_> = (0..after.len()).filter(|grain| after[*grain] != sound[*grain]).collect();
    assert_eq!((lost.as_slice(), after[1].is_none()), (&[1, 2][..], true));
}

#[test]
fn a_forward_reader_gets_over_a_bridge() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    patch.set(marker_of(&patch, 2) * 512 + 8, u32::MAX);
    patch.save();
    repair(&path, &[]);
    let file = fs::File::open(&path).unwrap();
    let mut reader = vmdk::stream::StreamReader::open(file, "s.vmdk").unwrap();
    let mut grains = Vec::new();
    while let Some(grain) = reader.next_grain().unwrap() {
        grains.push(grain.offset / 65536);
    }
    assert_eq!(grains, [0, 1, 3, 512, 544]);
}

#[test]
fn tables_in_front_are_repaired_from_markers() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = front_image(dir.path());
    // An entry of zero reads as zeros, until it is found that there is a grain.
    let mended = |damage: &dyn Fn(&mut Patch)| super::mended(front_image, &[3, 512], damage);
    assert_eq!(mended(&|_| {}), (vec![], vec![]));
    assert_eq!(mended(&|patch| patch.set_grain(3, 0)), (vec![(ActionKind::RestoreEntries, 1)], vec![]));
    assert_eq!(mended(&|patch| patch.set_grain(3, 0x00ff_ffff)), (vec![(ActionKind::RestoreEntries, 1)], vec![]));
    let tables = |patch: &mut Patch| (0..2).for_each(|copy| patch.set(patch.directory_entry(copy, 1), 0x00ff_ffff));
    let (actions, lost) = mended(&tables);
    assert!(actions.contains(&(ActionKind::RestoreTables, 1)), "{actions:?}");
    assert_eq!(lost, Vec::<usize>::new());
    let last = Patch::of(&path).word(Patch::of(&path).grain_entry(0, 544)) as usize * 512;
    let (actions, lost) = mended(&|patch| patch.bytes.truncate(last + 50));
    assert_eq!(actions, [(ActionKind::DropEntries, 1), (ActionKind::CutTail, 1)]);
    assert_eq!(lost, [544]);
    qemu_agrees(&path);
}

/// Damage to one place of a stream must not cost grains that tables still lead to.
fn loses_at_most(lost: &[usize], damage: impl FnOnce(&mut Patch)) {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let sound = readable(&path);
    let start = fs::read(&path).unwrap()[512..1536].to_vec();
    let mut patch = Patch::of(&path);
    damage(&mut patch);
    patch.save();
    Repair::plan(&path, &options()).unwrap().apply_in_place().unwrap();
    let after = readable(&path);
    let different: Vec<_> = (0..sound.len()).filter(|grain| after.get(*grain) != Some(&sound[*grain])).collect();
    assert_eq!(different, lost);
    assert!(fs::read(&path).unwrap()[512..1536] == start, "the descriptor was overwritten");
    let again = Repair::plan(&path, &options()).unwrap();
    assert!(again.actions().is_empty(), "{:?}", again.actions());
}

#[test]
fn a_size_that_swallows_the_next_grain_costs_nothing() {
    // Each grain has some 65 600 bytes: this one claims half of the next too. Its own data end where they did.
    loses_at_most(&[], |patch| patch.set(marker_of(patch, 1) * 512 + 8, 100_000));
}

#[test]
fn a_header_that_is_wrong_about_the_beginning_of_the_data_costs_nothing() {
    for overhead in [0, 1, 2, 5, 300, 0x00ff_ffff] {
        loses_at_most(&[], |patch| patch.set(64, overhead));
    }
}
