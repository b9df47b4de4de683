//! Damage by hand in hosted sparse images, each with the finding that tells of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use vmdk::{
    CreateKind, CreateSpec,
    check::{CheckOptions, Finding, Problem, Severity, check},
    create,
};

use super::{Patch, assert_clean, deep, problems};
use crate::support::{Random, peer};

const CAPACITY: u64 = (100 << 20) + 512;

/// A sparse disk with grains 0 to 3, 512, 513 and the last (short) one, 1600.
pub(crate) fn image(dir: &Path) -> PathBuf {
    let path = dir.join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(CAPACITY, CreateKind::MonolithicSparse)).unwrap();
    let mut random = Random::new(2);
    disk.write_at(0, &random.bytes(4 * 65536)).unwrap();
    disk.write_at(32 << 20, &random.bytes(2 * 65536)).unwrap();
    disk.write_at(CAPACITY - 512, &random.bytes(512)).unwrap();
    disk.close().unwrap();
    path
}

/// Damages an image and returns the kinds found, with the first finding.
fn found(damage: impl FnOnce(&mut Patch)) -> (Vec<(Problem, u64)>, Finding) {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    damage(&mut patch);
    patch.save();
    let report = deep(&path);
    let first = report.findings().next().expect("the damage was not found").clone();
    (problems(&report), first)
}

#[test]
fn the_undamaged_image_is_clean_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let report = deep(&image(dir.path()));
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.usage().grains, report.usage().leaked, report.worst()), (7, 0, None));
}

#[test]
fn a_grain_behind_the_end_of_the_file() {
    let (kinds, first) = found(|patch| patch.set_grain(2, 0x00ff_ff00));
    // Its old place is used by nothing now.
    assert_eq!(kinds, [(Problem::GrainOutside, 1), (Problem::Leaked, 1)]);
    assert_eq!((first.place.grain, first.place.table, first.place.sector), (Some(2), Some(0), Some(0x00ff_ff00)));
    assert_eq!(first.severity(), Severity::Damaged);
}

#[test]
fn a_file_that_was_cut() {
    let (kinds, _) = found(|patch| {
        let len = patch.bytes.len() - 65536 - 100;
        patch.bytes.truncate(len);
    });
    assert_eq!(kinds, [(Problem::GrainOutside, 2)]);
    // The last grain needs one sector only.
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    let len = patch.bytes.len() - 65536 + 512;
    patch.bytes.truncate(len);
    patch.save();
    assert_clean(&path);
}

#[test]
fn two_grains_at_one_place() {
    let (kinds, first) = found(|patch| {
        let other = patch.word(patch.grain_entry(0, 1));
        patch.set_grain(513, other);
    });
    assert_eq!(kinds, [(Problem::GrainOverlap, 1), (Problem::Leaked, 1)]);
    assert_eq!(first.place.grain, Some(513));
    // Also when they share some sectors only.
    let (kinds, _) = found(|patch| {
        let other = patch.word(patch.grain_entry(0, 1));
        patch.set_grain(512, other + 8);
    });
    assert_eq!(kinds, [(Problem::GrainOverlap, 1), (Problem::GrainUnaligned, 1), (Problem::Leaked, 1)]);
}

#[test]
fn a_grain_on_metadata() {
    for sector in [5, 21, 22] {
        let (kinds, _) = found(|patch| patch.set_grain(1, sector));
        assert!(kinds.contains(&(Problem::GrainInMetadata, 1)), "{kinds:?}");
    }
}

#[test]
fn tables_that_differ_with_a_verdict() {
    let (kinds, first) = found(|patch| patch.set(patch.grain_entry(1, 3), 0x00ff_ff00));
    assert_eq!(kinds, [(Problem::TablesDiffer, 1)]);
    assert!(first.detail.contains("the first is right"), "{}", first.detail);
    let (_, first) = found(|patch| patch.set(patch.grain_entry(0, 3), 0x00ff_ff00));
    assert!(first.detail.contains("the redundant one is right"), "{}", first.detail);
}

#[test]
fn tables_outside_of_the_file_or_on_each_other() {
    let (kinds, first) = found(|patch| patch.set(patch.directory_entry(0, 1), 0x7fff_ffff));
    // The redundant table still tells where the grains are: nothing leaks.
    assert_eq!(kinds, [(Problem::TableOutside, 1)]);
    assert_eq!(first.place.table, Some(1));
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(0, 2), patch.word(patch.directory_entry(0, 1))));
    assert_eq!(kinds, [(Problem::TableOverlap, 1)]);
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(0, 2), 1));
    assert_eq!(kinds, [(Problem::TableOverlap, 1)]);
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(1, 2), 1));
    assert_eq!(kinds, [(Problem::RedundantTableLost, 1)]);
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(1, 2), patch.word(patch.directory_entry(0, 2))));
    assert_eq!(kinds, [(Problem::NotRedundant, 1)]);
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(0, 1), 0));
    assert_eq!(kinds, [(Problem::TableMissing, 1)]);
    let (kinds, _) = found(|patch| patch.set(patch.directory_entry(1, 1), 0));
    assert_eq!(kinds, [(Problem::RedundantTableLost, 1)]);
}

