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
    stream::{StreamEnd, StreamReader},
};

use super::{
    cases,
    changes::{apply, capacity, changes},
};
use crate::support::{DEBIAN_PYTHON, MemFiles, assert_is, module};

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn its_streams_are_read_forward_and_by_position(capacity in capacity(), changes in changes(0..12)) {
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
        let source = Handle::ReadOnly(Arc::new(MemSource::new(stream)));
        let report = check_source("s.vmdk", source, &CheckOptions::new().deep(true)).unwrap();
        let wrong: Vec<_> = report.counts().map(|(problem, _)| problem).collect();
        prop_assert_eq!(wrong, [Problem::LongContentIdWrong], "{:?}", report);
    }
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
