//! An ESXi redo log under its descriptor, over a small parent: opens or fails, and reads and maps stay inside.
#![no_main]

mod files;

use files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The descriptor agrees with the header, or nothing beyond it would be tried.
    let sectors = data.get(12..16).map_or(0, |field| u32::from_le_bytes(field.try_into().expect("four bytes")));
    let mut files = Files::default();
    files.add(
        "child.vmdk",
        format!("version=1\nCID=2\nparentCID=1\nparentFileNameHint=\"base.vmdk\"\nRW {sectors} VMFSSPARSE \"fuzz\"\n"),
    );
    files.add("base.vmdk", "version=1\nCID=1\nRW 64 FLAT \"flat\" 0\n");
    files.add("flat", vec![7; 64 * 512]);
    files.add("fuzz", data);
    files.exercise("child.vmdk");
});
