//! Content as wimlib packs it into WIM images, where it has the form that WOF has on NTFS.

use std::{collections::BTreeMap, fs};

use crate::peers::{peer, run};

/// What is packed of files, by their sizes, which differ: the table and the chunks. Those of which wimlib found nothing to
/// save are not in it. `None` when `wimcapture` is missing.
pub(super) fn packed(files: &[&[u8]], method: &str, chunk: u32) -> Option<BTreeMap<u64, Vec<u8>>> {
    let wimcapture = peer("wimcapture")?;
    let folder = tempfile::tempdir().unwrap();
    let (tree, image) = (folder.path().join("tree"), folder.path().join("image.wim"));
    fs::create_dir(&tree).unwrap();
    for bytes in files {
        fs::write(tree.join(bytes.len().to_string()), bytes).unwrap();
    }
    let (method, chunk) = (format!("--compress={method}"), format!("--chunk-size={chunk}"));
    run(wimcapture, &[&tree, &image, &"--no-acls", &method, &chunk]);
    let image = fs::read(image).unwrap();
    assert!(image.starts_with(b"MSWIM\0\0\0"));
    let table = Resource::parse(&image[0x30..]);
    let entries = image[table.at..table.at + table.len].chunks_exact(50).map(Resource::parse);
    let packed = entries.filter(|entry| entry.flags & METADATA == 0 && entry.flags & COMPRESSED != 0);
    Some(packed.map(|entry| (entry.size, image[entry.at..entry.at + entry.len].to_vec())).collect())
}

/// A piece of an image: 7 bytes of length and one of flags, the place, the size in the clear.
struct Resource {
    len: usize,
    flags: u8,
    at: usize,
    size: u64,
}

impl Resource {
    fn parse(bytes: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        Self { len: (number(0) & ((1 << 56) - 1)) as usize, flags: bytes[7], at: number(8) as usize, size: number(16) }
    }
}

const METADATA: u8 = 2;
const COMPRESSED: u8 = 4;
