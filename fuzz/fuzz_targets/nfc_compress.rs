//! Compressed fragments: hostile data gives exactly the stated length or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vsphere_nfc::wire::compress::Compression;

fuzz_target!(|data: &[u8]| {
    for number in 0..4 {
        if let Ok(out) = Compression::from_number(number).decompress(data, 65536) {
            assert_eq!(out.len(), 65536);
        }
    }
});
