//! The encoding of a descriptor: how the bytes of names and values become text.
//!
//! All encodings that hosts write keep ASCII as it is, so that lines, keys and quotes are found in the bytes, and only
//! what is beyond ASCII needs to know the encoding at all.

use std::borrow::Cow;

/// An encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    /// One of the Encoding Standard.
    #[cfg(feature = "encodings")]
    Legacy(&'static encoding_rs::Encoding),
    /// Not known to this build: ASCII is understood, everything else is only kept.
    Unknown,
}

impl Charset {
    /// The encoding with this name, in any case.
    pub(super) fn of_name(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        if [&b"utf-8"[..], b"utf8"].iter().any(|utf8| name.eq_ignore_ascii_case(utf8)) {
            return Self::Utf8;
        }
        #[cfg(feature = "encodings")]
        {
            // Names of Windows code pages that the Encoding Standard has under another name only.
            let known = [("windows-932", "shift_jis"), ("windows-936", "gbk"), ("windows-950", "big5")];
            let alias = known.into_iter().find(|(page, _)| name.eq_ignore_ascii_case(page.as_bytes()));
            let label = alias.map_or(name, |(_, label)| label.as_bytes());
            // UTF-16 and ISO-2022-JP hide quotes and line ends in other characters: not in a file like this.
            let found = encoding_rs::Encoding::for_label(label).filter(|found| found.is_ascii_compatible());
            if let Some(found) = found {
                return if found == encoding_rs::UTF_8 { Self::Utf8 } else { Self::Legacy(found) };
            }
        }
        Self::Unknown
    }

    /// Text of `bytes`; `None` when they are none in this encoding.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            #[cfg(feature = "encodings")]
            Self::Legacy(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
            Self::Unknown => std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).map(Cow::Borrowed),
        }
    }

    /// As `decode`, but for showing: what cannot be read becomes replacement characters.
    pub(super) fn decode_lossy(self, bytes: &[u8]) -> Cow<'_, str> {
        match self {
            #[cfg(feature = "encodings")]
            Self::Legacy(encoding) => encoding.decode_without_bom_handling(bytes).0,
            Self::Utf8 | Self::Unknown => String::from_utf8_lossy(bytes),
        }
    }

    /// Bytes of `text`; `None` when the encoding cannot say it.
    pub(super) fn encode(self, text: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Utf8 => Some(Cow::Borrowed(text.as_bytes())),
            #[cfg(feature = "encodings")]
            Self::Legacy(encoding) => {
                let (bytes, _, unmappable) = encoding.encode(text);
                // Some characters have two codes in the old encodings: what is written must be read back.
                (!unmappable && self.decode(&bytes).as_deref() == Some(text)).then_some(bytes)
            }
            Self::Unknown => text.is_ascii().then_some(Cow::Borrowed(text.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_8_and_ascii_need_no_tables() {
        for name in ["UTF-8", "utf8", " Utf-8 "] {
            assert_eq!(Charset::of_name(name.as_bytes()), Charset::Utf8);
        }
        assert_eq!(Charset::Utf8.decode(b"\xff"), None);
        let unknown = Charset::of_name(b"EBCDIC");
        assert_eq!(unknown.decode(b"a-flat.vmdk").as_deref(), Some("a-flat.vmdk"));
        assert_eq!((unknown.decode("ä".as_bytes()), unknown.encode("ä")), (None, None));
    }

    #[cfg(feature = "encodings")]
    #[test]
    fn encodings_of_hosts_are_read_and_written() {
        for (name, text, bytes) in [
            ("windows-1252", "Gerät", &b"Ger\xe4t"[..]),
            ("windows-1251", "Диск", b"\xc4\xe8\xf1\xea"),
            ("GBK", "磁盘", b"\xb4\xc5\xc5\xcc"),
            ("windows-936", "磁盘", b"\xb4\xc5\xc5\xcc"),
            ("Big5", "磁碟", b"\xba\xcf\xba\xd0"),
            ("Shift_JIS", "表示", b"\x95\x5c\x8e\xa6"),
            ("EUC-KR", "디스크", b"\xb5\xf0\xbd\xba\xc5\xa9"),
        ] {
            let charset = Charset::of_name(name.as_bytes());
            assert_eq!(charset.decode(bytes).as_deref(), Some(text), "{name}");
            assert_eq!(charset.encode(text).as_deref(), Some(bytes), "{name}");
        }
        assert_eq!(Charset::of_name(b"GBK").decode(b"\xff"), None);
        assert_eq!(Charset::of_name(b"windows-1252").encode("磁"), None);
        for name in ["UTF-16", "UTF-16LE", "ISO-2022-JP", "replacement"] {
            assert_eq!(Charset::of_name(name.as_bytes()), Charset::Unknown);
        }
    }
}
