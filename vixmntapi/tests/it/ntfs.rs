//! NTFS against ntfs-3g: images are made and filled by it, and what it reads from them is what we have to read.

pub(crate) mod image;
pub(crate) mod kept;
mod sddl;
mod state;
mod streams;
mod wim;
mod wof;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::Arc,
};

use vixmntapi::{
    Error,
    device::Device,
    fs::{Consistency, Content, ExtentKind, FileKind, FileName, FileSystem, NodeId, open},
};

use self::image::{Image, reparse, set};
use crate::{
    compare::{Compare, assert_same, walk},
    disks::{Memory, raw},
    peers::run,
    tree::{Manifest, Names, Tree, noise},
};

/// Times of NTFS count 100 ns. Owners and permissions are ntfs-3g's own.
pub(crate) const WINDOWS: Compare = Compare { owners: false, modified: 100, xattrs: false, links: true };

fn tree(many: usize) -> Tree {
    let tree = Tree::new().many(many).deep(40).sizes().sparse(3 << 30).names(Names::Utf8).times();
    let folder = tree.path().join("links");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("one"), "one file").unwrap();
    for number in 0..40 {
        // So many names do not fit the first record: the file has an attribute list.
        let name = format!("another name of the one file, and a long one, {number}");
        fs::hard_link(folder.join("one"), folder.join(name)).unwrap();
    }
    tree
}

/// Fills an image with a tree, and compares all that is read from it.
fn same_as_source(format: &[&str], mib: u64, many: usize) {
    let Some(image) = Image::new(format, mib) else { return };
    let Some(mount) = image.mount() else { return };
    let tree = tree(many);
    run("cp", &[&"-a", &"--sparse=always", &tree.path().join("."), &mount.path()]);
    drop(mount);
    let device = raw(image.path());
    let fs = open(&device).unwrap().expect("it is NTFS");
    // A directory of Linux has a link for each that is in it.
    let manifest = Manifest::of(tree.path()).map(|_, node| {
        if node.kind == FileKind::Directory {
            node.links = 1;
        }
    });
    assert_same(&fs, &device, &manifest, WINDOWS);
}

#[test]
fn a_tree_on_clusters_of_4_kib_is_read_as_it_was_written() {
    same_as_source(&["-c", "4096"], 256, 1_000);
}

#[test]
fn a_directory_whose_blocks_are_smaller_than_clusters_is_listed_whole() {
    same_as_source(&["-c", "65536"], 512, 3_000);
}

#[test]
#[ignore = "minutes: cargo test -p vixmntapi --test it -- --ignored ntfs"]
fn twenty_thousand_files_in_a_directory_are_all_listed_and_found() {
    same_as_source(&["-c", "65536"], 512, 20_000);
    same_as_source(&["-c", "4096"], 256, 20_000);
}

#[test]
fn clusters_of_512_bytes_and_of_two_mebibytes_and_sectors_of_4_kib_are_read() {
    same_as_source(&["-c", "512"], 128, 100);
    same_as_source(&["-c", "2097152"], 1024, 100);
    same_as_source(&["-s", "4096", "-c", "4096"], 128, 100);
}

