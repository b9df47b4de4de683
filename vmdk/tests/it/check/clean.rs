//! Images that nobody damaged have no findings, whoever made them.

use std::fs;

use vmdk::{ChildSpec, CreateKind, CreateSpec, create, create_child};

use super::assert_clean;
use crate::support::{Random, holey, peer, run};

/// No multiple of a grain, of a table's span, nor of a MiB.
const ODD: usize = 36 * 1024 * 1024 + 3 * 65536 + 5 * 512;

#[test]
fn our_images_are_clean_when_new_and_after_random_writes() {
    let dir = tempfile::tempdir().unwrap();
    let content = holey(ODD, 1);
    let kinds = [
        CreateKind::Flat,
        CreateKind::Vmfs,
        CreateKind::MonolithicSparse,
        CreateKind::Raw,
        CreateKind::TwoGbMaxExtentFlat,
        CreateKind::TwoGbMaxExtentSparse,
    ];
    for (kind, grain) in kinds.into_iter().map(|kind| (kind, 65536)).chain([(CreateKind::MonolithicSparse, 8192)]) {
        let extension = if kind == CreateKind::Raw { "img" } else { "vmdk" };
        let path = dir.path().join(format!("{kind:?}-{grain}.{extension}"));
        let spec = CreateSpec::new(ODD as u64, kind);
        let spec = if grain == 65536 { spec } else { spec.grain_bytes(grain).zeroed_grains(true) };
        let disk = create(&path, &spec).unwrap();
        disk.flush().unwrap();
        assert_clean(&path);
        let mut random = Random::new(9);
        for _ in 0..40 {
            let at = random.below(ODD as u64 - 100_000) as usize;
            disk.write_at(at as u64, &content[at..at + 100_000]).unwrap();
        }
        disk.write_at(ODD as u64 - 700, &[1; 700]).unwrap();
        disk.zero_at(1 << 20..9 << 20).unwrap();
        disk.close().unwrap();
        assert_clean(&path);
    }
}

#[test]
fn images_of_qemu_are_clean() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("raw"), holey(ODD, 1)).unwrap();
    let kinds = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"];
    for kind in kinds {
        for zeroed in ["on", "off"] {
            if kind.ends_with("Flat") && zeroed == "on" {
                continue;
            }
            let name = format!("{kind}-{zeroed}.vmdk");
            let option = format!("subformat={kind},zeroed_grain={zeroed}");
            run("qemu-img", dir.path(), &["convert", "-f", "raw", "-O", "vmdk", "-o", &option, "raw", &name]);
            assert_clean(&dir.path().join(&name));
            let name = format!("empty-{kind}-{zeroed}.vmdk");
            run("qemu-img", dir.path(), &["create", "-f", "vmdk", "-o", &option, &name, "5G"]);
            assert_clean(&dir.path().join(&name));
        }
    }
}

#[test]
fn a_chain_of_qemu_is_clean() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run("qemu-img", dir.path(), &["create", "-f", "vmdk", "base.vmdk", "10M"]);
    run("qemu-io", dir.path(), &["-f", "vmdk", "-c", "write -P 0xaa 0 3M", "base.vmdk"]);
    let child = ["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "-o", "zeroed_grain=on", "child.vmdk"];
    run("qemu-img", dir.path(), &child);
    let writes = ["-f", "vmdk", "-c", "write -z 0 128k", "-c", "write -P 0x55 256k 10k", "child.vmdk"];
    run("qemu-io", dir.path(), &writes);
    let path = dir.path().join("child.vmdk");
    assert_clean(&path);
    assert_eq!(super::deep(&path).usage().links, 2);
}

#[test]
fn our_streams_are_clean() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("holey", holey(ODD, 3)), ("empty", vec![0; ODD]), ("tiny", vec![7; 512])] {
        let path = dir.path().join(format!("{name}.vmdk"));
        super::streams::write(&path, &content);
        assert_clean(&path);
    }
}

#[test]
fn a_chain_of_ours_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    create(path("base.vmdk"), &CreateSpec::new(ODD as u64, CreateKind::Flat)).unwrap().close().unwrap();
    for (parent, child) in [("base.vmdk", "mid.vmdk"), ("mid.vmdk", "top.vmdk")] {
        let disk = create_child(path(parent), path(child), &ChildSpec::new()).unwrap();
        disk.write_at(1 << 20, &[7; 300_000]).unwrap();
        disk.zero_at(0..100_000).unwrap();
        disk.close().unwrap();
        assert_clean(&path(child));
    }
    assert_eq!(super::deep(&path("top.vmdk")).usage().links, 3);
}

#[test]
fn the_largest_disk_is_checked_without_reading_its_empty_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.vmdk");
    let disk = create(&path, &CreateSpec::new(62 << 40, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(0, &[1; 100_000]).unwrap();
    disk.write_at((62 << 40) - 100_000, &[1; 100_000]).unwrap();
    disk.close().unwrap();
    let holes = vmdk::Disk::open_raw(&path, vmdk::Access::ReadOnly).unwrap();
    if holes.map(0..holes.capacity()).count() < 3 {
        eprintln!("SKIPPED: the file system does not tell where holes are");
        return;
    }
    let report = super::deep(&path);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.usage().grains, 4);
}
