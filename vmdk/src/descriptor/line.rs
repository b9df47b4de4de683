//! One line of a descriptor, kept byte for byte, and what it looks like.

/// A line as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) end: LineEnd,
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEnd {
    Lf,
    CrLf,
    /// The last line of a file without a final line end.
    None,
}

/// A `key = value` line.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    /// Without quotes.
    pub(super) value: &'a [u8],
    /// Where `value` is in the line.
    start: usize,
}

/// Splits without losing anything: the lines' texts and ends in order are `bytes` again.
pub(super) fn split(bytes: &[u8]) -> Vec<Line> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| match line {
            [text @ .., b'\r', b'\n'] => Line { text: text.to_vec(), end: LineEnd::CrLf },
            [text @ .., b'\n'] => Line { text: text.to_vec(), end: LineEnd::Lf },
            text => Line { text: text.to_vec(), end: LineEnd::None },
        })
        .collect()
}

impl LineEnd {
    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::None => b"",
        }
    }
}

impl Line {
    /// The text without blanks around it, and without the byte order mark that editors put before the first line.
    fn content(&self) -> &[u8] {
        self.text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.text).trim_ascii()
    }

    pub(super) fn is_blank(&self) -> bool {
        self.content().is_empty()
    }

    pub(super) fn is_comment(&self) -> bool {
        self.content().first() == Some(&b'#')
    }

    /// Text of a comment, trimmed.
    pub(super) fn comment(&self) -> Option<&str> {
        let text = self.content().strip_prefix(b"#")?;
        std::str::from_utf8(text.trim_ascii()).ok()
    }

    /// Whether the line starts with an access word, which makes it an extent.
    pub(super) fn is_extent(&self) -> bool {
        let text = self.content();
        let word = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        word.len() < text.len()
            && [&b"RW"[..], b"RDONLY", b"NOACCESS"].iter().any(|access| word.eq_ignore_ascii_case(access))
    }

    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        if self.is_comment() || self.is_extent() {
            return None;
        }
        let equals = self.text.iter().position(|&byte| byte == b'=')?;
        let key = &self.text[..equals];
        let key = key.strip_prefix(BYTE_ORDER_MARK).unwrap_or(key).trim_ascii();
        if key.is_empty() || key.iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'"') {
            return None;
        }
        let after = &self.text[equals + 1..];
        let blanks = after.len() - after.trim_ascii_start().len();
        let raw = after.trim_ascii();
        let (value, start) = match raw {
            [b'"', inner @ ..] => {
                let close = inner.iter().rposition(|&byte| byte == b'"').unwrap_or(inner.len());
                (&inner[..close], equals + 1 + blanks + 1)
            }
            raw => (raw, equals + 1 + blanks),
        };
        Some(Entry { key, value, start })
    }

    /// Replaces the value of an entry, keeping key, spacing and quotes. Quotes are added where the value would not
    /// be read back without them.
    pub(super) fn replace_value(&mut self, value: &[u8]) {
        let Some(entry) = self.entry() else { return };
        let (start, end) = (entry.start, entry.start + entry.value.len());
        self.text.splice(start..end, value.iter().copied());
        if self.entry().is_none_or(|entry| entry.value != value) {
            let equals = self.text.iter().position(|&byte| byte == b'=').map_or(start, |equals| equals + 1);
            self.text.splice(equals.., [b"\"", value, b"\""].concat());
        }
    }
}

impl Entry<'_> {
    pub(super) fn is(&self, key: &str) -> bool {
        self.key.eq_ignore_ascii_case(key.as_bytes())
    }

    pub(super) fn is_ddb(&self) -> bool {
        self.key.get(..4).is_some_and(|section| section.eq_ignore_ascii_case(b"ddb."))
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_outer_quotes_only() {
        for (text, value) in
            [("a=\"b\"", "b"), ("a = b ", "b"), ("a=\"b", "b"), ("a=", ""), ("a=\"\"", ""), ("a=\"b\"c\"", "b\"c")]
        {
            let line = &split(text.as_bytes())[0];
            assert_eq!(line.entry().unwrap().value, value.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_replaced_value_is_read_back_and_only_it_changes() {
        for (text, value, expected) in [
            ("  a =  \"b\" # c", "new", "  a =  \"new\" # c"),
            ("a=b", "new", "a=new"),
            ("a=b", " new ", "a=\" new \""),
            ("a=\"b", "new ", "a=\"new \""),
            ("\u{feff}a=b", "c", "\u{feff}a=c"),
        ] {
            let mut line = split(text.as_bytes()).remove(0);
            line.replace_value(value.as_bytes());
            assert_eq!(String::from_utf8(line.text.clone()).unwrap(), expected);
            assert_eq!(line.entry().unwrap().value, value.as_bytes());
        }
    }

    #[test]
    fn a_byte_order_mark_hides_nothing() {
        assert!(split("\u{feff}# Disk".as_bytes())[0].is_comment());
        assert!(split("\u{feff}version=1".as_bytes())[0].entry().unwrap().is("version"));
        assert!(split("\u{feff}RW 1 ZERO".as_bytes())[0].is_extent());
    }

    #[test]
    fn an_extent_with_an_equals_sign_is_no_entry() {
        let line = &split(b"RW 1 FLAT \"a=b\" 0")[0];
        assert!(line.is_extent() && line.entry().is_none());
    }
}
