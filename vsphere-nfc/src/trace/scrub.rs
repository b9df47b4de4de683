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

/// A path keeps its form: brackets, slashes, dots, digits, blanks and the short word behind its last dot, if that is a
/// file's: `vmdk`.
fn names(path: &mut [u8]) {
    let dot = path.iter().rposition(|byte| *byte == b'.').unwrap_or(path.len());
    let is_ending = path.len() - dot <= MAX_ENDING && path[dot..].iter().skip(1).all(u8::is_ascii_alphanumeric);
    let kept = if is_ending { dot } else { path.len() };
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

/// Paths go, from the first word with a slash or a bracket in it to the last one, as names have blanks; so do addresses
/// and names of hosts and users, which have a colon, an `@` or a dot within, and what is quoted.
fn text(text: &mut [u8]) {
    let is_of_path = |byte: &u8| matches!(byte, b'/' | b'[' | b']' | b'\\');
    if let (Some(first), Some(last)) = (text.iter().position(is_of_path), text.iter().rposition(is_of_path)) {
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
        let start = text[..first].iter().rposition(is_blank).map_or(0, |at| at + 1);
        let end_of_word = |from: usize| text[from..].iter().position(is_blank).map_or(text.len(), |at| from + at);
        let mut end = end_of_word(last);
        if !text[last..end].contains(&b'.')
            && let Some(dot) = text[end..].iter().position(|byte| *byte == b'.')
            && text.get(end + dot + 1).is_some_and(u8::is_ascii_alphanumeric)
        {
            // The rest of a name with blanks, up to its ending.
            end = end_of_word(end + dot);
        }
        while end > start && matches!(text[end - 1], b':' | b',' | b';' | b'.') {
            end -= 1;
        }
        let (before, rest) = text.split_at_mut(start);
        let (path, behind) = rest.split_at_mut(end - start);
        words(before);
        // Between two paths there may be an address.
        for word in path.split_mut(is_blank).filter(|word| !word.iter().any(is_of_path)) {
            let dots = word.iter().filter(|byte| **byte == b'.').count();
            if dots > 1 || word.iter().any(|byte| matches!(byte, b':' | b'@')) {
                hide(word);
            }
        }
        names(path);
        words(behind);
    } else {
        words(text);
    }
}

/// Words that are no paths.
fn words(text: &mut [u8]) {
    let mut quote = None;
    for byte in text.iter_mut() {
        match quote {
            Some(mark) if *byte == mark => quote = None,
            Some(_) => hide(std::slice::from_mut(byte)),
            None if matches!(byte, b'"' | b'\'') => quote = Some(*byte),
            None => {}
        }
    }
    for word in text.split_mut(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        let is_within = |at: usize| word.get(at + 1).is_some_and(u8::is_ascii_alphanumeric);
        let has_dot = (0..word.len()).any(|at| word[at] == b'.' && is_within(at));
        let trimmed = word.strip_suffix(b":").unwrap_or(word);
        if has_dot || trimmed.iter().any(|byte| matches!(byte, b':' | b'@') || !byte.is_ascii()) {
            hide(word);
        }
    }
}

/// The longest ending of a file, with its dot.
const MAX_ENDING: usize = 5;

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
        assert_eq!(scrubbed(names, "[esx.corp] bank/secret"), "[xxx.xxxx] xxxx/xxxxxx");
        assert_eq!(scrubbed(names, "bank.confidential"), "xxxx.xxxxxxxxxxxx");
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
    fn names_with_blanks_hosts_users_and_quoted_words_go_too() {
        for said in [
            "Cannot open [gold] my bank/my bank.vmdk: busy",
            "Host esx1.corp refused root@vc.",
            "Copy of /gold/a.vmdk from 198.51.100.7 to /corp/b.vmdk",
            "VM \"BankDB\" of CORP\\joe is locked.",
        ] {
            let found = scrubbed(text, said);
            for secret in ["gold", "bank", "Bank", "esx1", "corp", "root", "CORP", "joe", "198"] {
                assert!(!found.contains(secret), "{found}");
            }
            assert_eq!(found.len(), said.len(), "lengths stay");
        }
        assert_eq!(scrubbed(text, "Failed to allocate 2097176 bytes: 5."), "Failed to allocate 2097176 bytes: 5.");
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