#[test]
fn compressed_files_are_read_in_the_clear_and_what_lies_plainly_is_said() {
    let Some(image) = Image::new(&["-c", "4096"], 128) else { return };
    let Some(mount) = image.mount() else { return };
    let folder = mount.path().join("packed");
    fs::create_dir(&folder).unwrap();
    set(&folder, "system.ntfs_attrib_be", &0x810_u32.to_be_bytes());
    let text: Vec<u8> =
        (0..200_000_u32).flat_map(|number| format!("line {} of the log\n", number / 3).into_bytes()).collect();
    let mut mixed = text[..300_000].to_vec();
    mixed.extend(noise(500_000));
    mixed.extend(vec![0; 400_000]);
    mixed.extend(&text[..5000]);
    for size in [0, 1, 600, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, text.len()] {
        fs::write(folder.join(format!("{size}.log")), &text[..size]).unwrap();
    }
    fs::write(folder.join("mixed"), &mixed).unwrap();
    fs::write(folder.join("noise"), noise(300_000)).unwrap();
    fs::write(folder.join("zeros"), vec![0; 1_000_000]).unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_all_at(&text[..100_000], 20 << 20).unwrap();
    drop(sparse);
    let manifest = Manifest::of(mount.path());
    drop(mount);
    let device = raw(image.path());
    let fs = open(&device).unwrap().unwrap();
    assert_same(&fs, &device, &manifest, WINDOWS);

    let node = find(&fs, "packed/mixed");
    let metadata = fs.metadata(node).unwrap();
    assert!(metadata.attributes.unwrap() & 0x800 != 0 && metadata.allocated < metadata.size, "{metadata:?}");
    let content = fs.clone().open(node, None).unwrap();
    let kinds: Vec<_> = content.extents(0..u64::MAX).unwrap().into_iter().map(|extent| extent.kind).collect();
    assert!(matches!(*kinds, [ExtentKind::Encoded, ExtentKind::Stored(_), .., ExtentKind::Encoded]), "{kinds:?}");
    for (at, len) in [(65_530, 20), (299_990, 70_000), (799_999, 5), (1_200_000, 10_000), (3, 1_000_000)] {
        let mut got = vec![1; len];
        let read = content.read_at(at as u64, &mut got).unwrap();
        assert!(got[..read] == mixed[at..(at + len).min(mixed.len())], "{len} at {at}");
    }
}

