//! Contents that are not what their checksums say: read from their other copy, or refused.

use std::{fs, sync::Arc};

use vixmntapi::{Error, device::Device, fs::Consistency};

use super::{Image, opened};
use crate::{
    compare::{Compare, assert_same},
    disks::Memory,
    peers::{Mount, run},
    tree::{Manifest, Tree, noise},
};

#[test]
fn content_that_is_wrong_is_read_from_its_other_copy_or_refused() {
    for options in ["compress=no", "compress-force=zstd"] {
        let Some(image) = Image::new(&["-d", "dup", "-m", "dup"], &Tree::new()) else { return };
        let Some(mount) = Mount::new(&image.path, options) else { return };
        // Noise of four bits can be packed, and what is packed is noise.
        let text: Vec<u8> = noise(400_000).iter().map(|byte| byte & 15).collect();
        fs::write(mount.path().join("file"), &text).unwrap();
        fs::write(mount.path().join("other"), noise(50_000)).unwrap();
        let truth = Manifest::of(mount.path());
        drop(mount);
        let whole = fs::read(&image.path).unwrap();
        let copies = copies(&whole);
        assert!(copies.len() > 20, "{}", copies.len());
        // Every second block is wrong in its first copy, all others in their second one.
        let mut bytes = whole.clone();
        for (number, block) in copies.iter().enumerate() {
            bytes[block[number % 2] + 4095 - number] ^= 0x10;
        }
        let device: Arc<dyn Device> = Arc::new(Memory(bytes));
        let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
        // What is wrong where the map points is nothing that the map could know.
        let node = fs.lookup(fs.root(), &"file".into()).unwrap().unwrap();
        let content = fs.clone().open(node, None).unwrap();
        let mut seen = vec![0; text.len()];
        content.read_at(0, &mut seen).unwrap();
        assert!(seen == text);
        for at in [0, 1, 4095, 100_001, 399_990] {
            let mut few = [0; 10];
            assert_eq!(content.read_at(at as u64, &mut few).unwrap(), 10);
            assert_eq!(few, text[at..at + 10]);
        }
        // Both copies of one block.
        let mut bytes = whole;
        for copy in &copies[10] {
            bytes[*copy] ^= 1;
        }
        let device: Arc<dyn Device> = Arc::new(Memory(bytes));
        let fs = vixmntapi::fs::open(&device).unwrap().unwrap();
        let wrong = ["file", "other"].map(|name| {
            let node = fs.lookup(fs.root(), &name.into()).unwrap().unwrap();
            let content = fs.clone().open(node, None).unwrap();
            content.read_at(0, &mut vec![0; content.size() as usize]).err()
        });
        let told: Vec<_> = wrong.iter().flatten().collect();
        assert!(matches!(&told[..], [Error::Damaged { problem, .. }] if problem.contains("checksum")), "{wrong:?}");
        let (fs, device) = opened(&image.path);
        assert_same(&fs, &device, &truth, Compare::ALL);
    }
}

#[test]
fn content_that_was_synced_since_the_last_commit_is_compared_with_the_checksums_in_the_log() {
    let Some(image) = Image::new(&[], &Tree::new()) else { return };
    let Some(mount) = Mount::new(&image.path, "commit=300") else { return };
    run("sync", &[&"-f", &mount.path()]);
    fs::write(mount.path().join("file"), noise(100_000)).unwrap();
    fs::File::open(mount.path().join("file")).unwrap().sync_all().unwrap();
    let mut bytes = fs::read(&image.path).unwrap();
    drop(mount);
    let block = &noise(100_000)[40_960..45_056];
    let at = (0..bytes.len()).step_by(4096).find(|at| bytes[*at..at + 4096] == *block).unwrap();
    let read = |bytes: Vec<u8>| {
        let fs = vixmntapi::fs::open(&(Arc::new(Memory(bytes)) as Arc<dyn Device>)).unwrap().unwrap();
        assert_eq!(fs.info().consistency, Consistency::ReplayedInMemory);
        let node = fs.lookup(fs.root(), &"file".into()).unwrap().unwrap();
        fs.open(node, None).unwrap().read_at(0, &mut vec![0; 100_000])
    };
    assert_eq!(read(bytes.clone()).unwrap(), 100_000);
    bytes[at + 77] ^= 4;
    let error = read(bytes).unwrap_err();
    assert!(matches!(&error, Error::Damaged { problem, .. } if problem.contains("byte 40960")), "{error:?}");
}

/// Where the blocks of contents are that are on the volume twice, in the order in which they lie.
fn copies(image: &[u8]) -> Vec<[usize; 2]> {
    let id = &image[(64 << 10) + 32..][..16];
    let mut of_bytes = std::collections::BTreeMap::<&[u8], Vec<usize>>::new();
    for (number, block) in image.chunks(4096).enumerate().skip(64) {
        if block[4095] != 0 && block[0] != 0 && block[32..48] != *id {
            of_bytes.entry(block).or_default().push(number * 4096);
        }
    }
    let mut found: Vec<[usize; 2]> = of_bytes.into_values().filter_map(|places| places.try_into().ok()).collect();
    found.sort();
    found
}
