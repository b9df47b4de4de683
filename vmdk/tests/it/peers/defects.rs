//! Known defects of qemu-img 10.0 and of libvmdk 20200926, each with the right answer.
//!
//! A peer may be mended: what it does is printed, what is right is asserted.

use std::{fs, path::Path, process::Command};

use vmdk::{ChainProblem, Disk, Error, MapKind, OpenOptions};

use super::{libvmdk, qemu::Qemu};
use crate::support::{Random, assert_is, content, run};

/// Says what qemu-img makes of the disk, for the reader of the test's output.
fn report(dir: &Path, name: &str, defect: &str, right: &[u8]) {
    fs::write(dir.join("right"), right).unwrap();
    let compare = ["compare", "-f", "raw", "-F", "vmdk", "right", name];
    let output = Command::new("qemu-img").current_dir(dir).args(compare).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    say("qemu-img", output.status.success(), defect, &said);
}

/// As [`report`], of libvmdk.
fn report_libvmdk(dir: &Path, name: &str, defect: &str, right: &[u8]) {
    let read = libvmdk::read(dir, &[name]);
    let said = read.as_ref().map_or_else(|said| said.lines().last().unwrap_or_default(), |_| "reads other bytes");
    say("libvmdk", read.as_ref().is_ok_and(|read| read == right), defect, said);
}

fn say(peer: &str, mended: bool, defect: &str, said: &str) {
    let now = if mended { "PEER MENDED" } else { "PEER DEFECT" };
    eprintln!("{now}: {peer}: {defect}: {said}");
}

fn store(dir: &Path, name: &str, create_type: &str, lines: &str) {
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\n\
         # Extent description\n{lines}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"
    );
    fs::write(dir.join(name), text).unwrap();
}

fn open(qemu: &Qemu, name: &str) -> vmdk::Result<Disk> {
    Disk::open(qemu.dir().join(name), &OpenOptions::new())
}

#[test]
fn qemu_skips_zero_extents_so_that_later_data_are_shifted() {
    let Some(qemu) = Qemu::new() else { return };
    let data = Random::new(1).bytes(1 << 20);
    fs::write(qemu.dir().join("a-flat.vmdk"), &data).unwrap();
    let extent = "RW 2048 FLAT \"a-flat.vmdk\" 0";
    let right = [data.as_slice(), &[0; 1 << 20], &data].concat();
    store(qemu.dir(), "z.vmdk", "monolithicFlat", &format!("{extent}\nRW 2048 ZERO\n{extent}"));
    assert_is(&open(&qemu, "z.vmdk").unwrap(), &right);
    report(qemu.dir(), "z.vmdk", "a ZERO extent between two flat ones", &right);
}

#[test]
fn qemu_refuses_create_types_and_spellings_that_vmware_writes() {
    let Some(qemu) = Qemu::new() else { return };
    let data = Random::new(2).bytes(64 << 10);
    fs::write(qemu.dir().join("a-flat.vmdk"), &data).unwrap();
    for (create_type, line) in [
        ("custom", "RW 128 FLAT \"a-flat.vmdk\" 0"),
        ("fullDevice", "RW 128 FLAT \"a-flat.vmdk\" 0"),
        ("2GbMaxExtentFlat", "RW 128 FLAT \"a-flat.vmdk\" 0"),
        ("vmfsThin", "RW 128 VMFS \"a-flat.vmdk\""),
        ("vmfsPreallocated", "RW 128 VMFS \"a-flat.vmdk\""),
        ("vmfs", "RW 128 VMFS \"a-flat.vmdk\" 0"),
    ] {
        store(qemu.dir(), "d.vmdk", create_type, line);
        assert_is(&open(&qemu, "d.vmdk").unwrap(), &data);
        report(qemu.dir(), "d.vmdk", &format!("{create_type}, {line}"), &data);
    }
    store(qemu.dir(), "d.vmdk", "monolithicFlat", "RW 128 FLAT \"a-flat.vmdk\" 0");
    let text = fs::read_to_string(qemu.dir().join("d.vmdk")).unwrap().replace("createType", "CreateType");
    fs::write(qemu.dir().join("d.vmdk"), text).unwrap();
    assert_is(&open(&qemu, "d.vmdk").unwrap(), &data);
    report(qemu.dir(), "d.vmdk", "keys in other case", &data);
}