#[test]
fn a_file_in_ten_thousand_fragments_is_read_through_its_attribute_list() {
    let Some(image) = Image::new(&["-c", "512"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    let pieces: Vec<_> =
        (0..2).map(|number| File::create(mount.path().join(format!("half-{number}"))).unwrap()).collect();
    let bytes = noise(5_120_000);
    for (number, block) in bytes.chunks(1024).enumerate() {
        // Holes between the blocks make runs that cannot be joined.
        pieces[number % 2].write_all_at(block, number as u64 * 1024).unwrap();
    }
    drop(pieces);
    let manifest = Manifest::of(mount.path());
    drop(mount);
    let device = raw(image.path());
    let fs = open(&device).unwrap().unwrap();
    assert_same(&fs, &device, &manifest, WINDOWS);
    let content = fs.clone().open(find(&fs, "half-0"), None).unwrap();
    assert!(content.extents(0..u64::MAX).unwrap().len() > 4_900);
}

#[test]
fn an_mft_in_hundreds_of_fragments_is_found_by_its_own_parts() {
    let Some(image) = Image::new(&["-c", "512", "-z", "1"], 12) else { return };
    let Some(mount) = image.mount() else { return };
    let folder = mount.path().join("small");
    fs::create_dir(&folder).unwrap();
    let file = |number: usize| folder.join(format!("{number}"));
    // Clusters in use and free ones by turns, as far as the volume goes: then the table has nowhere to grow side by side.
    let halves = ["kept", "freed"].map(|name| File::create(mount.path().join(name)).unwrap());
    let full = (0..).find(|number| halves[number % 2].write_all_at(&[7; 1024], *number as u64 * 1024).is_err());
    drop(halves);
    assert!(full.unwrap() > 4_000, "{full:?}");
    fs::remove_file(mount.path().join("freed")).unwrap();
    let made = (0..6000).take_while(|number| fs::write(file(*number), format!("{number}")).is_ok()).count();
    assert!(made > 1000, "{made}");
    drop(fs::remove_file(file(made)));
    let manifest = Manifest::of(mount.path());
    drop(mount);
    let device = raw(image.path());
    let fs = open(&device).unwrap().unwrap();
    assert_same(&fs, &device, &manifest, WINDOWS);
    let table = fs.clone().open(find(&fs, "$MFT"), None).unwrap().extents(0..u64::MAX).unwrap();
    assert!(table.len() > 150, "{}", table.len());
    let Some(ntfsinfo) = crate::peers::peer("ntfsinfo") else { return };
    assert!(run(ntfsinfo, &[&"-f", &"-i", &"0", &image.path()]).contains("$ATTRIBUTE_LIST"));
}

#[test]
fn a_volume_whose_first_record_is_lost_is_read_by_its_copy() {
    let mut image = kept::image();
    let list = |image: &[u8]| {
        let device: Arc<dyn Device> = Arc::new(Memory(image.to_vec()));
        walk(&open(&device).unwrap().unwrap())
    };
    let whole = list(&image);
    assert!(whole.len() > 140);
    let first = image.windows(4).position(|bytes| bytes == b"FILE").unwrap();
    let table = u64::from_le_bytes(image[0x30..0x38].try_into().unwrap()) as usize * 512;
    assert!(first <= table);
    image[table..table + 1024].fill(0xee);
    assert_eq!(list(&image), whole);
}

#[test]
fn what_looks_like_ntfs_and_is_not_is_said() {
    let says = |name: &[u8], more: &[u8]| {
        let mut bytes = vec![0; 4096];
        bytes[3..3 + name.len()].copy_from_slice(name);
        bytes[16..16 + more.len()].copy_from_slice(more);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let device: Arc<dyn Device> = Arc::new(Memory(bytes));
        open(&device)
    };
    assert!(matches!(says(b"-FVE-FS-", b""), Err(Error::Encrypted { scheme: "BitLocker", .. })));
    assert!(matches!(says(b"ReFS", b"FSRS"), Err(Error::Unsupported { .. })));
    assert!(matches!(says(b"NTFS    ", b""), Err(Error::Damaged { .. })));
    assert!(matches!(says(b"none    ", b""), Ok(None)));
}

#[test]
fn files_that_ntfscp_writes_are_read_without_a_mount() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(copy) = crate::peers::peer("ntfscp") else { return };
    let source = Tree::new().sizes();
    let folder = source.path().join("sizes");
    let mut sizes = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        run(&copy, &[&"-f", &"-q", &image.path(), &entry.path(), &name]);
        sizes.push((name, fs::read(entry.path()).unwrap()));
    }
    run(&copy, &[&"-f", &"-q", &"-N", &"second", &image.path(), &folder.join("65537.bin"), &"600.bin"]);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    for (name, bytes) in &sizes {
        let node = find(&fs, name);
        assert_eq!(fs.metadata(node).unwrap().size, bytes.len() as u64);
        assert!(whole(&*fs.clone().open(node, None).unwrap()) == *bytes, "{name}");
    }
    let second = fs.clone().open(find(&fs, "600.bin"), Some(&"second".into())).unwrap();
    assert!(whole(&*second) == noise(65_537));
    assert_eq!(fs.clone().read_dir(fs.root()).unwrap().count(), sizes.len());
}

#[test]
fn alternate_streams_are_listed_and_read_whatever_their_size() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    let file = mount.path().join("report.docx");
    fs::write(&file, "content").unwrap();
    fs::create_dir(mount.path().join("folder")).unwrap();
    let zone = b"[ZoneTransfer]\r\nZoneId=3\r\n";
    set(&file, "user.Zone.Identifier", zone);
    set(&file, "user.large", &noise(60_000));
    set(&file, "user.empty", b"");
    set(&mount.path().join("folder"), "user.of a folder", b"yes");
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let node = find(&fs, "report.docx");
    let mut streams = fs.streams(node).unwrap();
    streams.sort();
    assert_eq!(streams, [("Zone.Identifier".into(), 26), ("empty".into(), 0), ("large".into(), 60_000)]);
    let read = |node, name: &str| whole(&*fs.clone().open(node, Some(&name.into())).unwrap());
    assert_eq!(read(node, "Zone.Identifier"), zone);
    assert_eq!(read(node, "zone.identifier"), zone);
    assert!(read(node, "large") == noise(60_000));
    assert_eq!(read(node, "empty"), b"");
    assert_eq!(read(find(&fs, "folder"), "of a folder"), b"yes");
    assert_eq!(whole(&*fs.clone().open(node, None).unwrap()), b"content");
    assert!(matches!(fs.clone().open(node, Some(&"none".into())), Err(Error::NotFound(_))));
}

