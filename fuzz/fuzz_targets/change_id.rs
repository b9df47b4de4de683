//! Change ids: any text parses or fails; what parses reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vsphere_cbt::ChangeId;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<ChangeId>() {
        assert_eq!(id.to_string().parse::<ChangeId>().ok(), Some(id));
    }
});
