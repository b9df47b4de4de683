//! VMDKstream writes `streamOptimized` disks from raw ones; they are read by us.
//!
//! Its streams differ from those of others: a descriptor of as few sectors as it needs whose first line is
//! `# Disk Descriptor File`, a deflated last grain that is shorter than the others, no directory in front. All of them
//! have one and the same `longContentID`, which does not end in the content id as it should: our checker says so.

use std::{
    fs,
    process::Command,
    sync::{Arc, OnceLock},
};

use proptest::prelude::*;
use vmdk::{
    Disk, Handle, MemSource, OpenOptions,
    check::{CheckOptions, Problem, check_source},
    stream::{SalvageReader, SalvageReport, Salvager, StreamEnd, StreamReader},
};

use super::{
    cases,
    changes::{apply, capacity, changes},
};
use crate::support::{DEBIAN_PYTHON, MemFiles, assert_is, module};

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn its_streams_are_read_forward_by_position_and_in_pieces(
        capacity in capacity(),
        changes in changes(0..12),
        cut in 0.0..1.0_f64,
    ) {
        static HERE: OnceLock<bool> = OnceLock::new();
        if !*HERE.get_or_init(|| module("VMDKstream")) {
            return Ok(());
        }
        let mut content = vec![0; capacity as usize];
        apply(&changes, &mut content);
        let stream = stream_of(&content);

        let mut reader = StreamReader::open(stream.as_slice(), "s.vmdk").unwrap();
        prop_assert_eq!(reader.capacity(), capacity);
        let mut read = vec![0; capacity as usize];
        while let Some(grain) = reader.next_grain().unwrap() {
            read[grain.offset as usize..][..grain.data.len()].copy_from_slice(grain.data);
        }
        prop_assert!(read == content, "the content differs");
        prop_assert_eq!(reader.end(), Some(StreamEnd::Marked));
        let files = MemFiles::with(&[("s.vmdk", &stream)]);
        let disk = Disk::open("s.vmdk", &OpenOptions::new().resolver(files)).unwrap();
        assert_is(&disk, &content);
        let (whole, report) = salvaged(&stream, &content);
        prop_assert!(report.is_whole() && report.grains == whole, "{:?}", report);
        let (some, report) = salvaged(&stream[..(stream.len() as f64 * cut) as usize], &content);
        prop_assert!(some <= whole && !report.is_whole(), "{:?}", report);
        let source = Handle::ReadOnly(Arc::new(MemSource::new(stream)));
        let report = check_source("s.vmdk", source, &CheckOptions::new().deep(true)).unwrap();
        let wrong: Vec<_> = report.counts().map(|(problem, _)| problem).collect();
        prop_assert_eq!(wrong, [Problem::LongContentIdWrong], "{:?}", report);
    }
}

/// Salvages all grains, which must have the right bytes; how many there are.
fn salvaged(stream: &[u8], content: &[u8]) -> (u64, SalvageReport) {
    let mut reader = SalvageReader::new(stream, "s.vmdk", Salvager::new());
    let mut grains = 0;
    while let Some(grain) = reader.next_grain().unwrap() {
        assert!(content[grain.offset as usize..].starts_with(grain.data), "the grain at {} differs", grain.offset);
        grains += 1;
    }
    (grains, reader.report().clone())
}

fn stream_of(content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["raw", "s.vmdk"].map(|name| dir.path().join(name));
    fs::write(&from, content).unwrap();
    let convert = "import sys, VMDKstream; VMDKstream.convert_to_stream(*sys.argv[1:])";
    let output = Command::new(DEBIAN_PYTHON).args(["-c", convert]).args([&from, &to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(to).unwrap()
}
