//! Children: made over every kind of parent, and read and written by QEMU.

use std::{fs, path::Path};

use vmdk::{
    ChainProblem, ChildSpec, Cid, CreateKind, CreateSpec, CreateType, Disk, Error, OpenOptions, PathPolicy, create,
    create_child,
};

use crate::support::{Random, assert_is, holey, peer, run};

const CAPACITY: usize = 3 * 1024 * 1024 + 7 * 512;

fn base(dir: &Path, name: &str, kind: CreateKind) -> Vec<u8> {
    let content = holey(CAPACITY, name.len() as u64);
    let disk = create(dir.join(name), &CreateSpec::new(CAPACITY as u64, kind)).unwrap();
    disk.write_at(0, &content).unwrap();
    disk.close().unwrap();
    content
}

/// Some writes and zeros, the same to the disk and to the model.
fn change(disk: &Disk, model: &mut [u8], seed: u64) {
    let mut random = Random::new(seed);
    for round in 0..20 {
        let at = random.below(model.len() as u64) as usize;
        let len = random.below(150_000).min((model.len() - at) as u64) as usize;
        if round % 3 == 0 {
            model[at..at + len].fill(0);
            disk.zero_at(at as u64..(at + len) as u64).unwrap();
        } else {
            model[at..at + len].copy_from_slice(&random.bytes(len));
            disk.write_at(at as u64, &model[at..at + len]).unwrap();
        }
    }
}

fn compare(dir: &Path, content: &[u8], name: &str) {
    fs::write(dir.join("raw"), content).unwrap();
    let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", "vmdk", "raw", name]);
    assert!(text.contains("identical"), "{name}: {text}");
    run("qemu-img", dir, &["check", "-f", "vmdk", name]);
}

#[test]
fn children_of_children_over_every_kind_of_base_are_what_qemu_reads() {
    let kinds = [
        CreateKind::Flat,
        CreateKind::MonolithicSparse,
        CreateKind::TwoGbMaxExtentFlat,
        CreateKind::TwoGbMaxExtentSparse,
    ];
    for (index, kind) in kinds.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut content = base(dir.path(), "the base.vmdk", kind);
        let is_split = index >= 2;
        let mut parent = "the base.vmdk".to_owned();
        for depth in 1..=3_u64 {
            let name = format!("snap {depth}.vmdk");
            let spec = ChildSpec::new().zeroed_grains(depth == 2);
            let child = create_child(at(&parent), at(&name), &spec).unwrap();
            assert_is(&child, &content);
            let made = child.descriptor().unwrap();
            let expected = if is_split { CreateType::TwoGbMaxExtentSparse } else { CreateType::MonolithicSparse };
            assert_eq!(made.create_type(), Some(expected));
            assert_eq!(made.parent_file_name_hint().unwrap().as_deref(), Some(parent.as_str()));
            change(&child, &mut content, depth * 7 + index as u64);
            assert_is(&child, &content);
            child.close().unwrap();
            if peer("qemu-img") {
                compare(dir.path(), &content, &name);
            }
            parent = name;
        }
        let disk = Disk::open(at(&parent), &OpenOptions::new()).unwrap();
        assert_eq!(disk.links().len(), 4);
        assert_is(&disk, &content);
    }
}

#[test]
fn qemu_writes_into_our_child_and_we_into_qemus() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut content = base(dir.path(), "b.vmdk", CreateKind::MonolithicSparse);
    create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new()).unwrap().close().unwrap();
    run("qemu-io", dir.path(), &["-f", "vmdk", "-c", "write -P 0x77 70k 300k", "c.vmdk"]);
    content[70 << 10..370 << 10].fill(0x77);
    assert_is(&Disk::open(at("c.vmdk"), &OpenOptions::new()).unwrap(), &content);
    run("qemu-img", dir.path(), &["create", "-q", "-f", "vmdk", "-b", "c.vmdk", "-F", "vmdk", "d.vmdk"]);
    let disk = Disk::open(at("d.vmdk"), &OpenOptions::new().writable()).unwrap();
    change(&disk, &mut content, 5);
    disk.close().unwrap();
    compare(dir.path(), &content, "d.vmdk");
}

