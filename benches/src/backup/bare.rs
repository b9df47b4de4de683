//! The limit: the work that no backup can leave out, and nothing else.
//!
//! Two threads over one raw file: zero test, keyed BLAKE3, zstd level 1, AES-256-GCM, one output file that is synced.
//! No index, no deduplication, no server. And the way back: read, decrypt, decompress, hash.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::image;

pub(super) const CHUNK: u64 = 256 << 10;
const THREADS: usize = 2;
const TAG: usize = 16;

/// Where a chunk lies in the output.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    stored: u64,
    place: u64,
    compressed: bool,
}

/// Reads all of the image; returns bytes read and stored.
pub(super) fn full(image: &Path, out: &Path) -> Result<(u64, u64), Box<dyn Error>> {
    let size = std::fs::metadata(image)?.len();
    store(image, out, &(0..size).step_by(CHUNK as usize).collect::<Vec<_>>())
}

/// Reads only the chunks that the changes of a round touch.
pub(super) fn incremental(image: &Path, out: &Path, round: u64) -> Result<(u64, u64), Box<dyn Error>> {
    let size = std::fs::metadata(image)?.len();
    let mut chunks: Vec<u64> = image::changes(size, round).into_iter().map(|(at, _)| at / CHUNK * CHUNK).collect();
    chunks.dedup();
    store(image, out, &chunks)
}

fn store(image: &Path, out: &Path, chunks: &[u64]) -> Result<(u64, u64), Box<dyn Error>> {
    let (input, output) = (File::open(image)?, File::create(out)?);
    let (next, end) = (AtomicUsize::new(0), AtomicU64::new(0));
    let places = Mutex::new(Vec::new());
    in_threads(|| {
        let key = key()?;
        let mut chunk = vec![0u8; CHUNK as usize];
        let mut sealed = Vec::with_capacity(zstd::zstd_safe::compress_bound(chunk.len()) + TAG);
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&at) = chunks.get(number) else { return Ok(()) };
            input.read_exact_at(&mut chunk, at)?;
            if is_zero(&chunk) {
                continue;
            }
            std::hint::black_box(blake3::keyed_hash(&[7; 32], &chunk));
            sealed.clear();
            let len = compressor.compress_to_buffer(&chunk, &mut sealed)?;
            let compressed = len < chunk.len();
            if !compressed {
                sealed.clear();
                sealed.extend_from_slice(&chunk);
            }
            let tag = key.seal_in_place_separate_tag(nonce(at), Aad::empty(), &mut sealed);
            sealed.extend_from_slice(tag.map_err(cipher)?.as_ref());
            let stored = sealed.len() as u64;
            let place = end.fetch_add(stored, Ordering::Relaxed);
            output.write_all_at(&sealed, place)?;
            places.lock().map_err(|_| io::Error::other("a thread failed"))?.push(Place {
                at,
                stored,
                place,
                compressed,
            });
        }
    })?;
    output.sync_all()?;
    let places = places.into_inner()?;
    let lines: Vec<String> = places
        .iter()
        .map(|place| format!("{} {} {} {}", place.at, place.stored, place.place, u8::from(place.compressed)))
        .collect();
    std::fs::write(out.with_extension("places"), lines.join("\n"))?;
    Ok((chunks.len() as u64 * CHUNK, end.into_inner()))
}

/// How fast the source of a restore is: everything stored is read, decrypted, decompressed and hashed.
pub(super) fn read_back(out: &Path) -> Result<u64, Box<dyn Error>> {
    let input = File::open(out)?;
    let text = std::fs::read_to_string(out.with_extension("places"))?;
    let mut places = text.lines().map(parse).collect::<Option<Vec<_>>>().ok_or("the list of places is damaged")?;
    places.sort_unstable_by_key(|place| place.place);
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    in_threads(|| {
        let key = key()?;
        let (mut sealed, mut plain) = (Vec::new(), Vec::with_capacity(CHUNK as usize));
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = places.get(number) else { return Ok(()) };
            sealed.resize(place.stored as usize, 0);
            input.read_exact_at(&mut sealed, place.place)?;
            let opened = key.open_in_place(nonce(place.at), Aad::empty(), &mut sealed).map_err(cipher)?;
            let chunk = if place.compressed {
                plain.clear();
                decompressor.decompress_to_buffer(opened, &mut plain)?;
                &plain[..]
            } else {
                opened
            };
            std::hint::black_box(blake3::keyed_hash(&[7; 32], chunk));
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    })?;
    Ok(bytes.into_inner())
}

/// How fast the target of a restore is: the image's data is written to a new file, which is synced.
pub(super) fn write_out(image: &Path, target: &Path) -> Result<u64, Box<dyn Error>> {
    let (input, output) = (File::open(image)?, File::create(target)?);
    let size = input.metadata()?.len();
    output.set_len(size)?;
    let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    in_threads(|| {
        let mut block = vec![0; 1 << 20];
        loop {
            let at = next.fetch_add(block.len() as u64, Ordering::Relaxed);
            if at >= size {
                return Ok(());
            }
            input.read_exact_at(&mut block, at)?;
            if !is_zero(&block) {
                output.write_all_at(&block, at)?;
                bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
        }
    })?;
    output.sync_all()?;
    Ok(bytes.into_inner())
}

fn in_threads(work: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread failed"))?)
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

fn key() -> io::Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, &[9; 32]).map(LessSafeKey::new).map_err(cipher)
}

fn cipher(_: ring::error::Unspecified) -> io::Error {
    io::Error::other("the cipher refused a chunk")
}

fn nonce(at: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn parse(line: &str) -> Option<Place> {
    let mut numbers = line.split(' ').map(|word| word.parse::<u64>().ok());
    let mut number = || numbers.next().flatten();
    Some(Place { at: number()?, stored: number()?, place: number()?, compressed: number()? == 1 })
}
