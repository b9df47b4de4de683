//! Differential tests against qemu-img and qemu-io.

use std::{fs, path::Path};

use vmdk::{AdapterType, CreateKind, CreateSpec, CreateType, Disk, MapKind, OpenOptions, create};

use crate::support::{Random, assert_is, holey, peer, run};

/// Not a multiple of a grain (65536), of a GT's span, nor of a MiB.
const ODD: usize = 36 * 1024 * 1024 + 3 * 65536 + 5 * 512;

/// Writes `content` to `disk` in pieces that respect no grid, data only.
fn write_scattered(disk: &Disk, content: &[u8], seed: u64) {
    let mut random = Random::new(seed);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < content.len() {
        let end = (at + 1 + random.below(150_000) as usize).min(content.len());
        if content[at..end].iter().any(|&byte| byte != 0) {
            pieces.push(at..end);
        }
        at = end;
    }
    for index in (1..pieces.len()).rev() {
        pieces.swap(index, random.below(index as u64 + 1) as usize);
    }
    for piece in pieces {
        disk.write_at(piece.start as u64, &content[piece]).unwrap();
    }
}

fn compare(dir: &Path, format: &str, file: &str) {
    let text = run("qemu-img", dir, &["compare", "-f", "raw", "-F", format, "raw", file]);
    assert!(text.contains("identical"), "{text}");
}

#[test]
fn reads_what_qemu_img_writes() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = holey(ODD, 1);
    fs::write(dir.path().join("raw"), &content).unwrap();
    for kind in ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let name = format!("{kind}.vmdk");
        let option = format!("subformat={kind},adapter_type=lsilogic");
        run("qemu-img", dir.path(), &["convert", "-f", "raw", "-O", "vmdk", "-o", &option, "raw", &name]);
        let disk = Disk::open(dir.path().join(&name), &OpenOptions::new()).unwrap();
        assert_is(&disk, &content);
        assert_eq!(disk.ddb_get("adapterType").as_deref(), Some("lsilogic"), "{kind}");
        assert_eq!(disk.links().next().unwrap().create_type, Some(CreateType::from_name(kind)));
        if kind.ends_with("Sparse") {
            let stored: u64 = disk
                .map(0..disk.capacity())
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.kind == MapKind::Data)
                .map(|entry| entry.range.end - entry.range.start)
                .sum();
            assert!(stored < content.len() as u64 * 9 / 10, "{kind}: the map finds no holes");
        }
    }
    let raw = Disk::open(dir.path().join("raw"), &OpenOptions::new()).unwrap();
    assert_is(&raw, &content);
}

#[test]
fn reads_split_disks_across_extent_boundaries() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let name = format!("{kind}.vmdk");
        run("qemu-img", dir.path(), &["create", "-f", "vmdk", "-o", &format!("subformat={kind}"), &name, "5G"]);
        let writes =
            ["write -P 0x11 2147418112 128k", "write -P 0x22 4294901760 131072", "write -P 0x33 5368643584 65536"];
        for write in writes {
            run("qemu-io", dir.path(), &["-f", "vmdk", "-c", write, &name]);
        }
        let disk = Disk::open(dir.path().join(&name), &OpenOptions::new()).unwrap();
        assert_eq!(disk.links().next().unwrap().data_files.len(), 3);
        let mut buf = vec![0; 262_144];
        for (at, len, pattern) in [(2_147_418_112_u64, 131_072_usize, 0x11), (4_294_901_760, 131_072, 0x22)] {
            disk.read_at(at - 65536, &mut buf).unwrap();
            assert!(buf[..65536].iter().all(|&byte| byte == 0), "{kind}");
            assert!(buf[65536..65536 + len].iter().all(|&byte| byte == pattern), "{kind}");
            assert!(buf[65536 + len..].iter().all(|&byte| byte == 0), "{kind}");
        }
        disk.read_at((5 << 30) - 4, &mut buf[..4]).unwrap();
        assert_eq!(buf[..4], [0x33; 4]);
    }
}

#[test]
fn qemu_img_reads_what_is_created_and_written() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = holey(ODD, 2);
    fs::write(dir.path().join("raw"), &content).unwrap();
    for (kind, adapter) in [
        (CreateKind::MonolithicSparse, AdapterType::LsiLogic),
        (CreateKind::Flat, AdapterType::Ide),
        (CreateKind::Vmfs, AdapterType::BusLogic),
        (CreateKind::Raw, AdapterType::LsiLogic),
    ] {
        let name = format!("{kind:?}.{}", if kind == CreateKind::Raw { "img" } else { "vmdk" });
        let path = dir.path().join(&name);
        let disk = create(&path, &CreateSpec::new(ODD as u64, kind).adapter_type(adapter)).unwrap();
        write_scattered(&disk, &content, 3);
        assert_is(&disk, &content);
        disk.close().unwrap();
        let format = if kind == CreateKind::Raw { "raw" } else { "vmdk" };
        compare(dir.path(), format, &name);
        if kind == CreateKind::MonolithicSparse {
            run("qemu-img", dir.path(), &["check", "-f", "vmdk", &name]);
        }
        assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &content);
    }
}

