//! Snapshot chains of ESXi: COWD and seSparse over thick and thin bases.

use std::{collections::BTreeMap, fs, ops::Range, path::Path, sync::Arc};

use proptest::{collection, option, prelude::*, sample::Index, test_runner::Config};
use vmdk::{
    ChildSpec, Cid, Disk, Error, MapKind, OpenOptions, create_child,
    descriptor::{CreateType, ExtentLine, ExtentType, NewDescriptor},
};

use crate::{
    peers::libvmdk,
    support::{
        MemFiles, assert_is, holey, peer, run,
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

    /// The same in memory; `change` may damage the extent of the last snapshot.
    fn in_memory(&self, change: impl FnOnce(&mut Vec<u8>)) -> Arc<MemFiles> {
        let mut files = self.files();
        change(&mut files.last_mut().unwrap().1);
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        MemFiles::with(&files)
    }

    fn open(&self, files: Arc<MemFiles>) -> vmdk::Result<Disk> {
        Disk::open(self.top(), &OpenOptions::new().resolver(files))
    }

    fn write_to(&self, dir: &Path) {
        for (name, bytes) in self.files() {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

/// Chains whose grains lie near table boundaries and both ends, in runs and alone.
fn chains() -> impl Strategy<Value = Chain> {
    let kind = prop_oneof![1 => Just((Kind::Cowd, 1)), 1 => Just((Kind::Cowd, 4)), 3 => Just((Kind::SeSparse, 8))];
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
            prop_oneof![2 => any::<u64>().prop_map(Stored::Data), 1 => Just(Stored::Zero), 1 => Just(Stored::Unmapped)]
                .boxed()
        }
    };
    let run = (any::<u8>(), any::<u16>(), 1..20_u64, stored);
    collection::vec(run.prop_map(|(landmark, place, len, stored)| (landmark, place, 0..len, stored)), 1..16)
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

/// A chain of one snapshot with all kinds of grains, the last one short.
fn one(kind: Kind) -> Chain {
    let grain_sectors: u64 = if kind == Kind::Cowd { 1 } else { 8 };
    let base_sectors = 5000 * grain_sectors + grain_sectors.div_ceil(2);
    let mut grains = BTreeMap::from([(1, Stored::Data(1)), (2, Stored::Data(2)), (5000, Stored::Data(3))]);
    if kind == Kind::SeSparse {
        grains.extend([(4, Stored::Zero), (5, Stored::Unmapped), (4096, Stored::Unmapped)]);
    }
    let snapshots = vec![Snapshot { sectors: base_sectors, grain_sectors, grains, order: 1 }];
    Chain { kind, base_sectors, seed: 1, snapshots }
}

fn small_chains() -> impl Strategy<Value = Chain> {
    prop_oneof![Just(one(Kind::Cowd)), Just(one(Kind::SeSparse))]
}

const KINDS: [Kind; 2] = [Kind::Cowd, Kind::SeSparse];

#[test]
fn the_map_names_the_link_of_every_area() {
    let chain = one(Kind::SeSparse);
    let disk = chain.open(chain.in_memory(|_| ())).unwrap();
    let of_snapshot: Vec<_> = disk
        .map(0..disk.capacity())
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.layer == Some(0))
        .map(|entry| (entry.range.start / 4096, entry.range.end.div_ceil(4096), entry.kind))
        .collect();
    let (data, zero) = (MapKind::Data, MapKind::Zero);
    assert_eq!(of_snapshot, [(1, 3, data), (4, 6, zero), (4096, 4097, zero), (5000, 5001, data)]);
}

#[test]
fn an_extent_opened_by_itself_has_no_parent() {
    for kind in KINDS {
        let chain = one(kind);
        let (_, bytes) = chain.files().pop().unwrap();
        let files = MemFiles::with(&[("alone.vmdk", &bytes)]);
        let disk = Disk::open("alone.vmdk", &OpenOptions::new().resolver(files)).unwrap();
        let nothing = vec![0; chain.base_sectors as usize * 512];
        assert_is(&disk, &chain.snapshots[0].over(nothing));
    }
}

#[test]
fn snapshots_of_all_formats_mix_in_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let chain = one(Kind::SeSparse);
    chain.write_to(dir.path());
    let mut content = chain.content();
    // A hosted child over seSparse, then a redo log over that one.
    let hosted = create_child(dir.path().join(chain.top()), dir.path().join("h.vmdk"), &ChildSpec::new()).unwrap();
    hosted.write_at(3000, &[9; 100_000]).unwrap();
    content[3000..103_000].fill(9);
    let cid = hosted.descriptor().unwrap().cid().unwrap();
    hosted.close().unwrap();
    let redo =
        Snapshot { grain_sectors: 1, grains: BTreeMap::from([(100, Stored::Data(5))]), ..chain.snapshots[0].clone() };
    let extent = ExtentLine::new(ExtentType::VmfsSparse, redo.sectors, "r-delta.vmdk");
    let text = NewDescriptor::new(CreateType::VmfsSparse, vec![extent]).parent(cid, "h.vmdk").build().unwrap();
    fs::write(dir.path().join("r.vmdk"), text.to_bytes()).unwrap();
    fs::write(dir.path().join("r-delta.vmdk"), redo.cowd()).unwrap();
    let content = redo.over(content);
    let disk = Disk::open(dir.path().join("r.vmdk"), &OpenOptions::new()).unwrap();
    assert_eq!(disk.links().len(), 4);
    assert_is(&disk, &content);
    if peer("qemu-img") {
        fs::write(dir.path().join("raw"), &content).unwrap();
        let text = run("qemu-img", dir.path(), &["compare", "-f", "raw", "-F", "vmdk", "raw", "r.vmdk"]);
        assert_eq!(text.trim(), "Images are identical.");
    }
}

#[test]
fn an_extent_with_a_journal_to_replay_is_refused_unless_asked_for() {
    let chain = one(Kind::SeSparse);
    let files = chain.in_memory(|bytes| bytes[512 + 24] = 1);
    let error = chain.open(Arc::clone(&files)).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }), "{error}");
    assert!(error.to_string().contains("journal") && error.to_string().contains("ignore_journal"), "{error}");
    let options = OpenOptions::new().resolver(files).ignore_journal(true);
    assert_is(&Disk::open(chain.top(), &options).unwrap(), &chain.content());
}

