//! Streams: whatever arrives in whatever pieces, grains lie on the disk, in order, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmdk::stream::StreamDecoder;

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let mut decoder = StreamDecoder::new("fuzz");
    let mut end = 0;
    for piece in stream.chunks(usize::from(*first) + 1) {
        decoder.feed(piece);
        loop {
            match decoder.next_grain() {
                Ok(Some(grain)) => {
                    assert!(grain.offset >= end);
                    end = grain.offset + grain.data.len() as u64;
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    if let Some(capacity) = decoder.capacity() {
        assert!(end <= capacity);
    }
    let _ = decoder.finish();
});
