//! The tokeniser: tags, text and nothing that SOAP forbids.

use std::borrow::Cow;

use super::Malformed;

/// One token. Names are as written, prefixes included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A start tag: its name, the bytes between name and end, and whether it closes itself.
    Start { name: &'a str, attributes: &'a str, empty: bool },
    /// An end tag.
    End { name: &'a str },
    /// Character data, escapes not yet resolved.
    Text(&'a str),
    /// A CDATA section.
    Cdata(&'a str),
    /// The end of the input.
    Eof,
}

/// Cuts a text into tokens.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // A byte order mark is no content.
        Self { text, at: if text.starts_with('\u{feff}') { 3 } else { 0 } }
    }

    /// How many bytes were taken.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    fn error(&self, what: &'static str) -> Malformed {
        Malformed::at(self.at, what)
    }

    /// Everything up to `end`, which is passed over too.
    fn until(&mut self, end: &str, what: &'static str) -> Result<&'a str, Malformed> {
        let rest = &self.text[self.at..];
        let len = rest.find(end).ok_or_else(|| self.error(what))?;
        self.at += len + end.len();
        Ok(&rest[..len])
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, Malformed> {
        loop {
            let rest = &self.text[self.at..];
            if rest.is_empty() {
                return Ok(Token::Eof);
            }
            if !rest.starts_with('<') {
                let len = rest.find('<').unwrap_or(rest.len());
                self.at += len;
                return Ok(Token::Text(&rest[..len]));
            }
            match rest.as_bytes().get(1) {
                Some(b'/') => {
                    self.at += 2;
                    let name = self.until(">", "an end tag has no end")?;
                    return Ok(Token::End { name: name.trim_end() });
                }
                Some(b'?') => {
                    self.until("?>", "a processing instruction has no end")?;
                }
                Some(b'!') if rest.starts_with("<!--") => {
                    self.until("-->", "a comment has no end")?;
                }
                Some(b'!') if rest.starts_with("<![CDATA[") => {
                    self.at += "<![CDATA[".len();
                    return Ok(Token::Cdata(self.until("]]>", "a CDATA section has no end")?));
                }
                // Document types could declare entities; SOAP forbids them, and so do we.
                Some(b'!') => return Err(self.error("a document type is not allowed")),
                _ => return self.start_tag(),
            }
        }
    }

    fn start_tag(&mut self) -> Result<Token<'a>, Malformed> {
        let rest = &self.text[self.at + 1..];
        let bytes = rest.as_bytes();
        let end = bytes.iter().position(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'>' | b'/'));
        let name_len = end.ok_or_else(|| self.error("a start tag has no end"))?;
        let name = &rest[..name_len];
        if name.is_empty() || name.contains(['<', '=', '"', '\'', '&']) {
            return Err(self.error("a tag has no name"));
        }
        // The common case: `<name>`.
        if bytes[name_len] == b'>' {
            self.at += name_len + 2;
            return Ok(Token::Start { name, attributes: "", empty: false });
        }
        let mut quote = None;
        for (at, byte) in bytes.iter().enumerate().skip(name_len) {
            match (quote, byte) {
                (None, b'>') => {
                    self.at += at + 2;
                    let inner = &rest[name_len..at];
                    let (attributes, empty) = inner.strip_suffix('/').map_or((inner, false), |cut| (cut, true));
                    return Ok(Token::Start { name, attributes, empty });
                }
                (None, b'"' | b'\'') => quote = Some(*byte),
                (None, b'<') => break,
                (Some(open), close) if open == *close => quote = None,
                _ => {}
            }
        }
        Err(self.error("a start tag has no end"))
    }
}

/// The attributes of a start tag, one by one.
pub(super) struct Attributes<'a> {
    rest: &'a str,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(attributes: &'a str) -> Self {
        Self { rest: attributes }
    }

    /// The next name and its raw value; `None` at the end, an error for anything else.
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, &'static str> {
        let rest = self.rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(None);
        }
        let (name, rest) = rest.split_once('=').ok_or("an attribute has no value")?;
        let rest = rest.trim_ascii_start();
        let quote =
            rest.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or("an attribute's value is not quoted")?;
        let (value, rest) = rest[1..].split_once(quote).ok_or("an attribute's value has no end")?;
        self.rest = rest;
        Ok(Some((name.trim_ascii_end(), value)))
    }
}

/// Resolves the five escapes of XML and character references; an unknown entity is an error.
///
/// Characters that XML 1.0 forbids are accepted: names and annotations of real inventories hold them.
pub(super) fn unescape(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let Some(first) = raw.find('&') else { return Ok(Cow::Borrowed(raw)) };
    let mut out = String::with_capacity(raw.len());
    out.push_str(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (entity, after) = rest[at + 1..].split_once(';').ok_or("an entity has no end")?;
        match entity {
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "amp" => out.push('&'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            _ => {
                let digits = entity.strip_prefix('#').ok_or("an unknown entity")?;
                let code = match digits.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => digits.parse(),
                };
                out.push(code.ok().and_then(char::from_u32).ok_or("a character reference of no character")?);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}
