//! exFAT: images of `mkfs.exfat`, filled by the FUSE driver where this system lets it, and by entries written here.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::NamedTempFile;
use vixmntapi::{
    Error, Result,
    device::Device,
    fs::{Consistency, ExtentKind, FileName, FileSystem, NodeId, open},
};

use crate::{
    compare::{Compare, assert_same},
    disks::{Memory, raw},
    peers::{peer, run},
    tree::{Manifest, Names, Tree, noise},
};

pub(crate) fn image(mib: u64, cluster: &str) -> Option<NamedTempFile> {
    let mkfs = peer("mkfs.exfat")?;
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(mib << 20).unwrap();
    run(mkfs, &[&"-c", &cluster, &"-L", &"Größe 1", &image.path()]);
    Some(image)
}

/// Lets the FUSE driver have an image. `None` where this system does not mount; that is said.
pub(crate) fn mounted(image: &Path, work: impl FnOnce(&Path)) -> Option<()> {
    let driver = peer("mount.exfat-fuse")?;
    let cannot = |what: &[u8]| {
        eprintln!("CANNOT MOUNT exFAT: {}. This test proves nothing", String::from_utf8_lossy(what).trim());
        assert!(std::env::var_os("REQUIRE_MOUNTS").is_none(), "mounts are required");
    };
    // The driver takes block devices only.
    let output = Command::new("losetup").args(["--find", "--show"]).arg(image).stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        cannot(&output.stderr);
        return None;
    }
    let device = String::from_utf8(output.stdout).unwrap();
    let device = device.trim();
    let point = tempfile::tempdir().unwrap();
    let output = Command::new(driver).arg(device).arg(point.path()).stdin(Stdio::null()).output().unwrap();
    let mounted = output.status.success();
    if mounted {
        work(point.path());
        run("umount", &[&point.path()]);
    } else {
        cannot(&output.stderr);
    }
    // The driver ends after its mount, and only then is all written; the device goes when nobody has it any more.
    run("losetup", &[&"--detach", &device]);
    for _ in 0..200 {
        if !run("losetup", &[&"--list", &"--noheadings", &"--output", &"BACK-FILE"]).contains(image.to_str().unwrap()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    if !mounted {
        return None;
    }
    Some(())
}

fn files(device: &Arc<dyn Device>) -> Arc<dyn FileSystem> {
    open(device).unwrap().expect("it is exFAT")
}

#[test]
fn a_tree_is_read_as_the_fuse_driver_wrote_it() {
    for (mib, cluster, many) in [(64, "512", 300), (200, "4K", 2000), (300, "128K", 300)] {
        let Some(image) = image(mib, cluster) else { return };
        let tree = Tree::new().many(many).deep(20).sizes().names(Names::Portable);
        let copied = mounted(image.path(), |point| {
            let from = tree.path().join(".");
            run("cp", &[&"-r", &"--preserve=timestamps", &from, &point]);
        });
        if copied.is_none() {
            return;
        }
        let device = raw(image.path());
        let files = files(&device);
        let root = files.metadata(files.root()).unwrap().times.modified;
        let manifest = Manifest::of(tree.path()).map(|path, node| {
            if path.is_empty() {
                node.modified = root;
            }
        });
        let what = Compare { owners: false, modified: 2_000_000_000, xattrs: false, links: false };
        assert_same(&files, &device, &manifest, what);
        assert_eq!((files.info().kind, files.info().label.as_deref()), ("exfat", Some("Größe 1")));
        if let Some(fsck) = peer("fsck.exfat") {
            run(fsck, &[&"-n", &image.path()]);
        }
    }
}

/// A volume as its specification describes it, of which the tests write the parts.
pub(crate) struct Volume {
    pub(crate) bytes: Vec<u8>,
    cluster: usize,
    table: usize,
    heap: usize,
    root: u32,
}

/// What a stream's entry says of clusters.
#[derive(Clone, Copy)]
struct Stored {
    first: u32,
    contiguous: bool,
    size: u64,
    valid: u64,
}

impl Volume {
    fn new(mib: u64, cluster: &str) -> Option<Self> {
        let image = image(mib, cluster)?;
        let bytes = fs::read(image.path()).unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let sector = 1 << bytes[108];
        let (table, heap, root) = (number(80) as usize * sector, number(88) as usize * sector, number(96));
        Some(Self { cluster: sector << bytes[109], table, heap, root, bytes })
    }

    fn place(&self, cluster: u32) -> usize {
        self.heap + (cluster as usize - 2) * self.cluster
    }

    /// Links clusters and fills them.
    fn chain(&mut self, clusters: &[u32], content: &[u8]) {
        for (number, cluster) in clusters.iter().enumerate() {
            let next = clusters.get(number + 1).copied().unwrap_or(u32::MAX);
            self.bytes[self.table + *cluster as usize * 4..][..4].copy_from_slice(&next.to_le_bytes());
        }
        self.fill(clusters, content);
    }

    fn fill(&mut self, clusters: &[u32], content: &[u8]) {
        for (cluster, part) in clusters.iter().zip(content.chunks(self.cluster)) {
            let place = self.place(*cluster);
            self.bytes[place..place + part.len()].copy_from_slice(part);
        }
    }

    /// The first entry of the root directory that was never used.
    fn end_of_root(&self) -> usize {
        let root = self.place(self.root);
        (root..).step_by(32).find(|at| self.bytes[*at] == 0).unwrap()
    }

    fn device(&self) -> Arc<dyn Device> {
        Arc::new(Memory(self.bytes.clone()))
    }
}

/// The entries of a file: chapters 7.4, 7.6 and 7.7 of the specification.
fn set(name: &str, attributes: u16, stored: Stored) -> Vec<u8> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let mut set = vec![0; 32 * (2 + units.len().div_ceil(15))];
    (set[0], set[1]) = (0x85, (set.len() / 32 - 1) as u8);
    set[4..6].copy_from_slice(&attributes.to_le_bytes());
    let time: u32 = (2021 - 1980) << 25 | 3 << 21 | 4 << 16 | 5 << 11 | 6 << 5 | 4;
    for at in [8, 12, 16] {
        set[at..at + 4].copy_from_slice(&time.to_le_bytes());
    }
    // 1.99 s more; two hours east of UTC.
    (set[20], set[21], set[22], set[23], set[24]) = (199, 199, 0x88, 0x88, 0x88);
    let stream = &mut set[32..64];
    (stream[0], stream[1], stream[3]) = (0xc0, 1 | if stored.contiguous { 2 } else { 0 }, units.len() as u8);
    let capitals = name.to_ascii_uppercase();
    let bytes = capitals.encode_utf16().flat_map(u16::to_le_bytes);
    let hash = bytes.fold(0_u16, |hash, byte| hash.rotate_right(1).wrapping_add(byte.into()));
    stream[4..6].copy_from_slice(&hash.to_le_bytes());
    stream[8..16].copy_from_slice(&stored.valid.to_le_bytes());
    stream[20..24].copy_from_slice(&stored.first.to_le_bytes());
    stream[24..32].copy_from_slice(&stored.size.to_le_bytes());
    for (entry, part) in set[64..].chunks_mut(32).zip(units.chunks(15)) {
        entry[0] = 0xc1;
        for (place, unit) in entry[2..].chunks_mut(2).zip(part) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let counted = set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    let sum = counted.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
    set[2..4].copy_from_slice(&sum.to_le_bytes());
    set
}

/// A volume with a file in one piece of which half was written, one in pieces, and a directory of 512-byte clusters
/// whose sets lie across them, in pieces or side by side.
pub(crate) fn written(contiguous: bool) -> Option<(Volume, Vec<u8>)> {
    let mut volume = Volume::new(4, "512")?;
    let content = noise(2000);
    volume.fill(&[100, 101, 102, 103], &content);
    volume.chain(&[205, 200, 210, 201], &content);
    let file = |first, contiguous, valid| Stored { first, contiguous, size: 2000, valid };
    let long = "n".repeat(255);
    let below: Vec<u8> = [
        set("inner", 0x20, file(205, false, 2000)),
        set(&long, 0x20, file(100, true, 2000)),
        set("LAST", 0x20, file(100, true, 2000)),
    ]
    .concat();
    let clusters = if contiguous { [300, 301, 302] } else { [300, 310, 305] };
    if contiguous {
        volume.fill(&clusters, &below)
    } else {
        volume.chain(&clusters, &below)
    }
    let entries = [
        set("half.bin", 0x21, file(100, true, 1000)),
        set("Pieces \u{1f600}", 0x20, file(205, false, 2000)),
        set("folder", 0x10, Stored { first: 300, contiguous, size: 1536, valid: 1536 }),
        set("empty", 0x20, Stored { first: 0, contiguous: false, size: 0, valid: 0 }),
    ]
    .concat();
    let root = volume.root;
    let at = volume.end_of_root() - volume.place(root);
    let first = volume.place(root);
    let all = [volume.bytes[first..first + at].to_vec(), entries].concat();
    volume.chain(&[root, 400, 401, 402], &all);
    Some((volume, content))
}

fn find(files: &Arc<dyn FileSystem>, path: &str) -> Result<Option<NodeId>> {
    let mut node = files.root();
    for name in path.split('/') {
        match files.lookup(node, &FileName::from(name))? {
            Some(found) => node = found,
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}

fn read(files: &Arc<dyn FileSystem>, path: &str) -> Vec<u8> {
    let content = files.clone().open(find(files, path).unwrap().expect(path), None).unwrap();
    let mut bytes = vec![0xaa; content.size() as usize];
    assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

#[test]
fn entries_as_the_specification_has_them_are_read() {
    for contiguous in [true, false] {
        let Some((volume, content)) = written(contiguous) else { return };
        let files = files(&volume.device());
        let half = read(&files, "HALF.bin");
        assert!(half[..1000] == content[..1000] && half[1000..].iter().all(|byte| *byte == 0));
        assert!(read(&files, "pieces \u{1f600}") == content);
        for name in ["folder/inner", "folder/last", &format!("FOLDER/{}", "N".repeat(255))] {
            assert!(read(&files, name) == content, "{name}");
        }
        assert!(read(&files, "empty").is_empty());
        assert_eq!(find(&files, "folder/none").unwrap(), None);
        let node = find(&files, "half.bin").unwrap().unwrap();
        let extents = files.clone().open(node, None).unwrap().extents(0..2000).unwrap();
        let kinds: Vec<_> = extents.into_iter().map(|extent| (extent.range, extent.kind)).collect();
        let place = ExtentKind::Stored(volume.place(100) as u64);
        assert_eq!(kinds, [(0..1000, place), (1000..2000, ExtentKind::Unwritten)]);
        let metadata = files.metadata(node).unwrap();
        // 2021-03-04 05:06:08 and 1.99 s, two hours east.
        assert_eq!((metadata.times.modified.seconds, metadata.times.modified.nanos), (1_614_827_169, 990_000_000));
        assert_eq!((metadata.attributes, metadata.mode), (Some(0x21), 0o444));
        let names: Vec<_> = files.clone().read_dir(files.root()).unwrap().map(|entry| entry.unwrap().name).collect();
        assert_eq!(names, ["half.bin", "Pieces \u{1f600}", "folder", "empty"].map(FileName::from));
    }
}

#[test]
fn a_damaged_entry_is_an_error_of_its_directory_and_not_a_missing_file() {
    let Some((mut volume, _)) = written(true) else { return };
    let inner = volume.place(300);
    volume.bytes[inner + 70] ^= 1;
    let files = files(&volume.device());
    let folder = find(&files, "folder").unwrap().unwrap();
    let error = files.clone().read_dir(folder).unwrap().find_map(|entry| entry.err()).expect("it is damaged");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(find(&files, "folder/last").is_err());
    assert!(find(&files, "half.bin").unwrap().is_some());
}

#[test]
fn a_damaged_boot_region_is_read_from_its_copy_and_a_dirty_volume_says_so() {
    let Some((mut volume, content)) = written(true) else { return };
    assert_eq!(files(&volume.device()).info().consistency, Consistency::Clean);
    volume.bytes[106] |= 2;
    assert_eq!(files(&volume.device()).info().consistency, Consistency::DirtyIgnored);
    volume.bytes[80] ^= 1;
    assert!(read(&files(&volume.device()), "folder/inner") == content);
    volume.bytes[12 * 512 + 80] ^= 1;
    assert!(matches!(open(&volume.device()), Err(Error::Damaged { .. })));
}
