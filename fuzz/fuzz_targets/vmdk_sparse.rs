//! A hosted sparse file, streamOptimized included: opens or fails, and reads and maps stay inside.
#![no_main]

mod files;

use files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut files = Files::default();
    files.add("fuzz.vmdk", data);
    files.exercise("fuzz.vmdk");
});