#[test]
fn links_lead_where_they_say_and_content_that_is_elsewhere_is_named_and_refused() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    let at = |name: &str| mount.path().join(name);
    for (name, tag, target) in
        [("link", 0xa000_000c, r"..\a folder\file"), ("absolute", 0xa000_000c, r"\??\C:\Users\x")]
    {
        fs::write(at(name), "").unwrap();
        reparse(&at(name), tag, &image::link(tag, target));
    }
    fs::create_dir(at("junction")).unwrap();
    reparse(&at("junction"), 0xa000_0003, &image::link(0xa000_0003, r"\??\C:\ProgramData"));
    for (name, tag, data) in [
        ("wof", 0x8000_0017_u32, &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..]),
        ("dedup", 0x8000_0013, &[1; 40]),
        ("cloud", 0x9000_301a, &[2; 40]),
    ] {
        fs::write(at(name), "a placeholder").unwrap();
        reparse(&at(name), tag, data);
    }
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    for (name, target) in [("link", "../a folder/file"), ("absolute", "C:/Users/x"), ("junction", "C:/ProgramData")] {
        let node = find(&fs, name);
        let metadata = fs.metadata(node).unwrap();
        assert_eq!((metadata.kind, metadata.size), (FileKind::Symlink, target.len() as u64), "{name}");
        assert_eq!(fs.read_link(node).unwrap(), FileName::from(target));
        assert!(matches!(fs.clone().open(node, None), Err(Error::NotAFile { kind: "a symbolic link", .. })));
    }
    for (name, says) in [("wof", "WIM"), ("dedup", "deduplication"), ("cloud", "cloud")] {
        let node = find(&fs, name);
        assert_eq!(fs.metadata(node).unwrap().kind, FileKind::File);
        match fs.clone().open(node, None).map(|content| content.size()) {
            Err(error @ Error::Unsupported { .. }) => assert!(error.to_string().contains(says), "{error}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(fs.read_link(node), Err(Error::Invalid(_))));
    }
}

#[test]
fn attributes_times_and_security_descriptors_are_those_that_ntfs_3g_reads() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    let mut expected = Vec::new();
    for number in 0..60_u32 {
        let name = format!("file-{number}");
        let path = mount.path().join(&name);
        fs::write(&path, &*name).unwrap();
        if number % 3 == 0 {
            // A descriptor of its own: Everyone gets other rights each time.
            let mut acl = image::get(&path, "system.ntfs_acl");
            let at = acl.len() - 16;
            acl[at..at + 4].copy_from_slice(&(0x0012_0000 + number).to_le_bytes());
            set(&path, "system.ntfs_acl", &acl);
        }
        let attributes = [0x20, 0x21, 0x22, 0x24, 0x2000][number as usize % 5];
        set(&path, "system.ntfs_attrib", &u32::to_le_bytes(attributes));
        set(&path, "system.ntfs_crtime", &(133_000_000_000_000_007 + u64::from(number)).to_le_bytes());
        expected.push((name, image::get(&path, "system.ntfs_acl"), image::get(&path, "system.ntfs_attrib")));
    }
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    for (number, (name, acl, attributes)) in expected.iter().enumerate() {
        let node = find(&fs, name);
        let metadata = fs.metadata(node).unwrap();
        assert_eq!(&fs.security_descriptor(node).unwrap().unwrap(), acl, "{name}");
        assert_eq!(metadata.attributes.unwrap().to_le_bytes()[..], **attributes, "{name}");
        let created = metadata.times.created.unwrap();
        assert_eq!((created.seconds, created.nanos), (1_655_526_400, 700 + number as u32 * 100));
        assert_eq!(metadata.mode & 0o222 == 0, number % 5 == 1, "{metadata:?}");
    }
}

