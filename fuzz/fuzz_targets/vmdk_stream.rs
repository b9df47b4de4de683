//! Streams: whatever arrives in whatever pieces, grains lie on the disk, in order, and nothing panics; the blocking
//! reader sees what the decoder sees.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmdk::stream::{StreamDecoder, StreamReader};

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let mut decoder = StreamDecoder::new("fuzz");
    let (mut end, mut grains) = (0, 0);
    let mut failed = false;
    'pieces: for piece in stream.chunks(usize::from(*first) + 1) {
        decoder.feed(piece);
        loop {
            match decoder.next_grain() {
                Ok(Some(grain)) => {
                    assert!(grain.offset >= end);
                    end = grain.offset + grain.data.len() as u64;
                    grains += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break 'pieces;
                }
            }
        }
    }
    if let Some(capacity) = decoder.capacity() {
        assert!(end <= capacity);
    }
    failed |= decoder.finish().is_err();

    let Ok(mut reader) = StreamReader::open(stream, "fuzz") else { return assert!(failed) };
    let mut read = 0;
    loop {
        match reader.next_grain() {
            Ok(Some(_)) => read += 1,
            Ok(None) => break assert!(!failed && read == grains),
            Err(_) => break assert!(failed),
        }
    }
});