#[test]
fn snapshots_are_not_written_to() {
    for kind in KINDS {
        let chain = one(kind);
        let options = OpenOptions::new().resolver(chain.in_memory(|_| ())).writable();
        let error = Disk::open(chain.top(), &options).unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }) && error.to_string().contains("read-only"), "{error}");
    }
}

#[test]
fn a_truncated_extent_is_an_error_and_not_zeros() {
    for kind in KINDS {
        let chain = one(kind);
        // The last grain of the file, whichever it is, loses its last byte.
        let disk = chain.open(chain.in_memory(|bytes| bytes.truncate(bytes.len() - 2049))).unwrap();
        let mut all = vec![0; disk.capacity() as usize];
        let error = disk.read_at(0, &mut all).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}

#[test]
fn an_extent_that_is_smaller_than_its_descriptor_says_is_refused() {
    for (kind, at) in [(Kind::Cowd, 12), (Kind::SeSparse, 16)] {
        let chain = one(kind);
        let error = chain.open(chain.in_memory(|bytes| bytes[at + 1] -= 1)).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn chains_of_snapshots_read_and_map_as_they_were_meant(chain in chains()) {
        let disk = chain.open(chain.in_memory(|_| ())).unwrap();
        assert_is(&disk, &chain.content());
    }

    #[test]
    fn damaged_snapshots_are_errors_and_never_a_panic(
        chain in small_chains(),
        damage in collection::vec((any::<Index>(), any::<u8>()), 1..4),
        len in option::of(any::<Index>()),
    ) {
        let files = chain.in_memory(|bytes| {
            for (index, byte) in &damage {
                // Headers, directory and the entries in use, most of the time.
                let at = index.index(bytes.len().min(256));
                bytes[at] = *byte;
            }
            bytes.truncate(len.map_or(bytes.len(), |len| len.index(bytes.len())));
        });
        if let Ok(disk) = chain.open(files) {
            let mut buf = vec![0; 5000];
            for entry in disk.map(0..disk.capacity()).take(100) {
                let Ok(entry) = entry else { break };
                let len = (disk.capacity() - entry.range.start).min(buf.len() as u64) as usize;
                let _ = disk.read_at(entry.range.start, &mut buf[..len]);
            }
        }
    }
}

// Peers are processes: fewer cases.
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
