//! A small image that is kept, whole and damaged: damage makes errors, and neither panics nor endless work.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use vixmntapi::{
    device::Device,
    fs::{ExtentKind, FileName, open},
};

use super::{
    image::{Image, reparse, set},
    whole, wim, wof,
};
use crate::{compare::walk, disks::Memory, tree::noise};

/// A small volume with something of everything: kept in the repository, so that the reader is proved where ntfs-3g
/// cannot mount. `the_kept_image_is_made_again` made it.
pub(crate) fn image() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("small.img.gz")[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
#[ignore = "makes the image anew: KEEP=1 cargo test -p vixmntapi --test it -- --ignored kept_image"]
fn the_kept_image_is_made_again() {
    let Some(image) = Image::new(&["-c", "512", "-s", "512", "-L", "small"], 3) else { return };
    let Some(mount) = image.mount_with_streams() else { return };
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("packed")).unwrap();
    set(&at("packed"), "system.ntfs_attrib_be", &0x810_u32.to_be_bytes());
    fs::write(at("packed/text"), text()).unwrap();
    fs::write(at("noise"), noise(20_000)).unwrap();
    fs::write(at("noise:stream"), noise(2000)).unwrap();
    for (method, chunk, number) in wof::METHODS {
        let packed = wim::packed(&[&program()], method, chunk).unwrap();
        for (size, packed) in packed {
            wof::overlay(&at(&format!("program-{number}")), size, &packed, number);
        }
    }
    fs::write(at("link"), "").unwrap();
    reparse(&at("link"), 0xa000_000c, &super::image::link(0xa000_000c, r"a\b"));
    fs::create_dir(at("many")).unwrap();
    for number in 0..120 {
        fs::write(at(&format!("many/file with a longer name {number}")), format!("{number}")).unwrap();
    }
    for number in 0..20 {
        fs::hard_link(at("noise"), at(&format!("many/the name of a hard link {number}"))).unwrap();
    }
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"in the midst", 1 << 39).unwrap();
    drop((sparse, mount));
    if std::env::var_os("KEEP").is_some() {
        let file = fs::File::create("tests/it/ntfs/small.img.gz").unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        packed.write_all(&fs::read(image.path()).unwrap()).unwrap();
        packed.finish().unwrap();
    }
}

#[test]
fn everything_in_the_kept_image_is_as_it_was_written() {
    let device: Arc<dyn Device> = Arc::new(Memory(image()));
    let fs = open(&device).unwrap().unwrap();
    let found = walk(&fs);
    assert_eq!(found.len(), 1 + 10 + 120 + 20);
    let read = |path: &str, stream: Option<&str>| {
        let stream = stream.map(FileName::from);
        whole(&*fs.clone().open(found[path.as_bytes()], stream.as_ref()).unwrap())
    };
    assert!(read("packed/text", None) == text().as_bytes());
    for (_, _, number) in wof::METHODS {
        assert!(read(&format!("program-{number}"), None) == program());
    }
    assert!(read("noise", None) == noise(20_000));
    assert!(read("noise", Some("stream")) == noise(2000));
    assert_eq!(fs.read_link(found[&b"link"[..]]).unwrap(), FileName::from("a/b"));
    for number in 0..120 {
        assert_eq!(read(&format!("many/file with a longer name {number}"), None), format!("{number}").as_bytes());
    }
    for number in 0..20 {
        let path = format!("many/the name of a hard link {number}");
        assert_eq!(found[path.as_bytes()], found[&b"noise"[..]]);
    }
    assert_eq!(fs.metadata(found[&b"noise"[..]]).unwrap().links, 21);
    let sparse = fs.clone().open(found[&b"sparse"[..]], None).unwrap();
    let mut bytes = [1; 20];
    assert_eq!(sparse.read_at((1 << 39) - 4, &mut bytes).unwrap(), 20);
    assert_eq!(&bytes, b"\0\0\0\0in the midst\0\0\0\0");
    let extents = sparse.extents(0..u64::MAX).unwrap();
    assert!(matches!(&*extents, [first, .., last] if first.kind == ExtentKind::Hole && last.kind == ExtentKind::Hole));
    assert!(extents.len() < 6 && sparse.size() == 1 << 40, "{extents:?}");
    assert_eq!(fs.info().label.as_deref(), Some("small"));
}

fn text() -> String {
    "again and again ".repeat(9000)
}

/// What looks like a program: calls, of which many have the same target.
fn program() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..3000_i32 {
        bytes.push(0xe8);
        bytes.extend((4000 * (number % 5) - bytes.len() as i32).to_le_bytes());
        bytes.extend(format!("push {}\n", number.wrapping_mul(7919) % 1000).as_bytes());
    }
    bytes
}

#[test]
fn flipped_bits_in_what_is_packed_make_errors_or_as_many_bytes_and_no_panic() {
    let image = image();
    let device: Arc<dyn Device> = Arc::new(Memory(image.clone()));
    let fs = open(&device).unwrap().unwrap();
    let find = |name: &str| fs.lookup(fs.root(), &name.into()).unwrap().unwrap();
    let (mut refused, mut other) = (0, 0);
    for (_, _, number) in wof::METHODS {
        let node = find(&format!("program-{number}"));
        let stream = fs.clone().open(node, Some(&"WofCompressedData".into())).unwrap();
        let places: Vec<usize> = stream
            .extents(0..u64::MAX)
            .unwrap()
            .into_iter()
            .flat_map(|part| match part.kind {
                ExtentKind::Stored(at) => at as usize..(at + part.range.end - part.range.start) as usize,
                kind => panic!("{kind:?}"),
            })
            .collect();
        let mut random = noise(3 * 100).into_iter().map(usize::from);
        for _ in 0..100 {
            let mut bytes = image.clone();
            let mut next = || random.next().unwrap();
            bytes[places[(next() * 256 + next()) % places.len()]] ^= 1 << (next() % 8);
            let device: Arc<dyn Device> = Arc::new(Memory(bytes));
            let fs = open(&device).unwrap().unwrap();
            let content = fs.open(node, None).unwrap();
            let mut got = vec![0; program().len()];
            match content.read_at(0, &mut got) {
                Ok(len) => {
                    assert_eq!(len, got.len());
                    other += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("WofCompressedData"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    // The format has no checksums.
    assert!(refused > 60 && other > 60, "{refused} refused, {other} read as something else");
}
