//! Takes out of a message what is the user's own. Lengths stay, so that a trace can be played again.

use super::Side;
use crate::wire::aio::{HEADER_LEN, Kind};
use crate::wire::classic::{MESSAGE_LEN, Message};
use crate::wire::compress::Compression;
use crate::wire::io::{IO_LEN, Io};
use crate::wire::query::DDB_LEN;
use crate::wire::{file::OPEN_FILE_LEN, u32_at};

/// Scrubs a message of the asynchronous layer and gives the zeros that stand for its `data`.
pub(super) fn aio(from: Side, bytes: &mut [u8], data: u64) -> u64 {
    let (head, payload) = bytes.split_at_mut(HEADER_LEN.min(bytes.len()));
    if head.len() < HEADER_LEN {
        return 0;
    }
    match (Kind::from_number(u32_at(head, 4)), from) {
        (Kind::Io, _) if data > 0 => {
            // Zeros do not decompress: what was compressed is said to have come as it is.
            let Some(io) = payload.first_chunk_mut::<IO_LEN>() else { return 0 };
            let Ok(mut fragment) = Io::decode(io) else { return 0 };
            fragment.compression = Compression::None;
            fragment.wire_len = fragment.fragment_len;
            *io = fragment.encode();
            return fragment.fragment_len.into();
        }
        (Kind::OpenFile, Side::Client) => names(behind(payload, OPEN_FILE_LEN)),
        (Kind::DdbGet, Side::Server) => value(behind(payload, DDB_LEN)),
        (Kind::Error, _) => text(behind(payload, 12)),
        _ => {}
    }
    0
}

/// Scrubs a classic message; its extras are part of it.
pub(super) fn classic(bytes: &mut [u8]) -> u64 {
    let error = bytes.first_chunk().is_some_and(|head| matches!(Message::decode(head), Message::Error { .. }));
    if error {
        text(behind(bytes, MESSAGE_LEN));
    }
    0
}

fn behind(bytes: &mut [u8], len: usize) -> &mut [u8] {
    let len = len.min(bytes.len());
    &mut bytes[len..]
}

/// A path keeps its form: brackets, slashes, dots, digits, blanks and what stands behind its last dot.
fn names(path: &mut [u8]) {
    let kept = path.iter().rposition(|byte| *byte == b'.').unwrap_or(path.len());
    for byte in &mut path[..kept] {
        if !matches!(byte, b'[' | b']' | b'/' | b'.' | b'-' | b' ' | b'0'..=b'9') {
            *byte = b'x';
        }
    }
}

/// A number or the name of an adapter stays.
fn value(value: &mut [u8]) {
    let known = value.iter().all(u8::is_ascii_digit)
        || [&b"lsilogic"[..], b"buslogic", b"ide", b"legacyESX", b"true", b"false"].contains(&&*value);
    if !known {
        hide(value);
    }
}

/// Words with a slash or a bracket in them are paths; with a colon or two dots, addresses. Both go.
fn text(text: &mut [u8]) {
    for word in text.split_mut(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        let dots = word.iter().filter(|byte| **byte == b'.').count();
        if word.iter().any(|byte| matches!(byte, b'/' | b'[' | b']')) {
            names(word);
        } else if dots > 1 || word.iter().any(|byte| *byte == b':' || !byte.is_ascii()) {
            hide(word);
        }
    }
}

fn hide(word: &mut [u8]) {
    for byte in word.iter_mut().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()) {
        *byte = b'x';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::aio::message;
    use crate::wire::io::Direction;

    fn scrubbed(scrub: fn(&mut [u8]), words: &str) -> String {
        let mut bytes = words.as_bytes().to_vec();
        scrub(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_path_keeps_its_form_and_no_name() {
        assert_eq!(scrubbed(names, "[gold-1] bank db/bank db-000002.vmdk"), "[xxxx-1] xxxx xx/xxxx xx-000002.vmdk");
        assert_eq!(scrubbed(names, "kein"), "xxxx");
    }

    #[test]
    fn values_that_identify_go() {
        assert_eq!(scrubbed(value, "2088"), "2088");
        assert_eq!(scrubbed(value, "lsilogic"), "lsilogic");
        assert_eq!(scrubbed(value, "60 00 C2 9b"), "xx xx xx xx");
    }

    #[test]
    fn words_of_an_error_stay_and_names_in_it_go() {
        assert_eq!(
            scrubbed(text, "Failed to open /vmfs/volumes/gold/a.vmdk on 10.1.2.3: locked"),
            "Failed to open /xxxx/xxxxxxx/xxxx/x.vmdk on xx.x.x.x: locked"
        );
    }

    #[test]
    fn data_becomes_zeros_of_the_length_that_it_had_uncompressed() {
        let io = Io {
            compression: Compression::Zlib,
            direction: Direction::Write,
            wire_len: 100,
            ..Io::read_request(1, Compression::None, 0, 512)
        };
        let mut bytes = message(Kind::Io, 1, &io.encode(), b"").to_vec();
        assert_eq!(aio(Side::Client, &mut bytes, 100), 512);
        let scrubbed = Io::decode(bytes[HEADER_LEN..].first_chunk().unwrap()).unwrap();
        assert_eq!((scrubbed.compression, scrubbed.wire_len), (Compression::None, 512));
    }
}
