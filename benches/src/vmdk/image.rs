//! The disk that is converted: half of it holes; of the data a third incompressible, the rest as guests have it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Makes a raw disk of `size` bytes; how many of them are data. The same every time.
pub(super) fn make(path: &Path, size: u64) -> io::Result<u64> {
    let file = File::create_new(path)?;
    file.set_len(size)?;
    let mut content = Content::new();
    let mut run = vec![0; (PERIOD / 2) as usize];
    let mut data = 0;
    for (index, period) in (0..size).step_by(PERIOD as usize).enumerate() {
        // Runs begin where file systems put them: on no border of a grain.
        let at = period + content.random.below(PERIOD / 2 / PAGE) * PAGE;
        if index % 3 == 0 {
            content.random.fill(&mut run)
        } else {
            content.fill(&mut run)
        }
        let run = &run[..run.len().min(size.saturating_sub(at) as usize)];
        file.write_all_at(run, at)?;
        data += run.len() as u64;
    }
    Ok(data)
}

/// Files of text, of tables and of encoded bytes, one after the other: deflate halves them.
struct Content {
    random: Random,
    words: Vec<String>,
}

impl Content {
    fn new() -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut word = |_| (0..2 + random.below(9)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let words = (0..4096).map(&mut word).collect();
        Self { random, words }
    }

    fn fill(&mut self, mut run: &mut [u8]) {
        while !run.is_empty() {
            let len = ((1 + self.random.below(MAX_FILE / PAGE)) * PAGE) as usize;
            let (file, rest) = run.split_at_mut(len.min(run.len()));
            match self.random.below(8) {
                0..4 => self.text(file),
                4..6 => self.table(file),
                _ => self.encoded(file),
            }
            run = rest;
        }
    }

    /// A few words often, most of them seldom.
    fn text(&mut self, file: &mut [u8]) {
        let mut at = 0;
        while at < file.len() {
            let limit = 1 << (3 + self.random.below(10));
            let word = self.words[self.random.below(limit) as usize].as_bytes();
            let len = word.len().min(file.len() - at);
            file[at..at + len].copy_from_slice(&word[..len]);
            at += len;
            if let Some(blank) = file.get_mut(at) {
                *blank = b' ';
            }
            at += 1;
        }
    }

    /// Rows with a number that counts, one of few values, and one that is anything.
    fn table(&mut self, file: &mut [u8]) {
        let first = self.random.below(1 << 30);
        for (number, row) in file.chunks_exact_mut(32).enumerate() {
            row[..8].copy_from_slice(&(first + number as u64).to_le_bytes());
            row[8..16].copy_from_slice(&self.random.below(16).to_le_bytes());
            row[16..24].copy_from_slice(&self.random.below(1 << 40).to_le_bytes());
            row[24..].copy_from_slice(&self.random.below(1 << 20).to_le_bytes());
        }
    }

    /// Six bits a byte, as base64 has.
    fn encoded(&mut self, file: &mut [u8]) {
        self.random.fill(file);
        file.iter_mut().for_each(|byte| *byte = b'0' + (*byte & 63));
    }
}

/// xorshift64: fast, and the same on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn fill(&mut self, buf: &mut [u8]) {
        for word in buf.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// A run of data and a run of holes.
const PERIOD: u64 = 2 << 20;
const PAGE: u64 = 4096;
const MAX_FILE: u64 = 256 << 10;
