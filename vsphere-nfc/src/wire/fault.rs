//! What an error message carries, in both layers.
//!
//! The payload of an AIO error is not known from captures, only the code 0x0B. [`Fault::decode`]
//! takes what is there; [`Layout`] lists the forms that a client has to survive. Because the text
//! may or may not be counted, a client drops the connection after any error.

use std::fmt;

use super::u32_at;

/// The server is out of NFC memory (documented for the classic layer).
pub const CODE_OUT_OF_MEMORY: u32 = 5;
/// Write access was asked for with a read-only ticket (captured).
pub const CODE_READ_ONLY: u32 = 0x0B;
/// The most text that is kept, in bytes.
pub const MAX_TEXT: usize = 4096;
/// How long text is waited for that a message speaks of but that may never come.
pub(crate) const TEXT_LIMIT: std::time::Duration = std::time::Duration::from_millis(500);

/// An error as the server told it: numbers and text kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// The error type, when the message has one; its values are not known.
    pub kind: Option<u32>,
    /// The error code, when the message has one.
    pub code: Option<u32>,
    /// The text; what is not UTF-8 is replaced.
    pub text: String,
}

impl Fault {
    /// A fault with code and text.
    pub fn new(kind: u32, code: u32, text: impl Into<String>) -> Self {
        Self { kind: Some(kind), code: Some(code), text: text.into() }
    }

    /// Reads the payload of an AIO error, of any layout; never fails.
    ///
    /// A payload of 4 bytes is taken for the code.
    pub fn decode(payload: &[u8]) -> Self {
        match payload.len() {
            0..=3 => Self::default(),
            4..=7 => Self { code: Some(u32_at(payload, 0)), ..Self::default() },
            8..=11 => Self { kind: Some(u32_at(payload, 0)), code: Some(u32_at(payload, 4)), text: String::new() },
            _ => Self { kind: Some(u32_at(payload, 0)), code: Some(u32_at(payload, 4)), text: text(&payload[12..]) },
        }
    }

    /// Bytes of text that the payload speaks of but does not hold; a server may send them uncounted.
    pub fn uncounted_text(payload: &[u8]) -> usize {
        if payload.len() != 12 {
            return 0;
        }
        usize::try_from(u32_at(payload, 8)).unwrap_or(MAX_TEXT).min(MAX_TEXT)
    }

    /// The same fault with `bytes` as its text.
    #[must_use]
    pub fn with_text(mut self, bytes: &[u8]) -> Self {
        self.text = text(bytes);
        self
    }

    /// Writes payload and extra of an AIO error.
    pub fn encode(&self, layout: Layout) -> (Vec<u8>, Vec<u8>) {
        let kind = self.kind.unwrap_or_default().to_le_bytes();
        let code = self.code.unwrap_or_default().to_le_bytes();
        let text = &self.text.as_bytes()[..self.text.len().min(MAX_TEXT)];
        let text_len = u32::try_from(text.len()).unwrap_or_default();
        let head = |len: u32| [kind, code, len.to_le_bytes()].concat();
        match layout {
            Layout::TextCounted => ([head(text_len), text.to_vec()].concat(), Vec::new()),
            Layout::NoText => (head(0), Vec::new()),
            Layout::TextUncounted => (head(text_len), text.to_vec()),
            Layout::CodeOnly => (code.to_vec(), Vec::new()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "NFC error {code}")?,
            None => f.write_str("NFC error without a code")?,
        }
        if let Some(kind) = self.kind {
            write!(f, " (type {kind})")?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

/// How the payload of an AIO error is laid out. Which one real hosts use is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Layout {
    /// Type, code, text length and the text, all counted in the size.
    #[default]
    TextCounted,
    /// Type, code, and a text length of 0.
    NoText,
    /// Type, code, text length; the text follows and is not counted.
    TextUncounted,
    /// Only the code.
    CodeOnly,
}

/// The text of an error: bounded, without NUL and control characters.
pub(crate) fn text(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_TEXT)];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_keeps_the_code() {
        let fault = Fault::new(1, CODE_READ_ONLY, "read-only");
        for layout in [Layout::TextCounted, Layout::NoText, Layout::TextUncounted, Layout::CodeOnly] {
            let (payload, extra) = fault.encode(layout);
            let decoded = Fault::decode(&payload);
            assert_eq!(decoded.code, Some(CODE_READ_ONLY), "{layout:?}");
            assert_eq!(Fault::uncounted_text(&payload), extra.len());
            if !extra.is_empty() {
                assert_eq!(decoded.with_text(&extra), fault);
            }
        }
    }

    #[test]
    fn text_is_bounded_and_cannot_break_a_log_line() {
        assert_eq!(text(b"out of memory\0rest"), "out of memory");
        assert_eq!(text(b"a\r\nb\x1b[31m"), "a  b [31m");
        assert_eq!(text(&[b'x'; 1 << 20]).len(), MAX_TEXT);
    }

    #[test]
    fn short_payloads_are_taken_as_they_are() {
        for len in 0..20 {
            let _ = Fault::decode(&vec![0xFF; len]);
        }
        assert_eq!(Fault::decode(&[]), Fault::default());
    }
}
