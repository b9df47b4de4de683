//! Snapshot chains of ESXi: COWD and seSparse over thick and thin bases.

use std::{collections::BTreeMap, fs, ops::Range, path::Path};

use proptest::{collection, prelude::*, test_runner::Config};
use vmdk::{
    Cid,
    descriptor::{CreateType, ExtentLine, ExtentType, NewDescriptor},
};

use crate::{
    peers::libvmdk,
    support::{
        holey, peer, run,
        snapshot::{Snapshot, Stored},
    },
};

/// Which format a chain's snapshots have: ESXi does not mix them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cowd,
    SeSparse,
}

/// A base and the snapshots over it.
#[derive(Debug, Clone)]
struct Chain {
    kind: Kind,
    base_sectors: u64,
    seed: u64,
    snapshots: Vec<Snapshot>,
}

impl Chain {
    fn base(&self) -> Vec<u8> {
        holey(self.base_sectors as usize * 512, self.seed)
    }

    /// What the last snapshot reads as.
    fn content(&self) -> Vec<u8> {
        self.snapshots.iter().fold(self.base(), |under, snapshot| snapshot.over(under))
    }

    /// Name of the last snapshot.
    fn top(&self) -> String {
        format!("disk-{}.vmdk", self.snapshots.len())
    }

    /// All files with their names, as ESXi names them.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let text = |new: NewDescriptor, cid| new.cid(Cid(cid)).build().unwrap().to_bytes();
        let extent = ExtentLine::new(ExtentType::Vmfs, self.base_sectors, "disk-0-flat.vmdk");
        let mut files = vec![
            ("disk-0.vmdk".to_owned(), text(NewDescriptor::new(CreateType::Vmfs, vec![extent]), 100)),
            ("disk-0-flat.vmdk".to_owned(), self.base()),
        ];
        for (index, snapshot) in self.snapshots.iter().enumerate() {
            let number = index as u32 + 1;
            let (create_type, extent_type, name, bytes) = match self.kind {
                Kind::Cowd => (CreateType::VmfsSparse, ExtentType::VmfsSparse, "delta", snapshot.cowd()),
                Kind::SeSparse => (CreateType::SeSparse, ExtentType::SeSparse, "sesparse", snapshot.sesparse()),
            };
            let data = format!("disk-{number}-{name}.vmdk");
            let new = NewDescriptor::new(create_type, vec![ExtentLine::new(extent_type, snapshot.sectors, &*data)])
                .parent(Cid(99 + number), format!("disk-{index}.vmdk"));
            files.push((format!("disk-{number}.vmdk"), text(new, 100 + number)));
            files.push((data, bytes));
        }
        files
    }

    fn write_to(&self, dir: &Path) {
        for (name, bytes) in self.files() {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

/// Chains whose grains lie near table boundaries and both ends, in runs and alone.
fn chains() -> impl Strategy<Value = Chain> {
    let kind = prop_oneof![Just((Kind::Cowd, 1)), Just((Kind::Cowd, 4)), Just((Kind::SeSparse, 8))];
    (kind, any::<u64>(), 1..=3_usize).prop_flat_map(|((kind, grain_sectors), seed, links)| {
        // A table spans 2 MiB, 8 MiB and 16 MiB: two or three tables, the last grain short more often than not.
        let table = 4096 * grain_sectors;
        let sectors = table + 1..(2 * table + table / 4).min(table + 40_000);
        (sectors, collection::vec((snapshot_grains(kind), 0..40_u64, any::<u64>()), links)).prop_map(
            move |(base_sectors, links)| {
                let mut sectors: u64 = base_sectors;
                let snapshots = links
                    .into_iter()
                    .map(|(runs, growth, order)| {
                        // Sometimes the disk was made larger after its parent was frozen.
                        sectors += growth.saturating_sub(25);
                        let grains = grains(&runs, sectors.div_ceil(grain_sectors));
                        Snapshot { sectors, grain_sectors, grains, order }
                    })
                    .collect();
                Chain { kind, base_sectors, seed, snapshots }
            },
        )
    })
}

/// Runs of grains: where, as a fraction or near a landmark, how many, what.
type GrainRun = (u8, u16, Range<u64>, Stored);

fn snapshot_grains(kind: Kind) -> impl Strategy<Value = Vec<GrainRun>> {
    let stored = match kind {
        Kind::Cowd => any::<u64>().prop_map(Stored::Data).boxed(),
        Kind::SeSparse => {
            prop_oneof![3 => any::<u64>().prop_map(Stored::Data), 1 => Just(Stored::Zero), 1 => Just(Stored::Unmapped)]
                .boxed()
        }
    };
    let run = (any::<u8>(), any::<u16>(), 1..20_u64, stored);
    collection::vec(run.prop_map(|(landmark, place, len, stored)| (landmark, place, 0..len, stored)), 0..12)
}

fn grains(runs: &[GrainRun], count: u64) -> BTreeMap<u64, Stored> {
    let mut grains = BTreeMap::new();
    for (landmark, place, run, stored) in runs {
        let start = match landmark % 4 {
            0 => 0,
            1 => count.saturating_sub(run.end),
            2 => 4096_u64.saturating_sub(run.end / 2),
            _ => u64::from(*place) * count / 65536,
        };
        for grain in (start + run.start..start + run.end).filter(|&grain| grain < count) {
            let stored = match stored {
                Stored::Data(seed) => Stored::Data(seed ^ grain),
                other => *other,
            };
            grains.insert(grain, stored);
        }
    }
    grains
}

proptest! {
    #![proptest_config(Config { cases: 10, failure_persistence: None, ..Config::default() })]

    #[test]
    fn qemu_img_reads_hand_made_snapshots_as_they_were_meant(chain in chains()) {
        if peer("qemu-img") {
            let dir = tempfile::tempdir().unwrap();
            chain.write_to(dir.path());
            fs::write(dir.path().join("raw"), chain.content()).unwrap();
            let text = run("qemu-img", dir.path(), &["compare", "-f", "raw", "-F", "vmdk", "raw", &chain.top()]);
            // Not "Warning: Image size mismatch!" either.
            prop_assert_eq!(text.trim(), "Images are identical.");
        }
    }

    #[test]
    fn libvmdk_reads_hand_made_redo_logs_as_they_were_meant(chain in chains()) {
        // It knows no seSparse, and reads nothing where a parent is shorter than its child.
        let as_long = chain.snapshots.iter().all(|snapshot| snapshot.sectors == chain.base_sectors);
        if chain.kind == Kind::Cowd && as_long {
            let dir = tempfile::tempdir().unwrap();
            chain.write_to(dir.path());
            let names: Vec<_> = (0..=chain.snapshots.len()).rev().map(|number| format!("disk-{number}.vmdk")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            libvmdk::assert_is(dir.path(), &names, &chain.content());
        }
    }
}
