//! Disks of several extents, with changes at the borders between them.

use std::{fs::File, os::unix::fs::FileExt};

use proptest::{prelude::*, sample::select};
use vmdk::{CreateKind, CreateSpec, Disk, OpenOptions, create};

use super::{
    assert_sound, cases,
    changes::{Change, changes_near},
    ours,
    qemu::Qemu,
};

/// Where extents end: VMware and we split below 2 GiB, qemu-img at 2 GiB; and the end of the disk.
const BORDERS: [u64; 5] = [4_192_256 * 512, 2 << 30, 2 * 4_192_256 * 512, 4 << 30, CAPACITY];
/// Three extents for either, the last one short.
const CAPACITY: u64 = (4 << 30) + 37 * 65536 + 5 * 512;

/// The disk as a file of holes.
struct Model(File);

impl Model {
    fn new(qemu: &Qemu) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(qemu.dir().join("model")).unwrap();
        file.set_len(CAPACITY).unwrap();
        Self(file)
    }

    fn apply(&self, change: &Change) {
        let range = change.range(CAPACITY);
        let zeros = || vec![0; (range.end - range.start) as usize];
        self.0.write_all_at(&change.bytes(CAPACITY).unwrap_or_else(zeros), range.start).unwrap();
    }

    /// Fails unless the disk is the same around the change.
    fn assert_same(&self, disk: &Disk, change: &Change) {
        let range = change.range(CAPACITY);
        let range = range.start.saturating_sub(70_000)..(range.end + 70_000).min(CAPACITY);
        let [mut read, mut right] = [0xee, 0xdd].map(|byte| vec![byte; (range.end - range.start) as usize]);
        disk.read_at(range.start, &mut read).unwrap();
        self.0.read_exact_at(&mut right, range.start).unwrap();
        assert!(read == right, "{range:?} differs");
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn borders_of_extents_do_not_show(
        sparse in any::<bool>(),
        of_qemu in any::<bool>(),
        rounds in prop::collection::vec((changes_near(&BORDERS, 1..6), any::<bool>()), 1..4),
        zeroed_grain in select(&["on", "off"][..]),
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let model = Model::new(&qemu);
        match (of_qemu, sparse) {
            (true, true) => qemu.create("d.vmdk", CAPACITY, &format!("subformat=twoGbMaxExtentSparse,zeroed_grain={zeroed_grain}")),
            (true, false) => qemu.create("d.vmdk", CAPACITY, "subformat=twoGbMaxExtentFlat"),
            (false, _) => {
                let kind = if sparse { CreateKind::TwoGbMaxExtentSparse } else { CreateKind::TwoGbMaxExtentFlat };
                let spec = CreateSpec::new(CAPACITY, kind).zeroed_grains(zeroed_grain == "on");
                create(qemu.dir().join("d.vmdk"), &spec).unwrap().close().unwrap();
            }
        }
        for (changes, by_qemu) in &rounds {
            if *by_qemu { qemu.change("d.vmdk", CAPACITY, changes) } else { ours::write(&qemu, "d.vmdk", changes) }
            changes.iter().for_each(|change| model.apply(change));
        }
        let disk = Disk::open(qemu.dir().join("d.vmdk"), &OpenOptions::new()).unwrap();
        prop_assert_eq!(disk.links().next().unwrap().data_files.len(), 3);
        rounds.iter().flat_map(|(changes, _)| changes).for_each(|change| model.assert_same(&disk, change));
        qemu.assert_same("raw", "model", "vmdk", "d.vmdk");
        assert_sound(qemu.dir(), "d.vmdk");
        if sparse {
            qemu.assert_maps("d.vmdk", &disk);
        }
    }
}
