//! Whole disks from one image to another: what arrives, what stays a hole, how it ends early.

use std::{
    fs, io,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use vmdk::{
    ChildSpec, CopyOptions, CreateKind, CreateSpec, Disk, Error, Image, MapEntry, MapKind, OpenOptions, Result,
    convert, copy, create, create_child,
};

use crate::support::{assert_is, holey, peer, run};

const LEN: usize = 9 * 1024 * 1024 + 3 * 512;

fn data(disk: &dyn Image) -> u64 {
    let entries = disk.map(0..disk.capacity()).map(|entry| entry.unwrap());
    entries.filter(|entry| entry.kind == MapKind::Data).map(|entry| entry.range.end - entry.range.start).sum()
}

#[test]
fn every_kind_becomes_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let content = holey(LEN, 31);
    fs::write(dir.path().join("raw"), &content).unwrap();
    let mut previous = dir.path().join("raw");
    let kinds = [
        CreateKind::MonolithicSparse,
        CreateKind::Flat,
        CreateKind::TwoGbMaxExtentSparse,
        CreateKind::Vmfs,
        CreateKind::TwoGbMaxExtentFlat,
        CreateKind::MonolithicSparse,
        CreateKind::Raw,
    ];
    for (index, kind) in kinds.into_iter().enumerate() {
        let source = Disk::open(&previous, &OpenOptions::new()).unwrap();
        let path = dir.path().join(format!("{index}.{}", if kind == CreateKind::Raw { "img" } else { "vmdk" }));
        let options = CopyOptions::new().threads(1 + index % 4);
        let made = convert(&source, &path, &CreateSpec::new(LEN as u64, kind), &options).unwrap();
        assert_is(&made, &content);
        made.close().unwrap();
        if kind == CreateKind::MonolithicSparse && peer("qemu-img") {
            let name = path.to_str().unwrap();
            run("qemu-img", dir.path(), &["check", "-f", "vmdk", name]);
            let text = run("qemu-img", dir.path(), &["compare", "-f", "raw", "-F", "vmdk", "raw", name]);
            assert!(text.contains("identical"), "{text}");
        }
        previous = path;
    }
    assert!(fs::read(&previous).unwrap() == content);
}

#[test]
fn compressed_disks_of_both_makers_are_copied_by_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let content = holey(LEN, 34);
    fs::write(dir.path().join("raw"), &content).unwrap();
    let raw = Disk::open(dir.path().join("raw"), &OpenOptions::new()).unwrap();
    let spec = vmdk::stream::StreamSpec::new(LEN as u64);
    fs::write(dir.path().join("ours.vmdk"), vmdk::stream::export(&raw, Vec::new(), &spec).unwrap()).unwrap();
    let mut names = vec!["ours.vmdk"];
    if peer("qemu-img") {
        let option = "subformat=streamOptimized";
        run("qemu-img", dir.path(), &["convert", "-f", "raw", "-O", "vmdk", "-o", option, "raw", "qemus.vmdk"]);
        names.push("qemus.vmdk");
    }
    for name in names {
        let source = Disk::open(dir.path().join(name), &OpenOptions::new()).unwrap();
        let path = dir.path().join(format!("{name}.raw"));
        let spec = CreateSpec::new(LEN as u64, CreateKind::Raw);
        convert(&source, &path, &spec, &CopyOptions::new().threads(4)).unwrap().close().unwrap();
        assert!(fs::read(path).unwrap() == content, "{name}");
    }
}

#[test]
fn zeros_in_the_data_become_holes_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; 4 << 20];
    content[1 << 20..(1 << 20) + 65536].fill(7);
    // Zeros that the source stores.
    fs::write(dir.path().join("raw"), &content).unwrap();
    let source = Disk::open(dir.path().join("raw"), &OpenOptions::new()).unwrap();
    let spec = CreateSpec::new(4 << 20, CreateKind::MonolithicSparse);
    for (skip, stored) in [(true, 65536), (false, 4 << 20)] {
        let target = create(dir.path().join(format!("{skip}.vmdk")), &spec).unwrap();
        let copied = copy(&source, &target, &CopyOptions::new().skip_zeros(skip)).unwrap();
        assert_eq!((copied.written, copied.written + copied.zeros + copied.holes), (stored, 4 << 20));
        assert_eq!(data(&target), stored);
        assert_is(&target, &content);
    }
}

#[test]
fn a_chain_becomes_one_disk_with_the_chains_hardware() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut content = holey(LEN, 32);
    let spec = CreateSpec::new(LEN as u64, CreateKind::MonolithicSparse).hardware_version(19);
    let base = create(at("base.vmdk"), &spec.adapter_type(vmdk::AdapterType::BusLogic)).unwrap();
    base.write_at(0, &content).unwrap();
    base.ddb_set("geometry.cylinders", "77").unwrap();
    base.close().unwrap();
    let child = create_child(at("base.vmdk"), at("child.vmdk"), &ChildSpec::new().zeroed_grains(true)).unwrap();
    child.zero_at(100_000..2_000_000).unwrap();
    content[100_000..2_000_000].fill(0);
    child.write_at(5_000_000, &[9; 100_000]).unwrap();
    content[5_000_000..5_100_000].fill(9);
    child.close().unwrap();
    let chain = Disk::open(at("child.vmdk"), &OpenOptions::new()).unwrap();
    let spec = CreateSpec::new(LEN as u64 + 512, CreateKind::Vmfs);
    let flat = convert(&chain, at("flat.vmdk"), &spec, &CopyOptions::new()).unwrap();
    content.resize(LEN + 512, 0);
    assert_is(&flat, &content);
    assert_eq!(flat.links().len(), 1);
    for (key, value) in [("adapterType", "buslogic"), ("geometry.cylinders", "77"), ("virtualHWVersion", "19")] {
        assert_eq!(flat.ddb_get(key).as_deref(), Some(value));
    }
}

