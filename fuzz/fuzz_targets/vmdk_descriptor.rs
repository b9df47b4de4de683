//! Text descriptors: any bytes parse or fail; what parses is written again byte for byte, also after edits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmdk::{Cid, Descriptor};

fuzz_target!(|data: &[u8]| {
    let Ok(mut descriptor) = Descriptor::parse(data) else { return };
    assert_eq!(descriptor.to_bytes(), data);
    let _ = Descriptor::probe(data);
    let _ = (descriptor.version(), descriptor.cid(), descriptor.parent_cid(), descriptor.long_content_id());
    let _ = (descriptor.create_type(), descriptor.capacity(), descriptor.ddb().count(), descriptor.to_string());
    let _ = (descriptor.parent_file_name_hint().is_ok(), descriptor.encoding());
    if let Ok(extents) = descriptor.extents() {
        // A name may hold what cannot be quoted; everything else is read back.
        if descriptor.set_extents(&extents).is_ok() {
            assert_eq!(descriptor.extents().expect("written extents are read"), extents);
        }
    }
    if descriptor.ddb_set("comment", "a new one").is_ok() {
        assert_eq!(descriptor.ddb_get("comment").as_deref(), Some("a new one"));
    }
    descriptor.set_cid(Cid(7)).expect("a content id can always be set");
    assert_eq!(descriptor.cid().expect("it was set"), Cid(7));
    descriptor.strip_change_tracking();
    descriptor.strip_io_filters();
    assert!(
        descriptor.change_track_path().is_ok_and(|path| path.is_none()) && descriptor.ddb_get("sidecars").is_none()
    );
    let bytes = descriptor.to_bytes();
    assert_eq!(Descriptor::parse(&bytes).expect("edits do not double the size").to_bytes(), bytes);
});
