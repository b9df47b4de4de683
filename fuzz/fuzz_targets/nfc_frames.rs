//! The classic layer's messages and frames, and disk streams in them: any bytes, cut anywhere, give values or an error.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use vsphere_nfc::wire::disk_stream::{Part, Reader};
use vsphere_nfc::wire::frames::{Decoder, Incoming, MAX_LEN};

const CAPACITY: u64 = 1 << 40;

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else { return };
    let (mut decoder, mut received) = (Decoder::default(), BytesMut::new());
    let mut disk = Reader::new(CAPACITY).expect("the capacity is in sectors");
    for part in stream.chunks(usize::from(*step) + 1) {
        received.extend_from_slice(part);
        loop {
            match decoder.next(&mut received) {
                Ok(Some(Incoming::Frame(frame))) => {
                    assert!(!frame.is_empty() && frame.len() <= MAX_LEN);
                    let before = disk.position();
                    let Ok(parts) = disk.frame(frame) else { return };
                    assert_in_order(&parts, before, disk.position());
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

/// The parts lie side by side from `start` to `end`.
fn assert_in_order(parts: &[Part], start: u64, end: u64) {
    let mut at = start;
    for part in parts {
        match part {
            Part::Metadata(_) => {}
            Part::Data { offset, bytes } => {
                assert_eq!(*offset, at);
                at += bytes.len() as u64;
            }
            Part::Zeros(range) => {
                assert_eq!(range.start, at);
                at = range.end;
            }
        }
    }
    assert_eq!(at, end);
    assert!(end <= CAPACITY);
}
