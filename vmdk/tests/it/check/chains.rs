//! Links that do not fit together, and descriptors that name what is not there.

use vmdk::{
    Error, OpenOptions,
    check::{CheckOptions, Problem, Report, check},
};

use crate::support::MemFiles;

fn report(files: &[(&str, &[u8])], name: &str) -> Report {
    let options = OpenOptions::new().resolver(MemFiles::with(files));
    check(name, &CheckOptions::from(&options)).unwrap()
}

fn kinds(files: &[(&str, &[u8])]) -> Vec<(Problem, u64)> {
    report(files, "d.vmdk").counts().collect()
}

fn link(cid: &str, parent: &str, lines: &str) -> String {
    format!("# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent}\ncreateType=\"custom\"\n{lines}\n")
}

#[test]
fn content_ids_must_agree() {
    let base = link("00000001", "ffffffff", "RW 8 ZERO");
    let child = |wanted| link("2", wanted, "parentFileNameHint=\"base.vmdk\"\nRW 8 ZERO");
    assert_eq!(kinds(&[("d.vmdk", child("1").as_bytes()), ("base.vmdk", base.as_bytes())]), []);
    let wrong = [("d.vmdk", child("7")), ("base.vmdk", base.clone())];
    let wrong: Vec<_> = wrong.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    assert_eq!(kinds(&wrong), [(Problem::CidMismatch, 1)]);
    // A link by itself has no parent to disagree with.
    let options = CheckOptions::new().resolver(MemFiles::with(&wrong)).single_link(true);
    assert!(check("d.vmdk", &options).unwrap().is_clean());
    assert_eq!(kinds(&[("d.vmdk", child("1").as_bytes())]), [(Problem::FileMissing, 1)]);
    let larger = link("1", "ffffffff", "RW 9 ZERO");
    let right = child("1");
    let files: [(&str, &[u8]); 2] = [("d.vmdk", right.as_bytes()), ("base.vmdk", larger.as_bytes())];
    assert_eq!(kinds(&files), [(Problem::ParentLarger, 1)]);
    let raw: [(&str, &[u8]); 2] = [("d.vmdk", right.as_bytes()), ("base.vmdk", &[7; 4096])];
    assert_eq!(kinds(&raw), [(Problem::NotAnImage, 1), (Problem::CidMismatch, 1)]);
}

#[test]
fn cycles_and_endless_chains_end() {
    let to = |parent: &str| link("1", "1", &format!("parentFileNameHint=\"{parent}\"\nRW 8 ZERO"));
    assert_eq!(
        kinds(&[("d.vmdk", to("e.vmdk").as_bytes()), ("e.vmdk", to("d.vmdk").as_bytes())]),
        [(Problem::Cycle, 1)]
    );
    let links: Vec<_> = (0..70).map(|n| (format!("{n}"), to(&format!("{}", n + 1)))).collect();
    let links: Vec<_> = links.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    assert_eq!(report(&links, "0").counts().collect::<Vec<_>>(), [(Problem::TooDeep, 1)]);
}

#[test]
fn extents_must_be_there_and_long_enough() {
    let flat = [7; 4096];
    let with = |lines: &str| {
        let text = link("1", "ffffffff", lines);
        kinds(&[("d.vmdk", text.as_bytes()), ("flat", &flat)])
    };
    assert_eq!(with("RW 8 FLAT \"flat\" 0"), []);
    assert_eq!(with("RW 4 FLAT \"flat\" 4\nRW 4 FLAT \"flat\" 0"), []);
    assert_eq!(with("RW 9 FLAT \"flat\" 0"), [(Problem::ExtentTooShort, 1)]);
    assert_eq!(with("RW 5 FLAT \"flat\" 0\nRW 4 FLAT \"flat\" 4"), [(Problem::ExtentsOverlap, 1)]);
    let under_two = "RW 8 FLAT \"flat\" 0\nRW 1 FLAT \"flat\" 1\nRW 1 FLAT \"flat\" 5";
    assert_eq!(with(under_two), [(Problem::ExtentsOverlap, 2)]);
    assert_eq!(with("RW 8 VMFS \"gone\""), [(Problem::FileMissing, 1)]);
    assert_eq!(with("RW 8 SPARSE \"flat\""), [(Problem::NotAnImage, 1)]);
    assert_eq!(with("RW 8 FLAT \"../flat\" 0"), [(Problem::PathRefused, 1)]);
    assert_eq!(with("RW 8 VMFSRDM \"x-rdm.vmdk\""), [(Problem::NotSupported, 1)]);
    assert_eq!(with("RW 8 VSANSPARSE \"vsan://5274\""), [(Problem::NotSupported, 1)]);
    assert_eq!(with("RW 8 FLAT"), [(Problem::DescriptorDamaged, 1)]);
    assert_eq!(with(""), [(Problem::DescriptorDamaged, 1)]);
    assert_eq!(with("NOACCESS 8 FLAT \"flat\" 0"), [(Problem::NotSupported, 1)]);
}

#[test]
fn the_long_content_id_ends_in_the_content_id() {
    let with = |cid: &str, long: &str| {
        let text = link(cid, "ffffffff", &format!("RW 8 ZERO\nddb.longContentID = \"{long}\""));
        kinds(&[("d.vmdk", text.as_bytes())])
    };
    let long = "f637a0b1c2d3e4f5061728390a1b2c3d";
    assert_eq!(with("0a1b2c3d", long), []);
    assert_eq!(with("fffffffe", long), []);
    assert_eq!(with("0a1b2c3e", long), [(Problem::LongContentIdWrong, 1)]);
    assert_eq!(with("0a1b2c3d", "1b2c3d"), [(Problem::LongContentIdWrong, 1)]);
}

#[test]
fn a_disk_that_is_not_there_is_an_error_and_no_finding() {
    let options = CheckOptions::new().resolver(MemFiles::with(&[]));
    assert!(matches!(check("d.vmdk", &options), Err(Error::Io { .. })));
}

#[test]
fn a_file_that_is_named_a_thousand_times_is_walked_once() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = std::fs::read(super::damage::image(dir.path())).unwrap();
    let lines = "RW 204801 SPARSE \"s.vmdk\"\n".repeat(1000);
    let report = report(&[("d.vmdk", link("1", "ffffffff", &lines).as_bytes()), ("s.vmdk", &sparse)], "d.vmdk");
    assert_eq!((report.usage().grains, report.count(Problem::ExtentsOverlap)), (7, 999));
}