#[test]
fn a_compressed_parent_takes_a_child() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut content = base(dir.path(), "b.vmdk", CreateKind::MonolithicSparse);
    let source = Disk::open(at("b.vmdk"), &OpenOptions::new()).unwrap();
    let stream = vmdk::stream::export(&source, Vec::new(), &vmdk::stream::StreamSpec::new(CAPACITY as u64)).unwrap();
    fs::write(at("s.vmdk"), stream).unwrap();
    let child = create_child(at("s.vmdk"), at("c.vmdk"), &ChildSpec::new()).unwrap();
    change(&child, &mut content, 17);
    assert_is(&child, &content);
    child.close().unwrap();
    if peer("qemu-img") {
        compare(dir.path(), &content, "c.vmdk");
    }
}

#[test]
fn a_larger_child_reads_zero_behind_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut content = base(dir.path(), "b.vmdk", CreateKind::Flat);
    let larger = CAPACITY as u64 + 5 * 512;
    content.resize(larger as usize, 0);
    let child = create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new().capacity(larger)).unwrap();
    // Its grain is half the parent's and half nobody's.
    child.write_at(CAPACITY as u64 - 2, b"over").unwrap();
    content[CAPACITY - 2..CAPACITY + 2].copy_from_slice(b"over");
    assert_is(&child, &content);
    child.close().unwrap();
    if peer("qemu-img") {
        compare(dir.path(), &content, "c.vmdk");
    }
    let error = create_child(at("b.vmdk"), at("s.vmdk"), &ChildSpec::new().capacity(512)).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "capacity", .. }), "{error}");
    assert!(!at("s.vmdk").exists());
}

#[test]
fn a_parent_written_after_its_child_was_made_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    base(dir.path(), "b.vmdk", CreateKind::MonolithicSparse);
    create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new().cid(Cid(9))).unwrap().close().unwrap();
    Disk::open(at("c.vmdk"), &OpenOptions::new()).unwrap();
    Disk::open(at("b.vmdk"), &OpenOptions::new().writable()).unwrap().write_at(0, b"x").unwrap();
    let error = Disk::open(at("c.vmdk"), &OpenOptions::new()).unwrap_err();
    assert!(matches!(error, Error::Chain { problem: ChainProblem::CidMismatch { .. }, .. }), "{error}");
}

#[test]
fn the_parents_name_follows_the_path_policy() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("below")).unwrap();
    let content = base(dir.path(), "b.vmdk", CreateKind::MonolithicSparse);
    base(dir.path(), "below/b.vmdk", CreateKind::MonolithicSparse);
    let hint = |disk: &Disk| disk.descriptor().unwrap().parent_file_name_hint().unwrap().unwrap().into_owned();
    let down = create_child(at("below/b.vmdk"), at("down.vmdk"), &ChildSpec::new()).unwrap();
    assert_eq!(hint(&down), "below/b.vmdk");
    let error = create_child(at("b.vmdk"), at("below/up.vmdk"), &ChildSpec::new()).unwrap_err();
    assert!(matches!(error, Error::PathRefused { .. }), "{error}");
    assert!(!at("below/up.vmdk").exists());
    let any = OpenOptions::new().paths(PathPolicy::Any);
    let up = create_child(at("b.vmdk"), at("below/up.vmdk"), &ChildSpec::new().options(any)).unwrap();
    assert!(Path::new(&hint(&up)).is_absolute());
    assert_is(&up, &content);
}

#[test]
fn raw_parents_and_flat_children_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("raw"), vec![1; 4096]).unwrap();
    let error = create_child(at("raw"), at("c.vmdk"), &ChildSpec::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "parent", .. }), "{error}");
    base(dir.path(), "b.vmdk", CreateKind::Flat);
    let error = create_child(at("b.vmdk"), at("c.vmdk"), &ChildSpec::new().kind(CreateKind::Flat)).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "kind", .. }), "{error}");
    assert!(!at("c.vmdk").exists());
}
