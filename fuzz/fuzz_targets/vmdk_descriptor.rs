//! Text descriptors: any bytes parse or fail; what parses is written again byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(descriptor) = vmdk::Descriptor::parse(data) {
        assert_eq!(descriptor.to_bytes(), data);
        let _ = (descriptor.version(), descriptor.cid(), descriptor.extents(), descriptor.ddb());
    }
});
