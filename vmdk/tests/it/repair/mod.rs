//! Repairs: what could be read reads the same afterwards, and what is left is sound.

mod crash;
mod random;
mod relink;
mod sparse;
mod streams;

use std::{
    fs,
    path::{Path, PathBuf},
};

use vmdk::{
    Disk, OpenOptions,
    check::{CheckOptions, Severity},
    repair::{ActionKind, Repair},
};

use crate::{
    check::Patch,
    support::{peer, run},
};

pub(crate) fn options() -> CheckOptions {
    CheckOptions::new().deep(true)
}

/// What can be read, grain by grain; `None` where that fails, and everywhere when the disk cannot be opened.
pub(crate) fn readable(path: &Path) -> Vec<Option<Vec<u8>>> {
    let Ok(disk) = Disk::open(path, &OpenOptions::new()) else { return Vec::new() };
    (0..disk.capacity().div_ceil(65536))
        .map(|grain| {
            let start = grain * 65536;
            let mut buf = vec![0; (disk.capacity() - start).min(65536) as usize];
            disk.read_at(start, &mut buf).ok().map(|()| buf)
        })
        .collect()
}

/// All grains of a disk that has no damage any more.
pub(crate) fn whole(path: &Path) -> Vec<Vec<u8>> {
    readable(path).into_iter().map(|grain| grain.expect("a grain cannot be read after the repair")).collect()
}

/// Numbers of the grains that differ.
pub(crate) fn different(one: &[Vec<u8>], other: &[Vec<u8>]) -> Vec<usize> {
    assert_eq!(one.len(), other.len());
    (0..one.len()).filter(|grain| one[*grain] != other[*grain]).collect()
}

/// qemu-img must find no error, and read the same bytes.
pub(crate) fn qemu_agrees(path: &Path) {
    if !peer("qemu-img") {
        return;
    }
    let dir = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    run("qemu-img", dir, &["check", "-f", "vmdk", name]);
    fs::write(dir.join("raw"), whole(path).concat()).unwrap();
    let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", "vmdk", "raw", name]);
    assert!(text.contains("identical"), "{text}");
    fs::remove_file(dir.join("raw")).unwrap();
}

/// Damages a sound image and repairs it; returns what was done and which grains do not read as in the sound one.
pub(crate) fn mended(
    image: impl FnOnce(&Path) -> PathBuf,
    believed_wrong: &[usize],
    damage: impl FnOnce(&mut Patch),
) -> (Vec<(ActionKind, u64)>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let sound = whole(&path);
    let mut patch = Patch::of(&path);
    damage(&mut patch);
    patch.save();
    let (actions, after) = repair(&path, believed_wrong);
    (actions, different(&sound, &after))
}

/// Repairs a damaged image in a copy and in place, which must come to the same; returns what was done, and the disk as
/// it reads afterwards. What could be read before must read the same, but for the grains in `believed_wrong`.
pub(crate) fn repair(path: &Path, believed_wrong: &[usize]) -> (Vec<(ActionKind, u64)>, Vec<Vec<u8>>) {
    let before = readable(path);
    let bytes = fs::read(path).unwrap();
    let plan = Repair::plan(path, &options()).unwrap();
    let actions: Vec<_> = plan.actions().iter().map(|action| (action.kind, action.count)).collect();
    assert!(fs::read(path).unwrap() == bytes, "the plan changed the file");

    let copies = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
    let left = plan.apply_to_copy(copies.path()).unwrap();
    assert!(fs::read(path).unwrap() == bytes, "the original was changed");
    assert!(left.worst() < Some(Severity::Damaged), "{left}");
    let copy: PathBuf = copies.path().join(path.file_name().unwrap());
    let after = whole(&copy);
    for (grain, was) in before.iter().enumerate() {
        let kept = was.as_ref().is_none_or(|was| *was == after[grain]);
        assert!(kept || believed_wrong.contains(&grain), "grain {grain} was changed");
    }
    qemu_agrees(&copy);

    assert!(plan.apply_in_place().unwrap().worst() < Some(Severity::Damaged));
    assert!(fs::read(path).unwrap() == fs::read(&copy).unwrap(), "in place is not as in a copy");
    let again = Repair::plan(path, &options()).unwrap();
    assert!(again.actions().is_empty(), "a second repair finds something: {:?}", again.actions());
    (actions, after)
}
