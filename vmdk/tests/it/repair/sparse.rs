//! Hosted sparse extents.

use std::{fs, path::Path};

use vmdk::{
    CreateKind, CreateSpec,
    check::{Problem, check},
    create,
    repair::{ActionKind, Repair},
};

use super::{different, options, readable, repair, whole};
use crate::{
    check::{Patch, damage::image},
    support::{Random, peer, run},
};

fn mended(believed_wrong: &[usize], damage: impl FnOnce(&mut Patch)) -> (Vec<(ActionKind, u64)>, Vec<usize>) {
    super::mended(image, believed_wrong, damage)
}

#[test]
fn a_sound_image_has_no_plan() {
    assert_eq!(mended(&[], |_| {}), (vec![], vec![]));
}

#[test]
fn the_redundant_table_gives_back_what_the_first_lost() {
    let (actions, lost) = mended(&[], |patch| patch.set(patch.grain_entry(0, 3), 0x00ff_ff00));
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreEntries, 1)], vec![]));
    // Zeros look like a grain that was never written: here it was, as the other table knows.
    let (actions, lost) = mended(&[2], |patch| patch.set(patch.grain_entry(0, 2), 0));
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreEntries, 1)], vec![]));
    let (actions, lost) = mended(&[], |patch| patch.set(patch.directory_entry(0, 1), 0x7fff_ffff));
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 1)], vec![]));
    let table_1: Vec<_> = (512..1024).collect();
    let (actions, lost) = mended(&table_1, |patch| patch.set(patch.directory_entry(0, 1), 0));
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 1)], vec![]));
    let (actions, lost) = mended(&[], |patch| patch.set(56, 0x7fff_ffff));
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 4), (ActionKind::RestoreDirectory, 1)], vec![]));
}

#[test]
fn the_first_table_gives_back_what_the_redundant_lost() {
    let (actions, lost) = mended(&[], |patch| patch.set(patch.grain_entry(1, 3), 0x00ff_ff00));
    assert_eq!((actions, lost), (vec![(ActionKind::MatchCopies, 1)], vec![]));
    let (actions, lost) = mended(&[], |patch| patch.set(patch.directory_entry(1, 1), 0x7fff_ffff));
    assert_eq!((actions, lost), (vec![(ActionKind::MakeCopies, 1)], vec![]));
    let (actions, lost) = mended(&[], |patch| patch.set(48, 0));
    let expected = vec![(ActionKind::MakeCopies, 4), (ActionKind::MakeRedundantDirectory, 1)];
    assert_eq!((actions, lost), (expected, vec![]));
    let (actions, _) = mended(&[], |patch| patch.set(48, patch.header().directory_sector as u32));
    assert_eq!(actions, [(ActionKind::MakeCopies, 4), (ActionKind::MakeRedundantDirectory, 1)]);
}

#[test]
fn a_table_that_two_entries_share_is_taken_from_its_copies() {
    let damage = |patch: &mut Patch| patch.set(patch.directory_entry(0, 0), patch.word(patch.directory_entry(0, 1)));
    // The grains of table 0 read as those of table 1 until then.
    let (actions, lost) = mended(&(0..512).collect::<Vec<_>>(), damage);
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 2)], vec![]));
}

#[test]
fn directory_entries_that_lead_into_data_or_to_a_copy_cost_no_data() {
    let table_0: Vec<_> = (0..512).collect();
    let (actions, lost) = mended(&table_0, |patch| {
        let grain = patch.word(patch.grain_entry(0, 512));
        patch.set(patch.directory_entry(0, 0), grain + 5);
    });
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 1)], vec![]));
    let (actions, lost) = mended(&table_0, |patch| {
        patch.set(patch.directory_entry(0, 0), patch.word(patch.directory_entry(1, 1)));
    });
    assert_eq!((actions, lost), (vec![(ActionKind::RestoreTables, 1), (ActionKind::MakeCopies, 1)], vec![]));
    let (actions, lost) = mended(&[], |patch| {
        let grain = patch.word(patch.grain_entry(0, 512));
        patch.set(patch.directory_entry(1, 0), grain + 5);
    });
    assert_eq!((actions, lost), (vec![(ActionKind::MakeCopies, 1)], vec![]));
}

#[test]
fn grains_at_one_place_get_a_copy_each() {
    let (actions, lost) = mended(&[], |patch| patch.set_grain(513, patch.word(patch.grain_entry(0, 1))));
    assert_eq!((actions, lost), (vec![(ActionKind::MoveGrains, 1)], vec![513]));
    let (actions, lost) = mended(&[], |patch| patch.set_grain(512, patch.word(patch.grain_entry(0, 1)) + 8));
    assert_eq!((actions, lost), (vec![(ActionKind::MoveGrains, 1)], vec![512]));
    // It reads metadata, and a write to it would destroy them.
    let (actions, lost) = mended(&[], |patch| patch.set_grain(1, 22));
    assert_eq!((actions, lost), (vec![(ActionKind::MoveGrains, 1)], vec![1]));
}

#[test]
fn what_is_outside_of_the_file_is_dropped_when_no_table_knows_better() {
    let (actions, lost) = mended(&[], |patch| patch.set_grain(2, 0x00ff_ff00));
    assert_eq!((actions, lost), (vec![(ActionKind::DropEntries, 1)], vec![2]));
    let (actions, lost) = mended(&[], |patch| {
        (0..2).for_each(|copy| patch.set(patch.directory_entry(copy, 1), 0x7fff_ffff));
    });
    assert_eq!((actions, lost), (vec![(ActionKind::DropTables, 1)], vec![512, 513]));
}

