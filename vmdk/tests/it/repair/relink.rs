//! Chains whose content ids disagree.

use std::fs;

use vmdk::{
    ChildSpec, Cid, CreateKind, CreateSpec, Disk, Error, OpenOptions, PathPolicy,
    check::{Problem, check},
    create, create_child,
    repair::Relink,
};

use super::options;
use crate::support::{peer, run};

/// base <- mid <- top, all with data.
fn chain(dir: &std::path::Path) {
    let base = create(dir.join("base.vmdk"), &CreateSpec::new(1 << 20, CreateKind::Flat)).unwrap();
    base.write_at(0, &[1; 300_000]).unwrap();
    base.close().unwrap();
    for (parent, child, fill) in [("base.vmdk", "mid.vmdk", 2), ("mid.vmdk", "top.vmdk", 3)] {
        let disk = create_child(dir.join(parent), dir.join(child), &ChildSpec::new()).unwrap();
        disk.write_at(u64::from(fill) * 65536, &[fill; 65536]).unwrap();
        disk.close().unwrap();
    }
}

fn content(path: &std::path::Path) -> Vec<u8> {
    crate::support::content(&Disk::open(path, &OpenOptions::new()).unwrap())
}

#[test]
fn a_chain_opens_again_after_its_parents_were_touched() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path());
    let top = dir.path().join("top.vmdk");
    let sound = content(&top);
    assert_eq!(Relink::plan(&top, PathPolicy::SameDirectory).unwrap().changes().len(), 0);
    // A write of what was there already gives the parents new ids.
    for (name, at, fill) in [("base.vmdk", 0, 1), ("mid.vmdk", 2 * 65536, 2)] {
        let options = OpenOptions::new().writable();
        let disk = Disk::open(dir.path().join(name), &options.single_link(true)).unwrap();
        disk.write_at(at, &[fill; 512]).unwrap();
        disk.close().unwrap();
    }
    assert!(Disk::open(&top, &OpenOptions::new()).is_err());
    assert_eq!(check(&top, &options()).unwrap().count(Problem::CidMismatch), 2);
    let before = fs::read(&top).unwrap();
    let plan = Relink::plan(&top, PathPolicy::SameDirectory).unwrap();
    assert_eq!(
        plan.changes().map(|change| change.link.clone()).collect::<Vec<_>>(),
        [top.clone(), dir.path().join("mid.vmdk")]
    );
    assert!(fs::read(&top).unwrap() == before, "the plan changed the file");
    plan.apply().unwrap();
    assert!(check(&top, &options()).unwrap().is_clean());
    assert!(content(&top) == sound);
    if peer("qemu-img") {
        run("qemu-img", dir.path(), &["check", "-f", "vmdk", "top.vmdk"]);
        fs::write(dir.path().join("raw"), &sound).unwrap();
        run("qemu-img", dir.path(), &["compare", "-f", "raw", "-F", "vmdk", "raw", "top.vmdk"]);
    }
}

#[test]
fn a_child_is_given_a_parent_that_moved() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path());
    let (mid, top, moved) = (dir.path().join("mid.vmdk"), dir.path().join("top.vmdk"), dir.path().join("moved.vmdk"));
    let sound = content(&top);
    fs::rename(&mid, &moved).unwrap();
    assert_eq!(check(&top, &options()).unwrap().count(Problem::FileMissing), 1);
    let plan = Relink::to_parent(&top, &moved, PathPolicy::SameDirectory).unwrap();
    assert_eq!(plan.changes().next().unwrap().hint.as_deref(), Some("moved.vmdk"));
    plan.apply().unwrap();
    assert!(content(&top) == sound);
    assert!(check(&top, &options()).unwrap().is_clean());
}

#[test]
fn what_makes_no_chain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path());
    let [base, mid, top] = ["base.vmdk", "mid.vmdk", "top.vmdk"].map(|name| dir.path().join(name));
    let to = |child, parent| Relink::to_parent(child, parent, PathPolicy::SameDirectory);
    assert!(matches!(to(&base, &mid), Err(Error::InvalidInput { .. })));
    assert!(matches!(to(&mid, &mid), Err(Error::InvalidInput { .. })));
    // Its own descendant.
    assert!(matches!(to(&mid, &top), Err(Error::Chain { .. })));
    let large = dir.path().join("large.vmdk");
    create(&large, &CreateSpec::new(2 << 20, CreateKind::Flat).cid(Cid(7))).unwrap().close().unwrap();
    assert!(matches!(to(&mid, &large), Err(Error::InvalidInput { .. })));
    fs::remove_file(&base).unwrap();
    assert!(matches!(Relink::plan(&mid, PathPolicy::SameDirectory), Err(Error::Io { .. })));
}
