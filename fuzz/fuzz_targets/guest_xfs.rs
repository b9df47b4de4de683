//! A damaged file system of a guest: see `guest`.
#![no_main]

mod guest;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| guest::exercise("xfs-", data));
