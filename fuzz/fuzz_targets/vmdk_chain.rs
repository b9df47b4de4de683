//! Whole disks of several files: descriptors, extents and parents that name each other. See `Files::unpack`.
#![no_main]

mod files;

use files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| Files::unpack(data).exercise("0.vmdk"));
