//! What the targets of guests' file systems share: an image that a tool made, with bytes of it replaced.
//!
//! Images are large and mostly empty, so the input is not the image: its first byte chooses one, and then come patches,
//! each a place (two bytes, of the blocks that are not empty; two bytes in the block) and up to 16 bytes for there.

#[path = "../../../vixmntapi/tests/it/hostile.rs"]
mod hostile;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Arc, OnceLock},
};

use vixmntapi::{Error, Result, device::Device, fs, part};

/// Patches an image whose file name begins with `kind` and reads all that can be read of it.
pub(crate) fn exercise(kind: &str, data: &[u8]) {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| Image::all(kind));
    let [choice, patches @ ..] = data else { return };
    let mut image = images[usize::from(*choice) % images.len()].clone();
    image.patch(patches);
    let device: Arc<dyn Device> = Arc::new(image);
    if let Ok(table) = part::partitions(&device) {
        for partition in table.partitions.iter().take(8) {
            drop(partition.slice(&device));
        }
    }
    if let Ok(Some(files)) = fs::open(&device) {
        hostile::walk_hostile(&files);
    }
}

/// The blocks of an image that are not empty, and what is patched.
#[derive(Clone, Debug)]
struct Image {
    size: u64,
    blocks: Arc<BTreeMap<u64, [u8; BLOCK]>>,
    places: Arc<Vec<u64>>,
    patches: BTreeMap<u64, u8>,
}

impl Image {
    fn all(kind: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
        let entries = std::fs::read_dir(&folder).expect("run ./make-images first");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        let of_kind = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind));
        let images: Vec<_> =
            paths.iter().filter(|path| of_kind(path)).map(|path| Self::read(path).expect("an image")).collect();
        assert!(!images.is_empty(), "there is no image of {kind}: run ./make-images");
        images
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let (mut blocks, mut places) = (BTreeMap::new(), Vec::new());
        for number in 0..size.div_ceil(BLOCK as u64) {
            let mut block = [0; BLOCK];
            let len = (size - number * BLOCK as u64).min(BLOCK as u64) as usize;
            file.read_exact(&mut block[..len])?;
            if block != [0; BLOCK] {
                blocks.insert(number, block);
                places.push(number * BLOCK as u64);
            }
        }
        Ok(Self { size, blocks: Arc::new(blocks), places: Arc::new(places), patches: BTreeMap::new() })
    }

    fn patch(&mut self, mut input: &[u8]) {
        while let [b0, b1, p0, p1, len, rest @ ..] = input {
            let block = usize::from(u16::from_le_bytes([*b0, *b1])) % self.places.len();
            let place = self.places[block] + u64::from(u16::from_le_bytes([*p0, *p1])) % BLOCK as u64;
            let (bytes, rest) = rest.split_at(usize::from(*len % 16 + 1).min(rest.len()));
            self.patches.extend((place..).zip(bytes.iter().copied()));
            input = rest;
        }
    }
}

impl Device for Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.size);
        let Some(end) = end else {
            let (device, len) = (self.name(), buf.len() as u64);
            return Err(Error::Read { device, offset, len, source: io::ErrorKind::UnexpectedEof.into() });
        };
        buf.fill(0);
        let first = offset / BLOCK as u64;
        for (number, block) in self.blocks.range(first..end.div_ceil(BLOCK as u64)) {
            let start = number * BLOCK as u64;
            let (from, to) = (offset.max(start), end.min(start + BLOCK as u64));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        for (place, byte) in self.patches.range(offset..end) {
            buf[(place - offset) as usize] = *byte;
        }
        Ok(())
    }

    fn name(&self) -> String {
        "the image".into()
    }
}

const BLOCK: usize = 4096;
