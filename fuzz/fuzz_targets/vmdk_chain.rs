//! Whole disks of several files: descriptors, extents and parents that name each other.
//!
//! The input is a list of files, each two bytes of length (little endian) and its bytes, named `0.vmdk`, `1.vmdk`, …; the
//! last one may be cut. The first is opened.
#![no_main]

mod files;

use files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut files = Files::default();
    let mut rest = data;
    let mut number = 0;
    while let [low, high, bytes @ ..] = rest {
        let (file, after) = bytes.split_at(bytes.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        files.add(format!("{number}.vmdk"), file);
        number += 1;
        rest = after;
    }
    files.exercise("0.vmdk");
});
