//! Packages against the programs of others: GNU tar, Python's tarfile and hashlib, qemu-img, govmomi's simulator.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use vmdk::ova::{Content, DigestAlgorithm, LargeFiles, OvaOptions, OvaReader, OvaWriter, OvfPackage, Packing};

use super::{Disks, descriptor};
use crate::support::{here, peer, run};

const OVF: &str = "web _ co.ovf";

fn packing(disks: &Disks) -> Packing<'_> {
    Packing::new(disks.spec())
        .file("disk1.vmdk", Content::disk(&disks.disks[0]))
        .file("disk 2.vmdk", Content::disk(&disks.disks[1]))
}

/// qemu-img finds the right bytes in both disks.
fn compare(dir: &Path, disks: &Disks) {
    for (name, content) in ["disk1.vmdk", "disk 2.vmdk"].into_iter().zip(&disks.contents) {
        fs::write(dir.join("raw"), content).unwrap();
        let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", "vmdk", "raw", name]);
        assert!(text.contains("identical"), "{text}");
    }
}

#[test]
fn tar_unpacks_what_we_pack_and_qemu_img_reads_it() {
    if !peer("tar") || !peer("qemu-img") {
        return;
    }
    let disks = Disks::new();
    let dir = tempfile::tempdir().unwrap();
    let archive = packing(&disks).write_ova(Vec::new(), &OvaOptions::new()).unwrap();
    fs::write(dir.path().join("web.ova"), archive).unwrap();
    let listed = run("tar", dir.path(), &["-tf", "web.ova"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), [OVF, "web _ co.mf", "disk1.vmdk", "disk 2.vmdk"]);
    run("tar", dir.path(), &["-xf", "web.ova"]);
    compare(dir.path(), &disks);
    // What tar unpacked is a package too, and whole.
    let package = OvfPackage::open(dir.path().join(OVF)).unwrap();
    assert_eq!(package.verify().unwrap().verified.len(), 3);
}

#[test]
fn python_finds_order_headers_and_digests_right() {
    if !peer("python3") {
        return;
    }
    let disks = Disks::new();
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [DigestAlgorithm::Sha1, DigestAlgorithm::Sha256, DigestAlgorithm::Sha512] {
        let options = OvaOptions::new().digest(algorithm);
        fs::write(dir.path().join("web.ova"), packing(&disks).write_ova(Vec::new(), &options).unwrap()).unwrap();
        let said = run("python3", dir.path(), &["-c", include_str!("check.py"), "web.ova"]);
        assert_eq!(said, "4 members, 8 items\n");
    }
    // With the manifest at the end.
    let xml = descriptor(&[("f", "a.vmdk", "o:size='3'")]);
    let sink = File::create(dir.path().join("last.ova")).unwrap();
    let mut ova = OvaWriter::new(sink, "x.ovf", &xml, &OvaOptions::new()).unwrap();
    let mut file = ova.file("a.vmdk", 3).unwrap();
    file.write_all(b"abc").unwrap();
    file.finish().unwrap();
    ova.finish().unwrap();
    assert_eq!(run("python3", dir.path(), &["-c", include_str!("check.py"), "last.ova"]), "3 members, 0 items\n");
}

#[test]
fn archives_of_tar_in_every_format_are_read() {
    if !peer("tar") {
        return;
    }
    let disks = Disks::new();
    let dir = tempfile::tempdir().unwrap();
    packing(&disks).write_directory(dir.path(), DigestAlgorithm::Sha256).unwrap();
    for format in ["gnu", "oldgnu", "ustar", "posix", "v7"] {
        let format = format!("--format={format}");
        run("tar", dir.path(), &["-cf", "web.ova", &format, OVF, "./disk1.vmdk", "disk 2.vmdk", "web _ co.mf"]);
        let path = dir.path().join("web.ova");
        let read = OvaReader::open(File::open(&path).unwrap(), "web.ova").unwrap().finish().unwrap();
        assert_eq!(read.verified.len(), 3, "{format}");
        let package = OvfPackage::open(&path).unwrap();
        assert_eq!(package.verify().unwrap().verified.len(), 3, "{format}");
        let stream = package.disk_file("vmdisk1").unwrap();
        assert!(super::writing::decoded(stream.reader()) == disks.contents[0]);
    }
    // With the directory around: its own member is passed over, the names begin with `./`.
    let archive = tempfile::tempdir().unwrap();
    fs::remove_file(dir.path().join("web.ova")).unwrap();
    let path = archive.path().join("all.ova");
    run("tar", dir.path(), &["-cf", path.to_str().unwrap(), "."]);
    assert_eq!(OvfPackage::open(&path).unwrap().verify().unwrap().verified.len(), 3);
}