#[test]
fn owners_permissions_and_devices_of_linux_under_windows_are_read() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    let (file, device) = (mount.path().join("file"), mount.path().join("device"));
    fs::write(&file, "x").unwrap();
    fs::write(&device, "").unwrap();
    let owner = [("$LXUID", &[1000][..]), ("$LXGID", &[100]), ("$LXMOD", &[0o100_4750])];
    set(&file, "system.ntfs_ea", &image::ea(&owner));
    set(&device, "system.ntfs_ea", &image::ea(&[("OTHER", &[]), ("$LXDEV", &[8, 17])]));
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let file = fs.metadata(find(&fs, "file")).unwrap();
    assert_eq!((file.kind, file.uid, file.gid, file.mode), (FileKind::File, 1000, 100, 0o4750));
    let device = fs.metadata(find(&fs, "device")).unwrap();
    assert_eq!(device.device, Some((8, 17)));
}

#[test]
fn names_are_found_in_any_case_and_short_names_are_found_and_not_listed() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount() else { return };
    for name in ["Readme.TXT", "\u{c4}rger.doc", "same", "Same", "SAME", "a much longer name.html"] {
        fs::write(mount.path().join(name), name).unwrap();
    }
    set(&mount.path().join("a much longer name.html"), "system.ntfs_dos_name", b"AMUCHL~1.HTM");
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let read = |name: &str| {
        let node = fs.lookup(fs.root(), &name.into()).unwrap()?;
        Some(String::from_utf8(whole(&*fs.clone().open(node, None).unwrap())).unwrap())
    };
    for (asked, found) in [
        ("README.txt", "Readme.TXT"),
        ("\u{e4}RGER.DOC", "\u{c4}rger.doc"),
        ("same", "same"),
        ("Same", "Same"),
        ("SAME", "SAME"),
        ("amuchl~1.htm", "a much longer name.html"),
    ] {
        assert_eq!(read(asked).as_deref(), Some(found), "{asked}");
    }
    assert_eq!(read("readme"), None);
    assert_eq!(fs.lookup(fs.root(), &FileName::new(*b"\xff")).unwrap(), None);
    let listed: Vec<_> = fs.clone().read_dir(fs.root()).unwrap().map(|entry| entry.unwrap().name).collect();
    assert_eq!(listed.len(), 6, "{listed:?}");
    assert_eq!(fs.metadata(find(&fs, "a much longer name.html")).unwrap().links, 1);
}

#[test]
fn the_volume_says_its_name_its_serial_and_whether_it_was_left_clean() {
    let Some(image) = Image::new(&["-c", "8192", "-L", "Daten \u{fc}ber"], 64) else { return };
    let info = || open(&raw(image.path())).unwrap().unwrap().info();
    let found = info();
    assert_eq!((found.kind, found.block_size, found.consistency), ("ntfs", 8192, Consistency::Clean));
    assert_eq!(found.label.as_deref(), Some("Daten \u{fc}ber"));
    if let Some(blkid) = crate::peers::peer("blkid") {
        let uuid = run(blkid, &[&"-p", &"-s", &"UUID", &"-o", &"value", &image.path()]);
        assert_eq!(found.uuid.as_deref(), Some(uuid.trim()));
    }
    let Some(fix) = crate::peers::peer("ntfsfix") else { return };
    run(&fix, &[&image.path()]);
    assert_eq!(info().consistency, Consistency::DirtyIgnored);
    run(&fix, &[&"-d", &image.path()]);
    assert_eq!(info().consistency, Consistency::Clean);
}

#[test]
fn a_node_of_another_time_is_not_found() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let fs = open(&raw(image.path())).unwrap().unwrap();
    for number in [fs.root().number + (1 << 48), 5_000_000, u64::MAX] {
        assert!(matches!(fs.metadata(NodeId { tree: 0, number }), Err(Error::NotFound(_))));
    }
}

fn find(fs: &Arc<dyn FileSystem>, path: &str) -> NodeId {
    path.split('/').fold(fs.root(), |node, name| fs.lookup(node, &name.into()).unwrap().expect(path))
}

fn whole(content: &dyn Content) -> Vec<u8> {
    let mut bytes = vec![0; content.size() as usize];
    assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}