#[test]
fn directories_outside_of_the_file() {
    let (kinds, first) = found(|patch| patch.set(56, 0x7fff_ffff));
    assert_eq!((kinds.as_slice(), first.severity()), (&[(Problem::DirectoryOutside, 1)][..], Severity::CannotOpen));
    let (kinds, _) = found(|patch| patch.set(48, 0));
    assert_eq!(kinds, [(Problem::RedundantDirectoryOutside, 1)]);
    let (kinds, _) = found(|patch| patch.set(48, patch.header().directory_sector as u32));
    assert_eq!(kinds, [(Problem::NotRedundant, 1)]);
}

#[test]
fn entries_behind_the_end_of_the_disk() {
    let (kinds, _) = found(|patch| patch.set_grain(1601, 128));
    assert_eq!(kinds, [(Problem::EntryBeyondEnd, 1)]);
}

#[test]
fn the_mark_of_an_open_file() {
    let (kinds, first) = found(|patch| patch.bytes[72] = 1);
    assert_eq!((kinds.as_slice(), first.severity()), (&[(Problem::UncleanShutdown, 1)][..], Severity::Harmless));
}

#[test]
fn a_grain_that_no_table_knows() {
    let (kinds, first) = found(|patch| patch.bytes.extend_from_slice(&[7; 65536]));
    assert_eq!((kinds.as_slice(), first.severity()), (&[(Problem::Leaked, 1)][..], Severity::Leak));
    let (kinds, _) = found(|patch| patch.set_grain(2, 0));
    assert_eq!(kinds, [(Problem::Leaked, 1)]);
}

#[test]
fn headers_that_cannot_be() {
    assert_eq!(found(|patch| patch.bytes[75] = b'\n').0, [(Problem::TextTransfer, 1)]);
    assert_eq!(found(|patch| patch.bytes[4] = 9).0, [(Problem::NotSupported, 1)]);
    assert_eq!(found(|patch| patch.bytes[20] = 127).0, [(Problem::HeaderDamaged, 1)]);
    assert_eq!(found(|patch| patch.bytes[0] = b'X').0, [(Problem::NotAnImage, 1)]);
    assert_eq!(found(|patch| patch.bytes.truncate(300)).0, [(Problem::HeaderDamaged, 1)]);
    assert_eq!(found(|patch| patch.bytes.truncate(0)).0, [(Problem::NotAnImage, 1)]);
    let (kinds, _) = found(|patch| patch.set(28, 0x7fff_ffff));
    assert_eq!(kinds[0], (Problem::DescriptorDamaged, 1));
    // A capacity of 12 MiB more than the descriptor says, in the same number of tables.
    let (kinds, _) = found(|patch| patch.set(12, patch.word(12) + (12 << 11)));
    assert_eq!(kinds, [(Problem::ExtentLarger, 1)]);
    let (kinds, _) = found(|patch| patch.set(12, patch.word(12) - 1));
    assert!(kinds.contains(&(Problem::SizeMismatch, 1)), "{kinds:?}");
}

#[test]
fn lines_of_the_descriptor_that_cannot_be() {
    let replace = |from: &str, to: &str| {
        found(|patch| {
            let at = patch.bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            patch.bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        })
    };
    assert_eq!(replace("parentCID=ffff", "parentCID=zzzz").0, [(Problem::DescriptorDamaged, 1)]);
    assert_eq!(replace("RW 2048", "RW xx48").0, [(Problem::DescriptorDamaged, 1)]);
    assert_eq!(replace("parentCID=ffff", "parentCID=aaaa").0, [(Problem::NoParentHint, 1)]);
}

#[test]
fn a_report_stays_small_and_its_counts_stay_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    (0..1600).for_each(|grain| patch.set_grain(grain, 0x00ff_0000));
    patch.save();
    let report = check(&path, &CheckOptions::new().findings_per_kind(3)).unwrap();
    assert_eq!(report.count(Problem::GrainOutside), 1600);
    assert_eq!(report.findings().filter(|finding| finding.problem == Problem::GrainOutside).count(), 3);
    assert!(report.to_string().contains("1600 x GrainOutside (damaged data)"));
}

#[test]
fn qemu_img_agrees_wherever_it_can_judge() {
    if !peer("qemu-img") {
        return;
    }
    // All that its check looks at in a sparse extent is whether a grain begins inside of the file.
    let verdicts = |damage: &dyn Fn(&mut Patch)| {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        let mut patch = Patch::of(&path);
        damage(&mut patch);
        patch.save();
        let judged = Command::new("qemu-img").args(["check", "-f", "vmdk"]).arg(&path).output().unwrap();
        (deep(&path).worst() >= Some(Severity::Damaged), !judged.status.success())
    };
    assert_eq!(verdicts(&|_| {}), (false, false));
    assert_eq!(verdicts(&|patch| patch.set_grain(2, 0x00ff_ff00)), (true, true));
    assert_eq!(verdicts(&|patch| patch.bytes.truncate(patch.bytes.len() - 65536 - 100)), (true, true));
    assert_eq!(verdicts(&|patch| patch.bytes[4] = 9), (true, true));
    // What it does not look at.
    let (ours, _) = verdicts(&|patch| patch.set_grain(513, patch.word(patch.grain_entry(0, 1))));
    assert!(ours);
}
