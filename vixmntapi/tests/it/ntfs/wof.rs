//! Files compressed by WOF: chunks that wimlib packs, on volumes that ntfs-3g writes.

use std::{fs, path::Path};

use vixmntapi::{
    Error,
    device::{CacheOptions, PageCache},
    fs::{ExtentKind, open},
};

use super::{
    find,
    image::{Image, reparse},
    whole, wim,
};
use crate::{
    disks::{raw, raw_with},
    tree::noise,
};

/// The methods: how wimlib calls them, bytes of a chunk, the number in the reparse point.
pub(super) const METHODS: [(&str, u32, u32); 4] =
    [("XPRESS", 4096, 0), ("XPRESS", 8192, 2), ("XPRESS", 16384, 3), ("LZX", 32768, 1)];

/// Contents with all that chunks can be: text, programs (calls!), noise, zeros, and mixtures; with sizes around chunks.
fn contents() -> Vec<(String, Vec<u8>)> {
    let text: Vec<u8> =
        (0..20_000_u32).flat_map(|n| format!("{n}: {:x}\n", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let program = &program[program.len() / 3..][..700_001];
    let mut mixed = [&text[..50_000], &noise(90_000), &[0; 200_000], program].concat();
    mixed.extend((0..60_000_u32).map(|at| (at / 7 % 251) as u8));
    let mut all =
        vec![("program".into(), program.to_vec()), ("mixed".into(), mixed), ("zeros".into(), vec![0; 300_000])];
    for size in [2, 300, 4095, 4096, 4097, 8192, 16_385, 32_767, 32_768, 32_769, 65_536, text.len()] {
        all.push((format!("text-{size}"), text[..size].to_vec()));
    }
    all
}

/// Makes `path` a file that WOF keeps.
pub(super) fn overlay(path: &Path, size: u64, packed: &[u8], method: u32) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
    fs::write(format!("{}:WofCompressedData", path.display()), packed).unwrap();
    point(path, &[1, 2, 1, method]);
}

fn point(path: &Path, numbers: &[u32]) {
    let data: Vec<u8> = numbers.iter().copied().flat_map(u32::to_le_bytes).collect();
    reparse(path, 0x8000_0017, &data);
}

#[test]
fn files_compressed_by_each_method_of_wof_are_read_in_the_clear() {
    let Some(image) = Image::new(&["-c", "4096"], 128) else { return };
    let Some(mount) = image.mount_with_streams() else { return };
    let mut made = Vec::new();
    for (method, chunk, number) in METHODS {
        let contents = contents();
        let files: Vec<_> = contents.iter().map(|(_, bytes)| &**bytes).collect();
        let Some(packed) = wim::packed(&files, method, chunk) else { return };
        for (name, bytes) in contents {
            let Some(packed) = packed.get(&(bytes.len() as u64)) else { continue };
            let name = format!("{method}-{chunk}-{name}");
            let path = mount.path().join(&name);
            overlay(&path, bytes.len() as u64, packed, number);
            made.push((name, bytes, packed.len()));
        }
    }
    drop(mount);
    assert!(made.len() > 40, "{}", made.len());
    let fs = open(&raw(image.path())).unwrap().unwrap();
    for (name, bytes, packed) in &made {
        let node = find(&fs, name);
        let metadata = fs.metadata(node).unwrap();
        assert_eq!((metadata.size, metadata.reparse_tag), (bytes.len() as u64, Some(0x8000_0017)), "{name}");
        assert!(*packed < 1000 || metadata.allocated >= *packed as u64, "{name}: {metadata:?}");
        assert!(fs.streams(node).unwrap().is_empty(), "Windows does not show the stream");
        let content = fs.clone().open(node, None).unwrap();
        let kinds: Vec<_> = content.extents(0..u64::MAX).unwrap().iter().map(|extent| extent.kind).collect();
        assert_eq!(kinds, [ExtentKind::Encoded]);
        assert!(whole(&*content) == *bytes, "{name}");
        for (at, len) in [(1, 3), (4090, 20), (32_700, 100), (70_000, 50_000), (bytes.len() - 1, 9)] {
            let mut got = vec![0xaa; len];
            let read = content.read_at(at as u64, &mut got).unwrap();
            assert_eq!(got[..read], bytes[at.min(bytes.len())..(at + len).min(bytes.len())], "{name} at {at}");
        }
        let stream = fs.clone().open(node, Some(&"WofCompressedData".into())).unwrap();
        assert_eq!(stream.size(), *packed as u64);
    }
}

#[test]
fn a_large_compressed_file_is_read_with_few_reads_of_the_disk() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount_with_streams() else { return };
    let text: Vec<u8> = (0..700_000_u32).flat_map(|n| format!("{:x} ", n.wrapping_mul(n)).into_bytes()).collect();
    let Some(packed) = wim::packed(&[&text], "XPRESS", 4096) else { return };
    let packed = &packed[&(text.len() as u64)];
    overlay(&mount.path().join("large"), text.len() as u64, packed, 0);
    drop(mount);
    let cache = PageCache::new(CacheOptions::default());
    let fs = open(&raw_with(image.path(), &cache)).unwrap().unwrap();
    let content = fs.clone().open(find(&fs, "large"), None).unwrap();
    let before = cache.figures();
    let mut buffer = vec![0; 100_000];
    for (number, chunk) in text.chunks(buffer.len()).enumerate() {
        assert_eq!(content.read_at((number * 100_000) as u64, &mut buffer).unwrap(), chunk.len());
        assert!(buffer[..chunk.len()] == *chunk);
    }
    let after = cache.figures();
    let (reads, read) = (after.reads - before.reads, after.read - before.read);
    let packed = packed.len() as u64;
    assert!(packed > 2 << 20 && read < packed * 3 / 2, "{read} bytes of {packed}");
    // A reader begins with small reads; then there is at most one for 256 KiB.
    assert!(reads <= packed / (256 << 10) + 6, "{reads} reads of {packed} bytes");
}

