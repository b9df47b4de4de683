//! A start tag: its name and its attributes.

use super::scan::{self, Class};

/// A start tag, read.
pub(super) struct Tag<'a> {
    /// As written, which is what the end tag must repeat.
    pub(super) name: &'a str,
    /// The name without its prefix.
    pub(super) local: &'a str,
    /// Where the text goes on.
    pub(super) end: usize,
    /// `<a/>`: there is no end tag.
    pub(super) empty: bool,
}

/// An attribute; its value is as written, references not yet resolved.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) prefix: &'a str,
    pub(super) local: &'a str,
    pub(super) value: &'a str,
}

impl<'a> Tag<'a> {
    /// Reads the start tag at `at`, where a `<` stands. Its attributes go into `attributes`, which is empty.
    #[inline]
    pub(super) fn read(text: &'a str, at: usize, attributes: &mut Vec<Attribute<'a>>) -> Result<Self, &'static str> {
        let begin = at + 1;
        let (len, local) = name(&text.as_bytes()[begin..]).ok_or("a tag has no name")?;
        let end = begin + len;
        let mut tag = Self { name: &text[begin..end], local: &text[begin + local..end], end: end + 1, empty: false };
        match text.as_bytes().get(end) {
            // The common case: `<name>`.
            Some(b'>') => {}
            Some(b'/' | b' ' | b'\t' | b'\r' | b'\n') => tag.read_attributes(text, end, attributes)?,
            Some(_) => return Err("a tag has no name"),
            None => return Err(NO_END),
        }
        Ok(tag)
    }

    fn read_attributes(
        &mut self,
        text: &'a str,
        mut at: usize,
        attributes: &mut Vec<Attribute<'a>>,
    ) -> Result<(), &'static str> {
        let bytes = text.as_bytes();
        loop {
            at = past_space(bytes, at);
            match bytes.get(at..) {
                Some([b'>', ..]) => {
                    self.end = at + 1;
                    return Ok(());
                }
                Some([b'/', b'>', ..]) => {
                    (self.end, self.empty) = (at + 2, true);
                    return Ok(());
                }
                None | Some([] | [b'/']) => return Err(NO_END),
                Some(rest) => {
                    let (len, local) = name(rest).ok_or("an attribute has no name")?;
                    if attributes.len() >= MAX_ATTRIBUTES {
                        return Err("an element has more than 1024 attributes");
                    }
                    let (begin, end) = quoted(bytes, at + len)?;
                    attributes.push(Attribute {
                        prefix: &text[at..at + local.saturating_sub(1)],
                        local: &text[at + local..at + len],
                        value: &text[begin..end],
                    });
                    at = end + 1;
                }
            }
        }
    }
}

/// The length of the name that `bytes` begin with, and where its local part begins.
#[inline]
fn name(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut len, mut local) = (0, 0);
    for byte in bytes {
        match scan::class(*byte) {
            Class::Name => {}
            Class::Colon => local = len + 1,
            Class::Other => break,
        }
        len += 1;
    }
    scan::begins_name(*bytes.get(local)?).then_some((len, local))
}

/// Where the value begins and ends that an attribute has after its name, which ends at `at`.
fn quoted(bytes: &[u8], at: usize) -> Result<(usize, usize), &'static str> {
    let at = past_space(bytes, at);
    if bytes.get(at) != Some(&b'=') {
        return Err("an attribute has no value");
    }
    let at = past_space(bytes, at + 1);
    let quote =
        bytes.get(at).copied().filter(|b| matches!(b, b'"' | b'\'')).ok_or("an attribute's value is not quoted")?;
    let begin = at + 1;
    let len = scan::find(&bytes[begin..], quote).ok_or("an attribute's value has no end")?;
    Ok((begin, begin + len))
}

fn past_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

const NO_END: &str = "a start tag has no end";

/// Real answers have ten, all of them in the envelope.
const MAX_ATTRIBUTES: usize = 1024;
