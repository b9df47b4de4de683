//! Parent chains: content ids, depth, cycles, children larger than parents.

use vmdk::{
    ChainProblem, Cid, Disk, Error, OpenOptions,
    descriptor::{CreateType, ExtentLine, ExtentType, NewDescriptor},
    layout::{SparseFlags, SparseHeader},
};

use crate::support::{MemFiles, assert_is};

const NO_FLAGS: u32 = SparseFlags::NEWLINE_TEST;

/// A sparse child with the given grains stored; grain `n` is filled with `fill`.
fn child(cid: u32, parent: u32, hint: &str, sectors: u64, grains: &[usize], fill: u8) -> Vec<u8> {
    let extent = ExtentLine::new(ExtentType::Sparse, sectors, "self.vmdk");
    let text = NewDescriptor::new(CreateType::MonolithicSparse, vec![extent]).cid(Cid(cid)).parent(Cid(parent), hint);
    let header = SparseHeader {
        version: 1,
        flags: SparseFlags(NO_FLAGS),
        capacity_sectors: sectors,
        grain_sectors: 128,
        descriptor_sector: 1,
        descriptor_sectors: 20,
        redundant_directory_sector: 0,
        directory_sector: 21,
        overhead_sectors: 128,
        unclean_shutdown: false,
        compression: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&text.build().unwrap().to_bytes());
    bytes.resize(65536, 0);
    bytes[21 * 512..21 * 512 + 4].copy_from_slice(&22_u32.to_le_bytes());
    for (index, &grain) in grains.iter().enumerate() {
        let entry = 22 * 512 + grain * 4;
        bytes[entry..entry + 4].copy_from_slice(&(128 * (index as u32 + 1)).to_le_bytes());
        bytes.resize(bytes.len() + 65536, fill);
    }
    bytes
}

fn base(cid: u32, sectors: u64) -> Vec<u8> {
    let extent = ExtentLine::new(ExtentType::Flat, sectors, "flat");
    let text = NewDescriptor::new(CreateType::MonolithicFlat, vec![extent]).cid(Cid(cid));
    text.build().unwrap().to_bytes()
}

#[test]
fn three_links_read_as_one_and_the_parents_stay_untouched() {
    let flat = vec![1; 512 * 1000];
    let files = MemFiles::with(&[
        ("base.vmdk", &base(10, 1000)),
        ("flat", &flat),
        ("mid.vmdk", &child(20, 10, "base.vmdk", 1000, &[1, 3], 2)),
        // The child is larger than its parents, and has another id in the wild case of CID == parentCID.
        ("top.vmdk", &child(20, 20, "mid.vmdk", 1500, &[3, 9], 3)),
    ]);
    let mut expected = vec![1; 512 * 1500];
    expected[65536..131_072].fill(2);
    expected[3 * 65536..4 * 65536].fill(3);
    expected[512 * 1000..].fill(0);
    expected[9 * 65536..10 * 65536].fill(3);
    let mid = files.bytes("mid.vmdk");
    let disk = Disk::open("top.vmdk", &OpenOptions::new().resolver(files.clone()).writable()).unwrap();
    assert_eq!(disk.links().len(), 3);
    assert_is(&disk, &expected);
    // Across a grain of the middle link, the end of the base, and into nothing.
    disk.write_at(100_000, &[8; 50_000]).unwrap();
    expected[100_000..150_000].fill(8);
    disk.write_at(512 * 1000 - 9, &[8; 18]).unwrap();
    expected[512 * 1000 - 9..512 * 1000 + 9].fill(8);
    disk.zero_at(10..70_000).unwrap();
    expected[10..70_000].fill(0);
    assert_is(&disk, &expected);
    disk.close().unwrap();
    assert_is(&Disk::open("top.vmdk", &OpenOptions::new().resolver(files.clone())).unwrap(), &expected);
    assert!(
        files.bytes("mid.vmdk") == mid && files.bytes("flat") == flat && files.bytes("base.vmdk") == base(10, 1000)
    );
    let alone = Disk::open("top.vmdk", &OpenOptions::new().resolver(files).single_link(true)).unwrap();
    assert_eq!(alone.links().len(), 1);
}

fn problem(files: &[(&str, &[u8])], name: &str) -> ChainProblem {
    match Disk::open(name, &OpenOptions::new().resolver(MemFiles::with(files))).unwrap_err() {
        Error::Chain { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn a_changed_parent_is_noticed_at_open() {
    let found = problem(
        &[("base.vmdk", &base(11, 8)), ("flat", &[0; 4096]), ("c.vmdk", &child(1, 10, "base.vmdk", 8, &[], 0))],
        "c.vmdk",
    );
    assert_eq!(found, ChainProblem::CidMismatch { wanted: Cid(10), found: Cid(11), parent: "base.vmdk".into() });
}

#[test]
fn cycles_and_endless_chains_end() {
    let found = problem(&[("a", &child(1, 1, "b", 8, &[], 0)), ("b", &child(1, 1, "a", 8, &[], 0))], "a");
    assert!(matches!(found, ChainProblem::Cycle { .. }));
    let links: Vec<_> = (0..70).map(|n| (format!("l{n}"), child(1, 1, &format!("l{}", n + 1), 8, &[], 0))).collect();
    let files: Vec<_> = links.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    assert_eq!(problem(&files, "l0"), ChainProblem::TooDeep { limit: 64 });
}

#[test]
fn a_parent_without_a_name_or_outside_the_directory_is_refused() {
    let text = b"version=1\nCID=1\nparentCID=2\nRW 1 ZERO\n";
    assert_eq!(problem(&[("d.vmdk", text)], "d.vmdk"), ChainProblem::NoParentHint { wanted: Cid(2) });
    let files = MemFiles::with(&[("c", &child(1, 2, "/vmfs/volumes/x/base.vmdk", 8, &[], 0))]);
    let error = Disk::open("c", &OpenOptions::new().resolver(files)).unwrap_err();
    assert!(matches!(error, Error::PathRefused { .. }), "{error}");
}

#[test]
fn ids_that_only_point_to_the_long_ones_are_compared_by_those() {
    let long = |id: &str| format!("ddb.longContentID = \"{id}{id}{id}fffffffe\"\n");
    let child = |id: &str| {
        let text = "version=1\nCID=fffffffe\nparentCID=fffffffe\nparentFileNameHint=\"p\"\nRW 1 ZERO\n";
        format!("{text}{}", long(id)).into_bytes()
    };
    let parent = |cid: &str| format!("version=1\nCID={cid}\nRW 1 ZERO\n{}", long("0123abcd")).into_bytes();
    let open = |child: Vec<u8>, parent: Vec<u8>| {
        let files = MemFiles::with(&[("c", &child), ("p", &parent)]);
        Disk::open("c", &OpenOptions::new().resolver(files)).map(|disk| disk.links().len())
    };
    assert_eq!(open(child("0123ABCD"), parent("fffffffe")).unwrap(), 2);
    assert_eq!(open(child("0123ABCD"), parent("00000005")).unwrap(), 2);
    let error = open(child("11111111"), parent("00000005")).unwrap_err();
    assert!(matches!(error, Error::Chain { problem: ChainProblem::CidMismatch { .. }, .. }), "{error}");
}