#[test]
fn qemu_takes_values_out_of_comments() {
    let Some(qemu) = Qemu::new() else { return };
    qemu.convert(&[7; 65536], "base.vmdk", "subformat=monolithicFlat");
    qemu.create_child("child.vmdk", "base.vmdk", 65536, "subformat=monolithicSparse");
    // The same length, before the line that counts: in the padding of the embedded descriptor nothing moves.
    let mut bytes = fs::read(qemu.dir().join("child.vmdk")).unwrap();
    let first = b"# Disk DescriptorFile\n";
    let at = bytes.windows(first.len()).position(|window| window == first).unwrap();
    let comment = b"#parentCID=12345678 \n\n";
    assert_eq!(first.len(), comment.len());
    bytes[at..at + first.len()].copy_from_slice(comment);
    fs::write(qemu.dir().join("child.vmdk"), bytes).unwrap();
    let disk = open(&qemu, "child.vmdk").unwrap();
    assert!(content(&disk) == [7; 65536]);
    report(qemu.dir(), "child.vmdk", "a comment with a parent's content id", &[7; 65536]);
}

#[test]
fn qemu_opens_a_chain_whose_parent_has_changed() {
    let Some(qemu) = Qemu::new() else { return };
    qemu.convert(&[7; 1 << 20], "base.vmdk", "subformat=monolithicSparse");
    qemu.create_child("child.vmdk", "base.vmdk", 1 << 20, "subformat=monolithicSparse");
    run("qemu-io", qemu.dir(), &["-f", "vmdk", "-c", "write -P 9 0 64k", "base.vmdk"]);
    let error = open(&qemu, "child.vmdk").unwrap_err();
    let changed = matches!(&error, Error::Chain { problem, .. } if matches!(problem, ChainProblem::CidMismatch { .. }));
    assert!(changed, "{error:?}");
    let said = qemu.img(&["info", "-f", "vmdk", "child.vmdk"]);
    assert!(said.contains("virtual size"), "{said}");
}

#[test]
fn libvmdk_needs_the_words_of_the_first_line() {
    let Some(qemu) = Qemu::new() else { return };
    let data = Random::new(3).bytes(64 << 10);
    fs::write(qemu.dir().join("a-flat.vmdk"), &data).unwrap();
    store(qemu.dir(), "d.vmdk", "monolithicFlat", "RW 128 FLAT \"a-flat.vmdk\" 0");
    libvmdk::assert_is(qemu.dir(), &["d.vmdk"], &data);
    let text = fs::read_to_string(qemu.dir().join("d.vmdk")).unwrap().replace("DescriptorFile", "Descriptor File");
    fs::write(qemu.dir().join("d.vmdk"), text).unwrap();
    assert_is(&open(&qemu, "d.vmdk").unwrap(), &data);
    report_libvmdk(qemu.dir(), "d.vmdk", "another first line, as VMDKstream writes it", &data);
}

#[test]
fn libvmdk_takes_the_header_for_the_data_of_a_zeroed_grain() {
    let Some(qemu) = Qemu::new() else { return };
    qemu.create("z.vmdk", 1 << 20, "subformat=monolithicSparse,zeroed_grain=on");
    run("qemu-io", qemu.dir(), &["-f", "vmdk", "-c", "write -z 64k 64k", "z.vmdk"]);
    let disk = open(&qemu, "z.vmdk").unwrap();
    assert_is(&disk, &[0; 1 << 20]);
    let kinds: Vec<_> = disk.map(0..1 << 20).map(|entry| entry.unwrap().kind).collect();
    assert_eq!(kinds, [MapKind::Unallocated, MapKind::Zero, MapKind::Unallocated]);
    report_libvmdk(qemu.dir(), "z.vmdk", "a zeroed grain", &[0; 1 << 20]);
}
