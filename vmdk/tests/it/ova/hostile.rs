//! Damage and malice: errors, always, and in bounded memory.

use std::{
    io::{self, Read},
    sync::Arc,
};

use proptest::prelude::*;
use vmdk::{
    Error, MemSource,
    ova::{OvaReader, OvfPackage},
};

use super::{descriptor, forward, header, sign, tar};

fn random(archive: &[u8]) -> vmdk::Result<OvfPackage> {
    OvfPackage::from_source(Arc::new(MemSource::new(archive.to_vec())), "test.ova")
}

fn sample() -> Vec<u8> {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='1500'")]);
    tar(&[("x.ovf", &xml), ("x.mf", b""), ("a.vmdk", &[7; 1500])])
}

/// Refused by both readers, as the archive's fault.
fn assert_refused(archive: &[u8], what: &str) {
    for outcome in [forward(archive).map(drop), random(archive).map(drop)] {
        let error = outcome.expect_err(what);
        assert!(matches!(error, Error::Malformed { .. } | Error::PathRefused { .. }), "{what}: {error}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let archive = sample();
    assert!(forward(archive.as_slice()).is_ok() && random(&archive).is_ok());
    // The last block is the second one of the end mark, which nobody needs.
    for len in (0..archive.len() - 512).step_by(61).chain((0..archive.len() - 512).step_by(512)) {
        assert!(forward(&archive[..len]).is_err(), "{len}");
        assert!(matches!(random(&archive[..len]), Err(Error::Malformed { .. })), "{len}");
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_an_error() {
    let archive = sample();
    let headers: Vec<usize> =
        (0..archive.len()).step_by(512).filter(|at| archive[at + 257..].starts_with(b"ustar")).collect();
    assert_eq!(headers.len(), 3);
    for at in headers {
        for offset in [0, 110, 130, 150, 156, 258, 400] {
            let mut bad = archive.clone();
            bad[at + offset] ^= 0x10;
            assert_refused(&bad, &format!("{at}+{offset}"));
        }
    }
}

#[test]
fn members_that_have_no_place_in_a_package_are_refused() {
    let xml = descriptor(&[("f", "a.vmdk", "")]);
    for kind in [b'1', b'2', b'3', b'4', b'6', b'S', b'K', b'M', b'Z'] {
        let mut archive = tar(&[("x.ovf", &xml)]);
        archive.truncate(archive.len() - 1024);
        let mut link = header("a.vmdk", 0, kind);
        link[157..168].copy_from_slice(b"/etc/passwd");
        sign(&mut link);
        archive.extend(link);
        archive.extend([0; 1024]);
        assert_refused(&archive, &format!("type {}", char::from(kind)));
    }
    for name in ["../a.vmdk", "/etc/passwd", "a/../../b", "C:\\x", "http://x/y", "a\u{7}"] {
        assert_refused(&tar(&[("x.ovf", &xml), ("a.vmdk", b"a"), (name, b"b")]), name);
    }
    assert_refused(&tar(&[("x.ovf", &xml), ("a.vmdk", b"a"), ("./a.vmdk", b"b")]), "two of one name");
    assert_refused(&tar(&[("x.ovf", &xml), ("a.vmdk", b"a"), ("x.mf", b""), ("y.mf", b"")]), "two manifests");
    assert_refused(&tar(&[("x.ovf", &xml)]), "missing");
    assert_refused(&tar(&[]), "empty");
    assert_refused(&tar(&[("a.vmdk", b"x")]), "no descriptor");
}

#[test]
fn references_that_leave_the_package_are_refused() {
    for href in ["../a.vmdk", "/a.vmdk", "http://evil/a.vmdk", "file:///etc/passwd", "%2e%2e/a", "a\\..\\b", "."] {
        let archive = tar(&[("x.ovf", &descriptor(&[("f", href, "")])), ("a.vmdk", b"x")]);
        for error in [forward(archive.as_slice()).unwrap_err(), random(&archive).unwrap_err()] {
            assert!(matches!(&error, Error::PathRefused { name, .. } if name == href), "{href}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ovf");
        std::fs::write(&path, descriptor(&[("f", href, "")])).unwrap();
        assert!(matches!(OvfPackage::open(path), Err(Error::PathRefused { .. })));
    }
}

#[test]
fn sizes_that_lie_are_errors() {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='4'")]);
    assert_refused(&tar(&[("x.ovf", &xml), ("a.vmdk", b"abc")]), "smaller than said");
    assert_refused(&tar(&[("x.ovf", &xml), ("a.vmdk", b"abcde")]), "larger than said");
    for field in [
        b"77777777777\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"9          \0",
    ] {
        let mut archive = sample();
        archive[124..136].copy_from_slice(field);
        sign(&mut archive);
        assert_refused(&archive, "descriptor of a strange size");
    }
    for record in ["20 size=99999999999\n", "29 size=9223372036854775807\n", "11 size=-1\n", "21 GNU.sparse.map=1\n"] {
        let mut archive = header("records", record.len() as u64, b'x');
        archive.extend(record.as_bytes());
        archive.resize(1024, 0);
        archive.extend(sample());
        assert_refused(&archive, record);
    }
    let mut archive = header("records", 1 << 40, b'x');
    archive.extend(sample());
    assert_refused(&archive, "a terabyte of records");
}

/// Bytes, then zeros for ever.
struct Endless<'a>(&'a [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            buf.fill(0);
            return Ok(buf.len());
        }
        self.0.read(buf)
    }
}

#[test]
fn a_size_costs_nothing_before_the_bytes_come() {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='3298534883328'")]);
    let mut archive = tar(&[("x.ovf", &xml)]);
    archive.truncate(archive.len() - 1024);
    archive.extend(header("a.vmdk", 3 << 40, b'0'));
    let mut reader = OvaReader::open(Endless(&archive), "x.ova").unwrap();
    let mut file = reader.next_file().unwrap().unwrap();
    assert_eq!(file.size(), Some(3 << 40));
    let mut piece = [1; 4096];
    assert_eq!(file.read(&mut piece).unwrap(), 4096);
    // The other reader sees at once that they are not there.
    assert!(matches!(random(&archive), Err(Error::Malformed { .. })));
    // A descriptor or a manifest is never that large.
    for name in ["x.ovf", "x.mf"] {
        let mut archive = tar(&[("w.ovf", &descriptor(&[]))]);
        archive.truncate(archive.len() - 1024);
        let mut huge = if name == "x.ovf" { Vec::new() } else { archive };
        huge.extend(header(name, 3 << 40, b'0'));
        assert!(matches!(OvaReader::open(Endless(&huge), "x.ova"), Err(Error::Malformed { .. })), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damage_never_panics(flips in prop::collection::vec((0..8192_usize, any::<u8>()), 1..6), cut in 0..9000_usize, resign in any::<bool>()) {
        let mut archive = sample();
        for (at, value) in flips {
            let len = archive.len();
            archive[at % len] = value;
            if resign {
                // Past the checksum, so that what it guards is met.
                let block = at % len / 512 * 512;
                if archive[block + 257..].starts_with(b"ustar") {
                    sign(&mut archive[block..block + 512]);
                }
            }
        }
        archive.truncate(cut.max(1));
        let _ = forward(archive.as_slice());
        if let Ok(package) = random(&archive) {
            let _ = package.verify();
        }
    }
}

#[test]
fn what_other_records_say_may_be_any_bytes() {
    let xml = descriptor(&[]);
    let record = b"25 SCHILY.xattr.a=\xff\xfe\0\n=\x80\n";
    let mut archive = header("PaxHeader/x.ovf", record.len() as u64, b'x');
    archive.extend(record);
    archive.resize(1024, 0);
    archive.extend(tar(&[("x.ovf", &xml)]));
    assert!(forward(archive.as_slice()).is_ok() && random(&archive).is_ok());
}
