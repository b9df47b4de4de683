//! What others write is read.

use std::{fs, io::Read, sync::Arc};

use vmdk::{
    Error, MemSource, ReadAt,
    ova::{DigestAlgorithm, Manifest, OvaReader, OvfPackage},
};

use super::{descriptor, forward, header, sign, tar};

const ABC_SHA1: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";

fn random(archive: &[u8]) -> vmdk::Result<OvfPackage> {
    OvfPackage::from_source(Arc::new(MemSource::new(archive.to_vec())), "test.ova")
}

fn bytes(package: &OvfPackage, index: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    package.file(&package.descriptor().files[index]).unwrap().reader().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn any_order_behind_the_descriptor_is_read() {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='3'"), ("g", "b c.txt", "")]);
    let mf = format!("SHA1(a.vmdk)= {ABC_SHA1}\n");
    let [ovf, a, b, mf, cert, extra]: [(&str, &[u8]); 6] = [
        ("x.ovf", &xml),
        ("./a.vmdk", b"abc"),
        ("b c.txt", b""),
        ("x.mf", mf.as_bytes()),
        ("x.cert", b"signed"),
        ("x.nvram", b"nv"),
    ];
    for order in [
        vec![ovf, mf, cert, a, b, extra],
        vec![ovf, a, b, extra, mf, cert],
        vec![ovf, extra, b, cert, a, mf],
        vec![ovf, a, mf, b, cert, extra],
    ] {
        let archive = tar(&order);
        let (mut files, verification) = forward(archive.as_slice()).unwrap();
        files.sort();
        let names: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        assert_eq!(names, [("a.vmdk", b"abc".as_slice()), ("b c.txt", b""), ("x.nvram", b"nv")]);
        assert_eq!(verification.verified, ["a.vmdk"]);
        assert_eq!(verification.unverified.len(), 3);
        assert!(verification.has_certificate && verification.has_manifest);
        let package = random(&archive).unwrap();
        assert_eq!((bytes(&package, 0), bytes(&package, 1)), (b"abc".to_vec(), Vec::new()));
        assert!(package.has_certificate());
        assert_eq!(package.verify().unwrap().verified, ["a.vmdk"]);
    }
    // A descriptor that comes last can be found, but not by who goes forward.
    let archive = tar(&[a, b, ovf]);
    assert!(forward(archive.as_slice()).unwrap_err().to_string().contains("at random"));
    let package = random(&archive).unwrap();
    assert_eq!(bytes(&package, 0), b"abc");
    assert!(!package.verify().unwrap().has_manifest);
}

#[test]
fn names_may_be_escaped_or_not() {
    let xml = descriptor(&[("f", "a%20b.vmdk", ""), ("g", "100%.txt", "")]);
    for name in ["a b.vmdk", "a%20b.vmdk"] {
        let archive = tar(&[("x.ovf", &xml), (name, b"abc"), ("100%.txt", b"x")]);
        assert_eq!(forward(archive.as_slice()).unwrap().0[0].1, b"abc");
        assert_eq!(bytes(&random(&archive).unwrap(), 0), b"abc");
    }
}

#[test]
fn pieces_are_one_file() {
    let piece = |index: usize| format!("a.vmdk.{index:09}");
    let content: Vec<u8> = (0..25).collect();
    for size in ["o:size='25'", ""] {
        let xml = descriptor(&[("f", "a.vmdk", &format!("o:chunkSize='10' {size}")), ("g", "b.txt", "")]);
        let names = [piece(0), piece(1), piece(2)];
        let mut members = vec![("x.ovf", xml.as_slice())];
        members.extend(names.iter().zip(content.chunks(10)).map(|(name, chunk)| (name.as_str(), chunk)));
        members.push(("b.txt", b"b"));
        let archive = tar(&members);
        let (files, verification) = forward(archive.as_slice()).unwrap();
        assert_eq!(files, [("a.vmdk".to_owned(), content.clone()), ("b.txt".to_owned(), b"b".to_vec())]);
        assert_eq!(verification.unverified.len(), 5, "{verification:?}");
        let package = random(&archive).unwrap();
        assert_eq!(bytes(&package, 0), content);
        let file = package.disk_file("d").unwrap();
        let mut middle = [0; 12];
        file.read_exact_at(&mut middle, 9).unwrap();
        assert_eq!(middle, content[9..21]);
        // Beside a descriptor as well.
        let dir = tempfile::tempdir().unwrap();
        members.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
        let package = OvfPackage::open(dir.path().join("x.ovf")).unwrap();
        assert_eq!(bytes(&package, 0), content);
    }
    let xml = descriptor(&[("f", "a.vmdk", "o:chunkSize='10' o:size='25'")]);
    let broken = |pieces: &[(usize, &[u8])]| {
        let names: Vec<String> = pieces.iter().map(|(index, _)| piece(*index)).collect();
        let mut members = vec![("x.ovf", xml.as_slice())];
        members.extend(names.iter().zip(pieces).map(|(name, (_, bytes))| (name.as_str(), *bytes)));
        tar(&members)
    };
    let (ten, five) = ([1; 10].as_slice(), [2; 5].as_slice());
    for pieces in [
        vec![],
        vec![(0, ten), (1, ten)],
        vec![(0, ten), (2, five)],
        vec![(1, ten), (0, ten), (2, five)],
        vec![(0, ten), (1, five), (2, ten)],
        vec![(0, five), (1, ten), (2, ten)],
    ] {
        let archive = broken(&pieces);
        assert!(matches!(forward(archive.as_slice()), Err(Error::Malformed { .. } | Error::Io { .. })), "{pieces:?}");
    }
    for pieces in [vec![(0, ten), (1, ten)], vec![(0, ten), (2, five)], vec![(0, ten), (1, five), (2, ten)]] {
        assert!(matches!(random(&broken(&pieces)), Err(Error::Malformed { .. })), "{pieces:?}");
    }
}

#[test]
fn what_is_compressed_as_a_whole_is_bytes_and_no_disk() {
    let xml = descriptor(&[("f", "a.vmdk.gz", "o:compression='gzip'")]);
    let archive = tar(&[("x.ovf", &xml), ("a.vmdk.gz", b"\x1f\x8b")]);
    let package = random(&archive).unwrap();
    assert_eq!(bytes(&package, 0), b"\x1f\x8b");
    assert!(matches!(package.disk_file("d"), Err(Error::NotSupported { .. })));
    assert!(matches!(package.open_disk("d"), Err(Error::NotSupported { .. })));
}

#[test]
fn headers_of_all_ages_are_read() {
    let xml = descriptor(&[("f", "a.vmdk", "")]);
    let member = |name: &str, content: &[u8], change: fn(&mut Vec<u8>)| {
        let mut block = header(name, content.len() as u64, b'0');
        change(&mut block);
        sign(&mut block);
        block.extend(content);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    };
    let v7 = |block: &mut Vec<u8>| {
        block[156] = 0;
        block[257..].fill(0);
    };
    let gnu = |block: &mut Vec<u8>| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[345..350].copy_from_slice(b"atime");
    };
    let blanks = |block: &mut Vec<u8>| block[124..136].copy_from_slice(b"         3  ");
    let base_256 = |block: &mut Vec<u8>| block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x03");
    for change in [v7, gnu, blanks, base_256] {
        let mut archive = member("x.ovf", &xml, |_| ());
        archive.extend(member("a.vmdk", b"abc", change));
        // One block of zeros ends it as well as two.
        archive.extend([0; 512]);
        assert_eq!(forward(archive.as_slice()).unwrap().0[0].1, b"abc");
        assert_eq!(bytes(&random(&archive).unwrap(), 0), b"abc");
    }
    // Directories are passed over; names and sizes may stand in records before the header.
    for (kind, records) in [(b'L', b"a.vmdk\0".as_slice()), (b'x', b"15 path=a.vmdk\n10 size=3\n")] {
        let mut archive = header("./", 0, b'5');
        archive.extend(member("x.ovf", &xml, |_| ()));
        archive.extend(header("records", records.len() as u64, kind));
        archive.extend(records);
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive.extend(member("short", b"abc", |_| ()));
        archive.extend([0; 1024]);
        assert_eq!(forward(archive.as_slice()).unwrap().0, [("a.vmdk".to_owned(), b"abc".to_vec())]);
    }
}