#[test]
fn tar_and_we_agree_on_sizes_above_8_gib() {
    if !peer("tar") {
        return;
    }
    const SIZE: u64 = 9 << 30;
    let dir = tempfile::tempdir().unwrap();
    let xml = descriptor(&[("f", "big.vmdk", "")]);
    fs::write(dir.path().join("x.ovf"), &xml).unwrap();
    File::create(dir.path().join("big.vmdk")).unwrap().set_len(SIZE).unwrap();
    for format in ["gnu", "posix"] {
        // Headers are enough; tar ends when nobody reads on.
        let mut tar = Command::new("tar")
            .current_dir(dir.path())
            .args(["-cf", "-", &format!("--format={format}"), "x.ovf", "big.vmdk"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut reader = OvaReader::open(tar.stdout.take().unwrap(), "x.ova").unwrap();
        assert_eq!(reader.next_file().unwrap().unwrap().size(), Some(SIZE), "{format}");
        drop(reader);
        tar.wait().unwrap();
    }
    for (large, format) in [(LargeFiles::Gnu, "gnu"), (LargeFiles::Pax, "pax")] {
        let path = dir.path().join("big.ova");
        let options = OvaOptions::new().large_files(large);
        let mut ova = OvaWriter::new(File::create(&path).unwrap(), "x.ovf", &xml, &options).unwrap();
        ova.file("big.vmdk", SIZE).map(drop).unwrap();
        // The rest of the archive is a hole, and the end mark with it.
        File::options().write(true).open(&path).unwrap().set_len(ova.bytes_written() + SIZE + 1024).unwrap();
        let listed = run("tar", dir.path(), &["-tvf", "big.ova"]);
        assert!(
            listed.lines().any(|line| line.contains(&format!(" {SIZE} ")) && line.ends_with("big.vmdk")),
            "{listed}"
        );
        if peer("python3") {
            let script = "import tarfile; print(*[member.size for member in tarfile.open('big.ova')])";
            assert_eq!(run("python3", dir.path(), &["-c", script]), format!("{} {SIZE}\n", xml.len()), "{format}");
        }
        let package = OvfPackage::open(&path).unwrap();
        assert_eq!(vmdk::ReadAt::len(&package.disk_file("d").unwrap()).unwrap(), SIZE);
    }
}

#[test]
fn govmomis_vcenter_would_import_what_we_describe() {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    let vcsim = std::env::var_os("VCSIM").map_or_else(|| peers.join("vcsim"), PathBuf::from);
    let python = std::env::var_os("PYVMOMI_PYTHON").map_or_else(|| peers.join("venv/bin/python"), PathBuf::from);
    if !here("vcsim", vcsim.exists()) || !here("pyVmomi", python.exists()) {
        return;
    }
    let disks = Disks::new();
    let dir = tempfile::tempdir().unwrap();
    packing(&disks).write_directory(dir.path(), DigestAlgorithm::Sha256).unwrap();
    let said =
        run(python.to_str().unwrap(), dir.path(), &["-c", include_str!("import.py"), vcsim.to_str().unwrap(), OVF]);
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    // It rounds capacities down to KiB, as vSphere's own field does.
    let expected = format!(
        "vmx-14 ubuntu64Guest 2 2048\nParaVirtualSCSIController 3072\nVirtualIDEController 64\nVirtualVmxnet3\n\
         VirtualE1000\ndisk1.vmdk {} 17\ndisk 2.vmdk {} 17\n",
        size("disk1.vmdk"),
        size("disk 2.vmdk"),
    );
    assert_eq!(said, expected);
}
