//! The checker, on whole disks of several files (see `Files::unpack`; seeds are those of `vmdk_chain`): findings and no
//! panic, in bounded time and memory.
#![no_main]

mod files;

use files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for deep in [false, true] {
        Files::unpack(data).check("0.vmdk", deep);
    }
});
