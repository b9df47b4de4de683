//! Texts of a peer: any bytes give a value or an error, and what was read can be written and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vsphere_vim_types::methods::{QueryChangedDiskAreas, ReconfigVM_Task, RetrievePropertiesEx, RetrieveServiceContent};
use vsphere_vim_types::soap::{self, Limits, RequestOptions};
use vsphere_vim_types::{Method, Value as _};

const LIMITS: Limits = Limits { depth: 64, memory: 64 << 20 };

fuzz_target!(|data: &[u8]| {
    response::<RetrievePropertiesEx>(data);
    response::<RetrieveServiceContent>(data);
    response::<QueryChangedDiskAreas>(data);
    dynamic(data);
    if let Ok(request) = soap::Request::parse(data, LIMITS) {
        arguments::<RetrievePropertiesEx>(&request);
        arguments::<ReconfigVM_Task>(&request);
    }
});

/// The first text may be odd in ways that are not kept (comments, prefixes, control characters); the second may not.
fn response<M: Method>(data: &[u8]) {
    let value = match soap::decode_response::<M>(data, LIMITS) {
        Ok(value) => value,
        Err(error) => return drop(error.to_string()),
    };
    let once = soap::encode_response::<M>(&value);
    let again = soap::decode_response::<M>(once.as_bytes(), LIMITS).expect("what was written is read");
    assert_eq!(soap::encode_response::<M>(&again), once);
    let _ = (format!("{value:?}", value = value.shape()), value.to_any().path("objects[1].propSet"));
}

fn dynamic(data: &[u8]) {
    let Ok(elements) = soap::decode_dynamic(data, LIMITS) else { return };
    let once = soap::encode_dynamic_response("urn:vim25", "X", &elements);
    let again = soap::decode_dynamic(once.as_bytes(), LIMITS).expect("what was written is read");
    assert_eq!(soap::encode_dynamic_response("urn:vim25", "X", &again), once);
}

fn arguments<M: Method>(request: &soap::Request<'_>) {
    let Ok(args) = request.args::<M>() else { return };
    let once = soap::encode_request(&request.this, &args, RequestOptions::default());
    let parsed = soap::Request::parse(once.as_bytes(), LIMITS).expect("what was written is read");
    let again: M = parsed.args().expect("what was written is read");
    assert_eq!(soap::encode_request(&parsed.this, &again, RequestOptions::default()), once);
    let _ = args.unknown().elements().len();
}
