//! Compression of fragments: what was compressed comes back, and is shorter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vsphere_nfc::wire::compress::Compression;

fuzz_target!(|input: &[u8]| {
    // Repeated, so that FastLZ's second level and its long distances are reached.
    let Some((times, data)) = input.split_first() else { return };
    let data = data.repeat(usize::from(*times) * 4 + 1);
    if data.len() > 1 << 20 {
        return;
    }
    for number in 1..4 {
        let compression = Compression::from_number(number);
        if let Some(packed) = compression.compress(&data) {
            assert!(packed.len() < data.len());
            assert!(compression.decompress(&packed, data.len()).expect("our own block") == data);
        }
    }
});
