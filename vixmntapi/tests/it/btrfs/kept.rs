//! Small volumes that need no kernel: kept as they were while in use and after it; whole and damaged.

use std::{
    fs::{self, File},
    sync::{Arc, OnceLock},
};

use proptest::prelude::*;
use vixmntapi::{
    device::Device,
    fs::{Consistency, FileSystem},
};

use crate::{
    compare::{walk, walk_hostile},
    disks::Memory,
    peers::{Mount, peer, run, sync},
    tree::noise,
};

/// A volume copied while it was in use, and once more after that. `the_kept_images_of_btrfs_are_made_again` made them.
/// Their checksums are not CRC-32C, so that what is damaged is not just refused.
fn kept(in_use: bool) -> Vec<u8> {
    let packed = if in_use { &include_bytes!("dirty.img.zst")[..] } else { include_bytes!("clean.img.zst") };
    zstd::decode_all(packed).unwrap()
}

#[test]
#[ignore = "makes the images anew: KEEP=1 cargo test -p vixmntapi --test it -- --ignored kept_images_of_btrfs"]
fn the_kept_images_of_btrfs_are_made_again() {
    let Some(mkfs) = peer("mkfs.btrfs") else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(24 << 20).unwrap();
    run(mkfs, &[&"-q", &"--mixed", &"-m", &"single", &"-d", &"single", &"-n", &"4096", &"--csum", &"xxhash", &image]);
    // Where a chunk has to be made, syncing is a commit.
    let Some(mount) = Mount::new(&image, "nodiscard") else { return };
    fs::write(mount.path().join("room"), vec![0; 6 << 20]).unwrap();
    run("sync", &[&"-f", &mount.path()]);
    fs::remove_file(mount.path().join("room")).unwrap();
    drop(mount);
    let Some(mount) = Mount::new(&image, "commit=300,compress=zstd,nodiscard") else { return };
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    for number in 0..40 {
        fs::write(at(&format!("folder/{number}")), format!("before {number}")).unwrap();
    }
    fs::write(at("changed"), noise(20_000)).unwrap();
    run("sync", &[&"-f", &mount.path()]);
    for number in 0..20 {
        fs::remove_file(at(&format!("folder/{number}"))).unwrap();
    }
    for number in 40..80 {
        fs::write(at(&format!("folder/{number}")), format!("after {number}")).unwrap();
    }
    fs::write(at("packed"), "again and again ".repeat(2000)).unwrap();
    let changed = File::options().write(true).open(at("changed")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&changed, &[7; 4096], 8192).unwrap();
    fs::hard_link(at("changed"), at("folder/linked")).unwrap();
    std::os::unix::fs::symlink("folder/linked", at("link")).unwrap();
    rustix::fs::setxattr(at("changed"), "user.short", &noise(10), rustix::fs::XattrFlags::empty()).unwrap();
    drop(changed);
    sync(mount.path());
    let dirty = fs::read(&image).unwrap();
    drop(mount);
    assert_ne!(dirty[(64 << 10) + 96..][..8], [0; 8], "there is no log");
    if std::env::var_os("KEEP").is_some() {
        for (name, bytes) in [("dirty", dirty), ("clean", fs::read(&image).unwrap())] {
            fs::write(format!("tests/it/btrfs/{name}.img.zst"), zstd::encode_all(&bytes[..], 22).unwrap()).unwrap();
        }
    }
}

#[test]
fn the_kept_images_read_alike_in_use_and_after_it() {
    for (in_use, consistency) in [(true, Consistency::ReplayedInMemory), (false, Consistency::Clean)] {
        let device: Arc<dyn Device> = Arc::new(Memory(kept(in_use)));
        let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
        assert_eq!(fs.info().consistency, consistency);
        let found = walk(&fs);
        assert_eq!(found.len(), 1 + 4 + 60 + 1);
        let read = |path: &str| read(&fs, found[path.as_bytes()]);
        for number in 20..80 {
            let when = if number < 40 { "before" } else { "after" };
            assert_eq!(read(&format!("folder/{number}")), format!("{when} {number}").as_bytes());
        }
        let mut changed = noise(20_000);
        changed[8192..12_288].fill(7);
        assert!(read("changed") == changed && read("packed") == "again and again ".repeat(2000).as_bytes());
        let node = found[&b"changed"[..]];
        assert_eq!((found[&b"folder/linked"[..]], fs.metadata(node).unwrap().links), (node, 2));
        assert_eq!(fs.read_link(found[&b"link"[..]]).unwrap().as_bytes(), b"folder/linked");
        assert_eq!(fs.xattrs(node).unwrap(), [("user.short".into(), noise(10))]);
    }
}

#[test]
fn a_log_that_leads_nowhere_is_left_alone_as_a_whole() {
    let whole = kept(true);
    let log = u64::from_le_bytes(whole[(64 << 10) + 96..][..8].try_into().unwrap());
    // The last item of each leaf of a log becomes a name of an inode that is not there.
    let generation = u64::from_le_bytes(whole[(64 << 10) + 72..][..8].try_into().unwrap());
    let mut bytes = whole.clone();
    let mut damaged = 0;
    for block in bytes.chunks_mut(4096).filter(|block| block[32..48] == whole[(64 << 10) + 32..][..16]) {
        let is_log =
            block[80..88] == (generation + 1).to_le_bytes() && block[88..96] == 6_u64.wrapping_neg().to_le_bytes();
        if is_log && block[48..56] != log.to_le_bytes() && block[100] == 0 {
            let items = u32::from_le_bytes(block[96..100].try_into().unwrap()) as usize;
            block[101 + 25 * (items - 1)..][..17]
                .copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 0, 12, 0, 1, 0, 0, 0, 0, 0, 0]);
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let device: Arc<dyn Device> = Arc::new(Memory(bytes));
    let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
    assert_eq!(fs.info().consistency, Consistency::DirtyIgnored);
    let found = walk(&fs);
    assert_eq!(found.len(), 1 + 2 + 40);
    assert!(read(&fs, found[&b"changed"[..]]) == noise(20_000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damage_to_a_volume_in_use_is_an_error_and_never_a_panic_or_endless(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u32), 1..40),
    ) {
        static IMAGE: OnceLock<(Vec<u8>, Vec<usize>)> = OnceLock::new();
        let (image, used) = IMAGE.get_or_init(|| {
            let image = kept(true);
            let used = image.chunks(512).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
            let used = used.map(|(number, _)| number).collect();
            (image, used)
        });
        let mut bytes = image.clone();
        for (block, place, bit) in flips {
            bytes[used[block.index(used.len())] * 512 + place.index(512)] ^= 1 << bit;
        }
        let device: Arc<dyn Device> = Arc::new(Memory(bytes));
        if let Ok(Some(fs)) = vixmntapi::fs::open(&device) {
            walk_hostile(&fs);
        }
    }
}

fn read(fs: &Arc<dyn FileSystem>, node: vixmntapi::fs::NodeId) -> Vec<u8> {
    let content = fs.clone().open(node, None).unwrap();
    let mut bytes = vec![0; content.size() as usize];
    assert_eq!(content.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}
