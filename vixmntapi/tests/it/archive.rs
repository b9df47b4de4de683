//! Archives, unpacked by the programs of others.

use std::{fs::File, io, ops::ControlFlow, os::unix::ffi::OsStrExt, path::Path, process::Command};

use sha2::{Digest, Sha256};
use vixmntapi::{
    Error,
    archive::Archive,
    fs::{FileKind, NodeId, Timestamp},
};

use crate::{
    compare::{Compare, assert_same},
    disks::raw,
    images,
    made_up::MadeUp,
    peers::{peer, run},
    tree::{Manifest, Names, Tree, noise},
};

#[test]
fn gnu_tar_unpacks_all_that_the_guest_has() {
    let (Some(_), Some(tar)) = (peer("mke2fs"), peer("tar")) else { return };
    let tree = Tree::new().many(100).deep(40).sizes().sparse(30 << 20).names(Names::Bytes).links().xattrs().modes();
    let (files, image) = images::ext4(&tree);
    let mut lengths = Vec::new();
    for sparse in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (packed, unpacked) = (folder.path().join("all.tar"), folder.path().join("all"));
        std::fs::create_dir(&unpacked).unwrap();
        let archive = Archive::new(&files);
        let archive = if sparse { archive.sparse() } else { archive };
        let report = archive.tar(io::BufWriter::new(File::create(&packed).unwrap())).unwrap();
        assert_eq!((report.failed, report.left_out), (0, 1), "{:?}", report.failures); // The socket.
        lengths.push(std::fs::metadata(&packed).unwrap().len());
        let (all, include) = (["--xattrs", "--numeric-owner", "--same-owner"], "--xattrs-include=*");
        run(&tar, &[&"-xpf", &packed, &all[0], &all[1], &all[2], &include, &"-C", &unpacked]);
        let mut manifest = Manifest::of(&unpacked);
        let source = Manifest::of(tree.path());
        // tar has no sockets; ACLs are another option of GNU tar, which wants them as text.
        manifest.0.insert(b"links/socket".to_vec(), source.0[&b"links/socket"[..]].clone());
        let truth = source.0;
        let manifest = manifest.map(|path, node| {
            if let Some(known) = truth.get(path) {
                let acls = known.xattrs.iter().filter(|(name, _)| name.starts_with(b"system.posix_acl"));
                node.xattrs.extend(acls.map(|(name, value)| (name.clone(), value.clone())));
            }
        });
        let manifest = manifest.map(|path, node| {
            if path == b"links/socket" || path == b"links" {
                node.modified = files_time(&files, path);
            }
        });
        assert_same(&files, &raw(image.path()), &manifest, Compare::ALL);
    }
    assert!(lengths[1] + (35 << 20) < lengths[0], "{lengths:?}");
}

fn files_time(files: &std::sync::Arc<dyn vixmntapi::fs::FileSystem>, path: &[u8]) -> Timestamp {
    let walk = path
        .split(|byte| *byte == b'/')
        .fold(files.root(), |node, name| files.lookup(node, &vixmntapi::fs::FileName::from(name)).unwrap().unwrap());
    files.metadata(walk).unwrap().times.modified
}

fn python(script: &str, argument: &Path) -> Option<String> {
    let python = peer("python3")?;
    Some(run(python, &[&"-c", &script, &argument]))
}

