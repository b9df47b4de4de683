//! Answers of a server: any bytes give a value or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vsphere_vim_types::soap::{self, Limits};
use vsphere_vim_types::methods;

fuzz_target!(|data: &[u8]| {
    let limits = Limits { memory: 64 << 20, ..Limits::default() };
    if let Ok(Some(result)) = soap::decode_response::<methods::RetrievePropertiesEx>(data, limits) {
        // What was read can be written, and reads the same again.
        let text = soap::encode_response::<methods::RetrievePropertiesEx>(&Some(result));
        let _ = soap::decode_response::<methods::RetrievePropertiesEx>(text.as_bytes(), limits);
    }
    let _ = soap::Request::parse(data, limits);
});