#[test]
fn writes_into_what_qemu_img_made() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut content = holey(ODD, 4);
    fs::write(dir.path().join("raw"), &content).unwrap();
    let kinds = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"];
    for kind in kinds {
        let option = format!("subformat={kind}");
        run(
            "qemu-img",
            dir.path(),
            &["convert", "-f", "raw", "-O", "vmdk", "-o", &option, "raw", &format!("{kind}.vmdk")],
        );
    }
    let mut random = Random::new(5);
    let changes: Vec<_> = (0..60)
        .map(|_| {
            let at = random.below(ODD as u64 - 200_000) as usize;
            let len = random.below(200_000) as usize;
            let bytes = if random.below(3) == 0 { Vec::new() } else { random.bytes(len) };
            content[at..at + len].fill(0);
            content[at..at + bytes.len()].copy_from_slice(&bytes);
            (at as u64, len as u64, bytes)
        })
        .collect();
    fs::write(dir.path().join("raw"), &content).unwrap();
    for kind in kinds {
        let name = format!("{kind}.vmdk");
        let path = dir.path().join(&name);
        let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
        for (at, len, bytes) in &changes {
            if bytes.is_empty() { disk.zero_at(*at..at + len).unwrap() } else { disk.write_at(*at, bytes).unwrap() }
        }
        disk.flush().unwrap();
        assert_is(&disk, &content);
        disk.close().unwrap();
        compare(dir.path(), "vmdk", &name);
        if kind.ends_with("Sparse") {
            run("qemu-img", dir.path(), &["check", "-f", "vmdk", &name]);
        }
        assert_is(&Disk::open(&path, &OpenOptions::new()).unwrap(), &content);
    }
}

#[test]
fn qemu_io_goes_on_writing_where_we_stopped() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(ODD as u64, CreateKind::MonolithicSparse)).unwrap();
    let mut content = vec![0; ODD];
    content[1000..200_000].fill(1);
    disk.write_at(1000, &content[1000..200_000]).unwrap();
    disk.close().unwrap();
    run("qemu-io", dir.path(), &["-f", "vmdk", "-c", "write -P 0x77 150k 3M", "s.vmdk"]);
    content[150 << 10..(150 << 10) + (3 << 20)].fill(0x77);
    let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
    assert_is(&disk, &content);
    disk.write_at(ODD as u64 - 7, b"the end").unwrap();
    content[ODD - 7..].copy_from_slice(b"the end");
    disk.close().unwrap();
    fs::write(dir.path().join("raw"), &content).unwrap();
    compare(dir.path(), "vmdk", "s.vmdk");
}

#[test]
fn a_zeroed_grain_of_a_child_hides_the_parent() {
    if !peer("qemu-img") || !peer("qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run("qemu-img", dir.path(), &["create", "-f", "vmdk", "base.vmdk", "1M"]);
    run("qemu-io", dir.path(), &["-f", "vmdk", "-c", "write -P 0xaa 0 1M", "base.vmdk"]);
    run(
        "qemu-img",
        dir.path(),
        &["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "-o", "zeroed_grain=on", "child.vmdk"],
    );
    run("qemu-io", dir.path(), &["-f", "vmdk", "-c", "write -z 0 128k", "-c", "write -P 0x55 256k 64k", "child.vmdk"]);
    let mut expected = vec![0xaa; 1 << 20];
    expected[..128 << 10].fill(0);
    expected[256 << 10..320 << 10].fill(0x55);
    let options = OpenOptions::new().writable();
    let disk = Disk::open(dir.path().join("child.vmdk"), &options).unwrap();
    assert_is(&disk, &expected);
    let map: Vec<_> = disk.map(0..1 << 20).map(|entry| entry.unwrap()).collect();
    assert_eq!((map[0].range.clone(), map[0].kind), (0..128 << 10, MapKind::Zero));

    // Writes into the child take the rest of the grain from the parent; zeroing hides the parent.
    disk.write_at((600 << 10) + 5, b"hello").unwrap();
    disk.zero_at((700 << 10) + 1..(900 << 10) + 3).unwrap();
    disk.write_at(5, b"over a zeroed grain").unwrap();
    expected[(600 << 10) + 5..][..5].copy_from_slice(b"hello");
    expected[(700 << 10) + 1..(900 << 10) + 3].fill(0);
    expected[5..24].copy_from_slice(b"over a zeroed grain");
    assert_is(&disk, &expected);
    disk.close().unwrap();
    fs::write(dir.path().join("raw"), &expected).unwrap();
    compare(dir.path(), "vmdk", "child.vmdk");
    run("qemu-img", dir.path(), &["check", "-f", "vmdk", "child.vmdk"]);
}

#[test]
fn stream_optimized_is_refused_by_name() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run("qemu-img", dir.path(), &["create", "-f", "vmdk", "-o", "subformat=streamOptimized", "s.vmdk", "1M"]);
    let error = Disk::open(dir.path().join("s.vmdk"), &OpenOptions::new()).unwrap_err();
    assert!(error.to_string().contains("streamOptimized"), "{error}");
}