#[test]
fn what_ustar_has_no_place_for_is_in_records() {
    let long = vec![b'n'; 255];
    let files = MadeUp::new(&[(&long, 2), (b"old", 3), (b"latin \xe9", 4), (b"..", 4), (b"link", 6), (b"same", 2)])
        .file(2, b"two")
        .file(3, b"three")
        .file(4, b"four")
        .link(6, &[b'x'; 300])
        .change(2, |metadata| {
            metadata.links = 2;
            (metadata.uid, metadata.gid) = (u32::MAX - 1, 3_000_000);
            metadata.times.modified = Timestamp::new(4_102_444_800, 987_654_321);
        })
        .change(3, |metadata| metadata.times.modified = Timestamp::new(-300_000_001, 999_999_999))
        .xattr(3, "user.a=b%", b"a\nb=\0c")
        .shared();
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("all.tar");
    let report = Archive::new(&files).named("top").tar(File::create(&packed).unwrap()).unwrap();
    assert_eq!((report.entries, report.failed), (6, 1));
    assert!(matches!(&report.failures[0], Error::At { source, .. } if source.to_string().contains("lead elsewhere")));
    let script = "import sys,tarfile,decimal
for i in tarfile.open(sys.argv[1]):
    h=i.pax_headers
    print(ascii(i.name), i.type.decode(), i.uid, i.gid, h.get('mtime',i.mtime), len(i.linkname), ascii(h.get('SCHILY.xattr.user.a%3Db%25')))";
    let Some(said) = python(script, &packed) else { return };
    let long = String::from_utf8(long).unwrap();
    let expected = [
        "'top' 5 0 0 0 0 None".to_owned(),
        format!("'top/{long}' 0 4294967294 3000000 4102444800.987654321 0 None"),
        r"'top/old' 0 0 0 -300000000.000000001 0 'a\nb=\x00c'".to_owned(),
        r"'top/latin \udce9' 0 0 0 0 0 None".to_owned(),
        "'top/link' 2 0 0 0 300 None".to_owned(),
        "'top/same' 1 4294967294 3000000 4102444800.987654321 259 None".to_owned(),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn python_and_unzip_read_a_zip_archive_as_the_guest_has_it() {
    let Some(_) = peer("mke2fs") else { return };
    let tree = Tree::new().many(50).deep(10).sizes().sparse(10 << 20).names(Names::Bytes).links().modes();
    let (files, _image) = images::ext4(&tree);
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("all.zip");
    let report = Archive::new(&files).zip(io::BufWriter::new(File::create(&packed).unwrap())).unwrap();
    assert_eq!(report.failed, 0, "{:?}", report.failures);
    let script = "import sys,zipfile,hashlib,binascii
z=zipfile.ZipFile(sys.argv[1])
for i in z.infolist():
    raw=i.orig_filename.encode('utf-8' if i.flag_bits&0x800 else 'cp437')
    print(binascii.hexlify(raw).decode(), i.external_attr>>16, i.file_size, hashlib.sha256(z.read(i)).hexdigest())";
    let Some(said) = python(script, &packed) else { return };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut expected = Vec::new();
    for (path, node) in Manifest::of(tree.path()).0 {
        let (name, bytes, kind) = match node.kind {
            FileKind::Directory if path.is_empty() => continue,
            FileKind::Directory => ([&path[..], b"/"].concat(), Vec::new(), 0o40_000),
            FileKind::Symlink => (path, node.target.unwrap(), 0o120_000),
            FileKind::File => {
                let bytes = std::fs::read(tree.path().join(std::ffi::OsStr::from_bytes(&path))).unwrap();
                (path, bytes, 0o100_000)
            }
            _ => continue,
        };
        expected.push(format!("{} {} {} {}", hex(&name), kind | node.mode, bytes.len(), hex(&Sha256::digest(&bytes))));
    }
    let mut found: Vec<_> =
        said.lines().filter(|line| !line.starts_with(&hex(b"lost+found"))).map(String::from).collect();
    found.sort();
    expected.sort();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    let Some(unzip) = peer("unzip") else { return };
    let tested = Command::new(unzip).env("LC_ALL", "C.UTF-8").args(["-t", "-q"]).arg(&packed).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[test]
fn more_and_larger_files_than_old_zip_can_count_are_read_by_others() {
    let names: Vec<_> = (2..70_002).map(|number| (format!("{number}").into_bytes(), 2)).collect();
    let mut names: Vec<_> = names.iter().map(|(name, number)| (&**name, *number)).collect();
    names.push((b"large", 3));
    // It is said to have 5 GiB when its header is written, so that its sizes have 64 bits.
    let files =
        MadeUp::new(&names).file(2, b"2").file(3, b"less").change(3, |metadata| metadata.size = 5 << 30).shared();
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("all.zip");
    let report = Archive::new(&files).zip(io::BufWriter::new(File::create(&packed).unwrap())).unwrap();
    assert_eq!((report.entries, report.failed), (70_002, 0));
    let script = "import sys,zipfile
z=zipfile.ZipFile(sys.argv[1]); print(len(z.namelist()), z.read('70001'), z.read('large'))";
    let Some(said) = python(script, &packed) else { return };
    assert_eq!(said.trim(), "70001 b'2' b'less'");
    let Some(unzip) = peer("unzip") else { return };
    run(unzip, &[&"-t", &"-qq", &packed, &"large", &"7000?"]);
}

#[test]
#[ignore = "half a minute: cargo test -p vixmntapi --test it -- --ignored archive"]
fn files_of_more_than_4_gib_are_packed_and_read_by_others() {
    let bytes = noise(1 << 20);
    let files = MadeUp::new(&[(b"a", 2), (b"b", 3)])
        .sparse(2, 5 << 30, &[((5 << 30) - (1 << 20), &bytes)])
        .file(3, b"after")
        .shared();
    let folder = tempfile::tempdir().unwrap();
    let (zip, tar) = (folder.path().join("all.zip"), folder.path().join("all.tar"));
    Archive::new(&files).zip(io::BufWriter::new(File::create(&zip).unwrap())).unwrap();
    Archive::new(&files).tar(io::BufWriter::new(File::create(&tar).unwrap())).unwrap();
    let script = "import sys,zipfile
z=zipfile.ZipFile(sys.argv[1]); print([i.file_size for i in z.infolist()], z.testzip())";
    assert_eq!(python(script, &zip).unwrap().trim(), "[5368709120, 5] None");
    assert!(run("tar", &[&"-tvf", &tar]).contains("5368709120"));
}

#[test]
fn an_archive_ends_where_a_file_cannot_be_read_or_it_is_told_to() {
    let files = MadeUp::new(&[(b"a", 2), (b"bad", 3), (b"c", 2)]).file(2, &[1; 3000]).damaged(3).shared();
    let report = Archive::new(&files).tar(io::sink()).unwrap();
    assert_eq!((report.entries, report.failed, report.bytes, report.cancelled), (4, 1, 6000, false));
    let report = Archive::new(&files)
        .on_progress(|progress| match progress.bytes {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })
        .zip(io::sink())
        .unwrap();
    assert!(report.cancelled && report.entries == 1, "{report:?}");
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(Archive::new(&files).zip(Full), Err(Error::Local { .. })));
    assert!(matches!(Archive::of(&files, NodeId { tree: 0, number: 2 }).tar(io::sink()), Err(Error::Invalid(_))));
    assert!(matches!(Archive::new(&files).named("..").tar(io::sink()), Err(Error::Invalid(_))));
}