#[test]
fn a_cut_file_keeps_the_beginning_of_its_last_grain() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let sound = whole(&path);
    let mut patch = Patch::of(&path);
    // The short last grain of the disk is gone, half of the one before it, too.
    let len = patch.bytes.len() - 65536 - 32768;
    patch.bytes.truncate(len);
    patch.save();
    let (actions, after) = repair(&path, &[]);
    assert_eq!(actions, [(ActionKind::CompleteGrains, 1), (ActionKind::DropEntries, 1)]);
    assert_eq!(different(&sound, &after), [513, 1600]);
    assert!(after[513][..32768] == sound[513][..32768] && after[513][32768..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_mark_of_an_open_file_is_cleared_when_all_else_is_sound() {
    let (actions, lost) = mended(&[], |patch| patch.bytes[72] = 1);
    assert_eq!((actions, lost), (vec![(ActionKind::ClearUnclean, 1)], vec![]));
}

#[test]
fn what_cannot_be_repaired_is_left_alone() {
    for damage in [75, 20, 0] {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path());
        let mut patch = Patch::of(&path);
        patch.bytes[damage] ^= 0x55;
        let bytes = patch.bytes.clone();
        patch.save();
        let plan = Repair::plan(&path, &options()).unwrap();
        assert!(plan.actions().is_empty() && !plan.report().is_clean());
        plan.apply_in_place().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
    }
}

#[test]
fn a_copy_overwrites_nothing_and_leaves_nothing_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let copies = tempfile::tempdir().unwrap();
    fs::write(copies.path().join("s.vmdk"), "mine").unwrap();
    let plan = Repair::plan(&path, &options()).unwrap();
    assert!(plan.apply_to_copy(copies.path()).is_err());
    assert!(plan.apply_to_copy(copies.path().join("not there").join("\0")).is_err());
    assert_eq!(fs::read(copies.path().join("s.vmdk")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(copies.path()).unwrap().count(), 1);
}

#[test]
fn a_file_of_several_windows_keeps_what_was_moved_in_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    let shared = patch.word(patch.grain_entry(0, 1));
    patch.set_grain(513, shared);
    // Two of table 0, whose first copy is lost, are in the second window.
    let behind = (2 << 30) / 512 + 128;
    (4..6).for_each(|grain| patch.set_grain(grain, behind));
    let first = patch.directory_entry(0, 0);
    patch.set(first, 0x7fff_ffff);
    patch.save();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len((2 << 30) + (2 << 20)).unwrap();
    let before = readable(&path);
    let options = options().memory_bytes(0);
    let left = Repair::plan(&path, &options).unwrap().apply_in_place().unwrap();
    assert_eq!(left.counts().filter(|(kind, _)| *kind != Problem::Leaked).count(), 0, "{left}");
    let after = whole(&path);
    let lost = |grain: &usize| before[*grain].as_ref().is_some_and(|was| *was != after[*grain]);
    assert_eq!((512..after.len()).filter(lost).count(), 0);
    assert!(after[513] == after[1] && after[513].iter().any(|byte| *byte != 0));
    assert!(Repair::plan(&path, &options).unwrap().actions().is_empty());
}

#[test]
fn a_copy_never_leaves_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, copies) = (dir.path().join("a/b"), dir.path().join("c/d"));
    [&inner, &copies].into_iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    fs::write(dir.path().join("a/outside.bin"), [1; 512]).unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"custom\"\n\
                RW 1 FLAT \"../outside.bin\" 0\n";
    fs::write(inner.join("d.vmdk"), text).unwrap();
    let any = options().paths(vmdk::PathPolicy::Any);
    let plan = Repair::plan(inner.join("d.vmdk"), &any).unwrap();
    assert!(matches!(plan.apply_to_copy(&copies), Err(vmdk::Error::NotSupported { .. })));
    assert!(!dir.path().join("c/outside.bin").exists());
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0);
}

/// A split disk with data in its second extent.
fn split(dir: &Path) {
    let spec = CreateSpec::new(5 << 30, CreateKind::TwoGbMaxExtentSparse);
    let disk = create(dir.join("d.vmdk"), &spec).unwrap();
    disk.write_at(3 << 30, &Random::new(5).bytes(200_000)).unwrap();
    disk.close().unwrap();
}

#[test]
fn all_extents_of_a_split_disk_are_repaired_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    split(dir.path());
    let second = dir.path().join("d-s002.vmdk");
    let mut patch = Patch::of(&second);
    let grain = ((3 << 30) - 4_192_256 * 512) / 65536;
    patch.set(patch.grain_entry(0, grain), 0x00ff_ff00);
    patch.save();
    let path = dir.path().join("d.vmdk");
    assert_eq!(check(&path, &options()).unwrap().count(Problem::TablesDiffer), 1);
    let copies = tempfile::tempdir().unwrap();
    let left = Repair::plan(&path, &options()).unwrap().apply_to_copy(copies.path()).unwrap();
    assert!(left.is_clean(), "{left}");
    assert_eq!(fs::read_dir(copies.path()).unwrap().count(), 4);
    if peer("qemu-img") {
        run("qemu-img", copies.path(), &["check", "-f", "vmdk", "d.vmdk"]);
    }
    let disk = vmdk::Disk::open(copies.path().join("d.vmdk"), &vmdk::OpenOptions::new()).unwrap();
    let mut read = vec![0; 200_000];
    disk.read_at(3 << 30, &mut read).unwrap();
    assert!(read == Random::new(5).bytes(200_000));
}