#[test]
fn what_wof_keeps_elsewhere_or_not_as_it_should_is_refused() {
    let Some(image) = Image::new(&["-c", "4096"], 64) else { return };
    let Some(mount) = image.mount_with_streams() else { return };
    let at = |name: &str| mount.path().join(name);
    // 5000 bytes are two chunks of 4 KiB: a number, and the chunks.
    let noise = noise(5000);
    let plain = [&4096_u32.to_le_bytes(), &*noise].concat();
    let backwards = [&5000_u32.to_le_bytes(), &*noise].concat();
    for (name, packed) in [
        ("fine", &*plain),
        ("cut off", &plain[..5003]),
        ("too long", &[&*plain, b"x"].concat()),
        ("backwards", &backwards),
        ("no table", b"abc"),
        ("empty", b""),
    ] {
        overlay(&at(name), 5000, packed, 0);
    }
    for (name, numbers) in [
        ("in a WIM image", &[1, 1, 1, 0][..]),
        ("unknown provider", &[1, 3, 1, 0]),
        ("unknown method", &[1, 2, 1, 4]),
        ("unknown provider of another version", &[2, 2, 1, 0]),
        ("unknown provider, cut off", &[1]),
        ("no WofCompressedData", &[1, 2, 1, 0]),
    ] {
        fs::write(at(name), "").unwrap();
        point(&at(name), numbers);
    }
    drop(mount);
    let fs = open(&raw(image.path())).unwrap().unwrap();
    let read = |name: &str| {
        let content = fs.clone().open(find(&fs, name), None)?;
        let mut bytes = vec![0; 5000];
        assert_eq!(content.size(), 5000);
        content.read_at(0, &mut bytes).map(|_| bytes)
    };
    assert!(read("fine").unwrap() == noise);
    for name in ["cut off", "too long", "backwards", "no table", "empty", "no WofCompressedData"] {
        assert!(matches!(read(name), Err(Error::Damaged { .. })), "{name}");
    }
    for name in ["in a WIM image", "unknown provider", "unknown method"] {
        let error = read(name).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(name), "{error}");
    }
    for name in ["unknown provider of another version", "unknown provider, cut off"] {
        assert!(matches!(read(name), Err(Error::Unsupported { .. })), "{name}");
    }
}
