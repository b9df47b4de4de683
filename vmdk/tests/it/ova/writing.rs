//! What is written: bytes, order, promises.

use std::{fs, io::Write, sync::Arc};

use vmdk::{
    Error, Handle, MemSource, ReadAt,
    ova::{
        Capacity, Content, Digest, DigestAlgorithm, DiskController, DiskSpec, LargeFiles, Manifest, OvaOptions,
        OvaReader, OvaWriter, OvfPackage, OvfSpec, Packing, STREAM_OPTIMIZED,
    },
    stream::StreamReader,
};

use super::{Disks, descriptor, forward};

/// The bytes of a stream's disk.
pub(super) fn decoded(stream: impl std::io::Read) -> Vec<u8> {
    let mut reader = StreamReader::open(stream, "disk").unwrap();
    let mut content = vec![0; reader.capacity() as usize];
    while let Some(grain) = reader.next_grain().unwrap() {
        content[grain.offset as usize..][..grain.data.len()].copy_from_slice(grain.data);
    }
    content
}

#[test]
fn disks_go_into_an_ova_and_come_back() {
    let disks = Disks::new();
    let packing = Packing::new(disks.spec().file("web.nvram"))
        .file("disk1.vmdk", Content::disk(&disks.disks[0]))
        .file("disk 2.vmdk", Content::disk(&disks.disks[1]));
    let nvram = MemSource::new(vec![7; 1000]);
    let packing = packing.file("web.nvram", Content::ready(&nvram));
    let archive = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap();
    assert!(packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap() == archive, "not the same bytes");

    let mut reader = OvaReader::open(archive.as_slice(), "web.ova").unwrap();
    assert_eq!(reader.descriptor_name(), "web _ co.ovf");
    assert!(reader.manifest().is_some(), "the manifest must come before the disks");
    for (index, name) in ["disk1.vmdk", "disk 2.vmdk"].into_iter().enumerate() {
        let mut file = reader.next_file().unwrap().unwrap();
        assert_eq!(file.name(), name);
        let disk = file.disk().unwrap();
        assert_eq!(disk.capacity, Capacity::Bytes(disks.contents[index].len() as u64));
        assert_eq!(disk.format.as_deref(), Some(STREAM_OPTIMIZED));
        assert!(disk.populated_size.unwrap() > 0);
        assert!(decoded(&mut file) == disks.contents[index]);
    }
    let verification = reader.finish().unwrap();
    assert_eq!(verification.verified, ["web _ co.ovf", "disk1.vmdk", "disk 2.vmdk", "web.nvram"]);
    assert!(verification.unverified.is_empty() && verification.has_manifest && !verification.has_certificate);

    let package = OvfPackage::from_source(Arc::new(MemSource::new(archive)), "web.ova").unwrap();
    assert_eq!(package.verify().unwrap().verified.len(), 4);
    let stream = package.disk_file("vmdisk2").unwrap();
    assert!(decoded(stream.reader()) == disks.contents[1]);
    assert!(matches!(package.disk_file("vmdisk3"), Err(Error::InvalidInput { .. })));
}