#[test]
fn a_wrong_digest_names_the_file_and_both_digests() {
    let xml = descriptor(&[("f", "a.vmdk", ""), ("g", "b.txt", "")]);
    let manifest = format!("SHA1(a.vmdk)= {}\n", ABC_SHA1.replace('a', "b"));
    for order in [["x.mf", "a.vmdk", "b.txt"], ["a.vmdk", "b.txt", "x.mf"]] {
        let members = order.map(|name| match name {
            "x.mf" => (name, manifest.as_bytes()),
            "a.vmdk" => (name, b"abc".as_slice()),
            _ => (name, b"b".as_slice()),
        });
        let archive = tar(&[&[("x.ovf", xml.as_slice())], members.as_slice()].concat());
        let package = random(&archive).unwrap();
        let failures = [forward(archive.as_slice()).map(|(_, found)| found), package.verify()];
        for failure in failures {
            let error = failure.unwrap_err();
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text.push_str(&format!(": {inner}"));
                source = inner.source();
            }
            assert!(!error.is_retryable());
            for part in ["a.vmdk", "SHA1", ABC_SHA1, &ABC_SHA1.replace('a', "b")] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
        // Whoever reads on after that gets nothing.
        let mut reader = OvaReader::open(archive.as_slice(), "x.ova").unwrap();
        while reader.next_file().is_ok_and(|file| file.is_some()) {}
        assert!(reader.next_file().is_err());
    }
}

#[test]
fn what_the_manifest_lists_must_be_there() {
    let xml = descriptor(&[]);
    let manifest = format!("SHA1(gone.vmdk)= {ABC_SHA1}\n");
    let archive = tar(&[("x.ovf", &xml), ("x.mf", manifest.as_bytes())]);
    assert!(forward(archive.as_slice()).unwrap_err().to_string().contains("gone.vmdk"));
    assert!(random(&archive).unwrap().verify().unwrap_err().to_string().contains("gone.vmdk"));
    let parsed = Manifest::parse(manifest.as_bytes(), "x.mf").unwrap();
    assert_eq!(parsed.get("gone.vmdk").unwrap().algorithm(), DigestAlgorithm::Sha1);
    // A file that no reference names may be listed.
    let manifest = format!("SHA1(x.nvram)= {ABC_SHA1}\n");
    let archive = tar(&[("x.ovf", &xml), ("x.mf", manifest.as_bytes()), ("x.nvram", b"abc")]);
    assert_eq!(forward(archive.as_slice()).unwrap().1.verified, ["x.nvram"]);
    assert_eq!(random(&archive).unwrap().verify().unwrap().verified, ["x.nvram"]);
}