#[test]
fn old_data_of_the_target_are_gone_where_the_source_has_holes() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; LEN];
    content[3_000_000..3_100_000].fill(5);
    let spec = |kind| CreateSpec::new(LEN as u64, kind);
    let source = create(dir.path().join("s.vmdk"), &spec(CreateKind::MonolithicSparse)).unwrap();
    source.write_at(3_000_000, &content[3_000_000..3_100_000]).unwrap();
    let base = create(dir.path().join("b.vmdk"), &spec(CreateKind::MonolithicSparse)).unwrap();
    base.write_at(0, &holey(LEN, 33)).unwrap();
    base.close().unwrap();
    let child = create_child(dir.path().join("b.vmdk"), dir.path().join("c.vmdk"), &ChildSpec::new()).unwrap();
    let raw = create(dir.path().join("r.img"), &CreateSpec::new(LEN as u64 + 1, CreateKind::Raw)).unwrap();
    raw.write_at(0, &vec![0xee; LEN + 1]).unwrap();
    copy(&source, &child, &CopyOptions::new()).unwrap();
    assert_is(&child, &content);
    copy(&source, &raw, &CopyOptions::new()).unwrap();
    content.push(0xee);
    assert_is(&raw, &content);
    let error = copy(&raw, &source, &CopyOptions::new()).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { what: "capacity", .. }), "{error}");
}

/// A disk of ones that does something at each read.
struct Odd<F>(u64, F);

impl<F: Fn(u64) -> Result<()> + Send + Sync> Image for Odd<F> {
    fn capacity(&self) -> u64 {
        self.0
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(1);
        (self.1)(offset)
    }
    fn map(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Result<MapEntry>> + Send + '_> {
        Box::new(std::iter::once(Ok(MapEntry::new(range, MapKind::Data))))
    }
    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        unreachable!()
    }
    fn zero_at(&self, _: Range<u64>) -> Result<()> {
        unreachable!()
    }
    fn flush(&self) -> Result<()> {
        unreachable!()
    }
    fn is_writable(&self) -> bool {
        false
    }
}

#[test]
fn the_first_error_ends_all_threads_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let reads = AtomicUsize::new(0);
    let source = Odd(1 << 40, |offset| {
        reads.fetch_add(1, Ordering::Relaxed);
        let broken = || Error::io("read", "the source", Some(offset), io::ErrorKind::TimedOut.into());
        if offset >= 20 << 20 { Err(broken()) } else { Ok(()) }
    });
    let spec = CreateSpec::new(1 << 40, CreateKind::TwoGbMaxExtentFlat);
    let error = convert(&source, dir.path().join("t.vmdk"), &spec, &CopyOptions::new().threads(4)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(reads.load(Ordering::Relaxed) < 100);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_copy_is_cancelled_and_tells_its_progress() {
    let dir = tempfile::tempdir().unwrap();
    let (cancel, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let progress = |done: u64| {
        seen.lock().unwrap().push(done);
        cancel.store(done >= 5 << 20, Ordering::SeqCst);
    };
    let source = Odd(1 << 40, |_| Ok(()));
    let target = create(dir.path().join("t.img"), &CreateSpec::new(1 << 40, CreateKind::Raw)).unwrap();
    let options = CopyOptions::new().threads(3).progress(&progress).cancel(&cancel);
    let error = copy(&source, &target, &options).unwrap_err();
    assert!(matches!(error, Error::Cancelled { operation: "copy" }), "{error}");
    let seen = seen.lock().unwrap();
    assert!(seen.len() < 40 && seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    let total = AtomicU64::new(0);
    let small = Disk::open_raw(dir.path().join("t.img"), vmdk::Access::ReadOnly).unwrap();
    let other = create(dir.path().join("u.vmdk"), &CreateSpec::new(1 << 40, CreateKind::MonolithicSparse)).unwrap();
    let progress = |done| total.store(done, Ordering::SeqCst);
    // More threads than any system has are as many as are good.
    copy(&small, &other, &CopyOptions::new().threads(usize::MAX).progress(&progress)).unwrap();
    assert_eq!(total.into_inner(), 1 << 40);
}

#[test]
fn a_panic_of_the_source_ends_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let target = create(dir.path().join("t.img"), &CreateSpec::new(1 << 40, CreateKind::Raw)).unwrap();
    let source = Odd(1 << 40, |offset| if offset == 8 << 20 { panic!("on purpose") } else { Ok(()) });
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        copy(&source, &target, &CopyOptions::new().threads(3))
    }));
    assert!(caught.is_err());
}