#[test]
fn a_directory_holds_the_same_package() {
    let disks = Disks::new();
    let packing = Packing::new(disks.spec())
        .file("disk1.vmdk", Content::disk(&disks.disks[0]))
        .file("disk 2.vmdk", Content::disk(&disks.disks[1]));
    let archive = packing.write_ova(Vec::new(), &OvaOptions::new().digest(DigestAlgorithm::Sha512)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    packing.write_directory(dir.path(), DigestAlgorithm::Sha512).unwrap();
    let package = OvfPackage::open(dir.path().join("web _ co.ovf")).unwrap();
    let archived = OvfPackage::from_source(Arc::new(MemSource::new(archive)), "web.ova").unwrap();
    assert_eq!(package.descriptor(), archived.descriptor());
    assert_eq!(package.manifest(), archived.manifest());
    assert_eq!(package.verify().unwrap(), {
        let mut all = archived.verify().unwrap();
        all.has_manifest = true;
        all
    });
    // Nothing is overwritten.
    assert!(matches!(packing.write_directory(dir.path(), DigestAlgorithm::Sha1), Err(Error::Io { .. })));
    // A changed file is noticed; so is a missing one, before anything is read.
    let path = dir.path().join("disk1.vmdk");
    let mut bytes = fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = package.verify().unwrap_err().to_string();
    assert!(error.contains("disk1.vmdk") && error.contains("SHA512"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(OvfPackage::open(dir.path().join("web _ co.ovf")).unwrap_err().to_string().contains("missing"));
}

#[test]
fn the_descriptor_says_where_disks_are() {
    let disks = Disks::new();
    let packing = Packing::new(disks.spec())
        .file("disk1.vmdk", Content::disk(&disks.disks[0]))
        .file("disk 2.vmdk", Content::disk(&disks.disks[1]));
    let archive = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap();
    let reader = OvaReader::open(archive.as_slice(), "web.ova").unwrap();
    let found = reader.descriptor();
    let system = &found.systems[0];
    assert_eq!((system.id.as_str(), system.name.as_deref()), ("web & co", Some("web & co")));
    assert_eq!((system.os_id, system.vmware_os.as_deref()), (Some(94), Some("ubuntu64Guest")));
    assert_eq!(system.hardware.as_deref(), Some("vmx-14"));
    assert_eq!(found.networks, ["Backup & DMZ", "VM Network"]);
    let places: Vec<String> = found
        .disk_attachments()
        .iter()
        .map(|at| format!("{} {:?} {:?}:{:?} {:?}", at.disk_id, at.bus, at.bus_number, at.unit, at.controller_subtype))
        .collect();
    let expected =
        ["vmdisk1 Some(Scsi) Some(0):Some(0) Some(\"VirtualSCSI\")", "vmdisk2 Some(Ide) Some(1):Some(1) None"];
    assert_eq!(places, expected);
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let zero = MemSource::new(vec![0; 512]);
    let pack = |spec: OvfSpec| {
        Packing::new(spec)
            .file("a", Content::ready(&zero))
            .file("b", Content::ready(&zero))
            .write_ova(Vec::new(), &OvaOptions::new())
    };
    let two = |a: (DiskController, u32, u32), b: (DiskController, u32, u32)| {
        OvfSpec::new("x")
            .disk(DiskSpec::new("a", 512).at(a.0, a.1, a.2))
            .disk(DiskSpec::new("b", 512).at(b.0, b.1, b.2))
    };
    use DiskController::{Ide, LsiLogic, Nvme, ParaVirtual, Sata};
    assert!(pack(two((Sata, 3, 29), (Nvme, 0, 0))).is_ok());
    for (a, b) in [
        ((LsiLogic, 0, 0), (LsiLogic, 0, 0)),
        ((LsiLogic, 0, 0), (ParaVirtual, 0, 1)),
        ((LsiLogic, 0, 7), (LsiLogic, 0, 0)),
        ((LsiLogic, 0, 16), (LsiLogic, 0, 0)),
        ((Ide, 2, 0), (Ide, 0, 0)),
        ((Ide, 0, 2), (Ide, 0, 0)),
    ] {
        assert!(matches!(pack(two(a, b)), Err(Error::InvalidInput { .. })), "{a:?} {b:?}");
    }
    let fine = || two((Ide, 0, 0), (Ide, 0, 1));
    assert!(pack(fine().processors(0)).is_err());
    assert!(pack(fine().annotation("bell \u{7}")).is_err());
    assert!(pack(fine().file("c")).is_err(), "a file without content");
    assert!(pack(OvfSpec::new("x")).is_err(), "contents that nobody asked for");
    assert!(pack(OvfSpec::new("x").file("../a").file("b")).is_err());
}

#[test]
fn a_disk_that_changes_while_it_is_packed_is_an_error() {
    /// Other bytes each time.
    #[derive(Debug)]
    struct Restless(std::sync::atomic::AtomicU8);
    impl ReadAt for Restless {
        fn len(&self) -> std::io::Result<u64> {
            Ok(4)
        }
        fn read_exact_at(&self, buf: &mut [u8], _: u64) -> std::io::Result<()> {
            buf.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            Ok(())
        }
    }
    let restless = Restless(0.into());
    let packing = Packing::new(OvfSpec::new("x").file("a")).file("a", Content::ready(&restless));
    let error = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap_err();
    assert!(matches!(&error, Error::InvalidInput { .. }) && error.to_string().contains("changed"), "{error}");
}

#[test]
fn a_writer_keeps_its_word_or_fails() {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='3'"), ("g", "b.txt", "")]);
    let new = || OvaWriter::new(Vec::new(), "x.ovf", &xml, &OvaOptions::new().digest(DigestAlgorithm::Sha1)).unwrap();
    let mut ova = new();
    assert!(matches!(ova.file("b.txt", 3), Err(Error::InvalidInput { .. })), "out of order");
    assert!(matches!(ova.file("a.vmdk", 4), Err(Error::InvalidInput { .. })), "another size than said");
    let mut file = ova.file("a.vmdk", 3).unwrap();
    assert_eq!(file.write(b"abcd").unwrap(), 3);
    assert!(file.write(b"d").is_err(), "longer than said");
    assert_eq!(file.finish().unwrap().to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert!(new().finish().is_err(), "files are missing");
    let file = ova.file("b.txt", 1).unwrap();
    assert!(file.finish().is_err(), "shorter than said");
    assert!(ova.finish().is_err(), "broken");

    // The manifest that comes last; a certificate is somebody else's business.
    let mut ova = new();
    for (href, bytes) in [("a.vmdk", b"abc".as_slice()), ("b.txt", b"")] {
        let mut file = ova.file(href, bytes.len() as u64).unwrap();
        file.write_all(bytes).unwrap();
        file.finish().unwrap();
    }
    let archive = ova.finish().unwrap();
    let (files, verification) = forward(archive.as_slice()).unwrap();
    assert_eq!(files, [("a.vmdk".to_owned(), b"abc".to_vec()), ("b.txt".to_owned(), Vec::new())]);
    assert_eq!(verification.verified, ["x.ovf", "a.vmdk", "b.txt"]);

    let mut wrong = Manifest::new();
    let digest = |digit: &str| Digest::from_hex(DigestAlgorithm::Sha1, &digit.repeat(40)).unwrap();
    wrong.insert("a.vmdk", digest("0"));
    let options = OvaOptions::new().digest(DigestAlgorithm::Sha1);
    for href in ["x.ovf", "./x.mf", "x%2Eovf", &"n".repeat(101)] {
        let own = descriptor(&[("f", href, "")]);
        let outcome = OvaWriter::new(Vec::new(), "x.ovf", &own, &options);
        assert!(matches!(outcome, Err(Error::InvalidInput { .. })), "{href}");
    }
    let short = OvaWriter::with_manifest(Vec::new(), "x.ovf", &xml, &wrong, &options);
    assert!(matches!(short, Err(Error::InvalidInput { .. })));
    wrong.insert("b.txt", digest("1"));
    let mut ova = OvaWriter::with_manifest(Vec::new(), "x.ovf", &xml, &wrong, &options).unwrap();
    let mut file = ova.file("a.vmdk", 3).unwrap();
    file.write_all(b"abc").unwrap();
    assert!(file.finish().unwrap_err().to_string().contains("promised"));
}

#[test]
fn sizes_above_ustar_are_written_as_asked() {
    let size = 3_u64 << 40;
    let xml = descriptor(&[("f", "big.vmdk", &format!("o:size='{size}'"))]);
    let begin = |large| {
        let options = OvaOptions::new().large_files(large);
        let mut ova = OvaWriter::new(Vec::new(), "x.ovf", &xml, &options)?;
        ova.file("big.vmdk", size).map(drop)?;
        vmdk::Result::Ok(ova.bytes_written())
    };
    let gnu = begin(LargeFiles::Gnu).unwrap();
    assert_eq!(begin(LargeFiles::Pax).unwrap(), gnu + 1024);
    assert!(matches!(begin(LargeFiles::Refuse), Err(Error::InvalidInput { .. })));
}

#[test]
fn a_ready_descriptor_is_packed_as_it_is() {
    let disks = Disks::new();
    let disk = Content::disk(&disks.disks[1]);
    let size = disk.size().unwrap();
    let exact = descriptor(&[("f", "a.vmdk", &format!("o:size='{size}'"))]);
    for threads in [1, 3] {
        let packing = Packing::with_descriptor("x.ovf", exact.clone()).file("a.vmdk", disk.clone()).threads(threads);
        let archive = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap();
        assert_eq!(forward(archive.as_slice()).unwrap().0[0].1.len() as u64, size);
    }

    let xml = descriptor(&[("f", "sub/a.vmdk", "o:size='3'")]);
    let source = MemSource::new(b"abc".to_vec());
    assert_eq!(Content::ready(&source).size().unwrap(), 3);
    let packing = Packing::with_descriptor("x.ovf", xml.clone()).file("sub/a.vmdk", Content::ready(&source));
    let archive = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap();
    let reader = OvaReader::open(archive.as_slice(), "x.ova").unwrap();
    assert_eq!(reader.descriptor().xml(), xml);
    let dir = tempfile::tempdir().unwrap();
    packing.write_directory(dir.path(), DigestAlgorithm::Sha256).unwrap();
    let package = OvfPackage::open(dir.path().join("x.ovf")).unwrap();
    assert_eq!(package.verify().unwrap().verified, ["sub/a.vmdk", "x.ovf"]);
    // Sizes that lie are the caller's fault, and found.
    let longer = MemSource::new(b"abcd".to_vec());
    let packing = Packing::with_descriptor("x.ovf", xml).file("sub/a.vmdk", Content::ready(&longer));
    assert!(matches!(packing.write_ova(Vec::new(), &OvaOptions::new()), Err(Error::InvalidInput { .. })));
}

#[test]
fn a_disk_inside_an_archive_opens_without_unpacking() {
    let disks = Disks::new();
    let packing = Packing::new(OvfSpec::new("x").disk(DiskSpec::new("a.vmdk", disks.contents[1].len() as u64)))
        .file("a.vmdk", Content::disk(&disks.disks[1]));
    let archive = packing.write_ova(Vec::new(), &OvaOptions::new()).unwrap();
    let package = OvfPackage::from_source(Arc::new(MemSource::new(archive)), "x.ova").unwrap();
    crate::support::assert_is(&package.open_disk("vmdisk1").unwrap(), &disks.contents[1]);
    // The same bytes, without the archive around, are the same source.
    let file = package.disk_file("vmdisk1").unwrap();
    let handle = Handle::ReadOnly(Arc::new(file.clone()));
    assert_eq!(handle.reader().len().unwrap(), file.len().unwrap());
}

#[test]
fn names_that_a_descriptor_would_change_are_refused() {
    let write = |spec: OvfSpec| Packing::new(spec).write_ova(Vec::new(), &OvaOptions::new());
    assert!(write(OvfSpec::new("web").annotation("two\nlines")).is_ok());
    for spec in [
        OvfSpec::new("two\nlines"),
        OvfSpec::new("web").network(vmdk::ova::NetworkSpec::new("a\tb")),
        OvfSpec::new("web").annotation("a\u{1}b"),
        OvfSpec::new("web").annotation("a\u{ffff}b"),
    ] {
        assert!(matches!(write(spec), Err(Error::InvalidInput { .. })));
    }
}

/// Takes a part of the write with this number, and fails once; all is well before and after.
struct Hiccup(u32);

impl Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            2 => Ok(bytes.len() / 2),
            1 => Err(std::io::ErrorKind::TimedOut.into()),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_archive_is_not_continued_behind_a_write_that_failed() {
    let xml = descriptor(&[("f", "a.vmdk", "o:size='0'")]);
    // Descriptor with header and padding are three writes: the file's header fails in its middle.
    let mut writer = OvaWriter::new(Hiccup(6), "x.ovf", &xml, &OvaOptions::new()).unwrap();
    for _ in 0..2 {
        assert!(matches!(writer.file("a.vmdk", 0).map(drop), Err(Error::Io { .. })));
    }
    assert!(writer.finish().is_err());
}
