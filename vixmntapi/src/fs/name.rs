//! Names of files: bytes, whatever they mean.

use std::{borrow::Borrow, fmt};

/// A name, an attribute's name or a link's target, as bytes. Names of Windows are in WTF-8: UTF-8 that keeps surrogates
/// without their other half.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Vec<u8>);

impl FileName {
    /// Takes bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// From the UTF-16 of Windows; no name is lost or changed.
    pub fn from_utf16(units: impl IntoIterator<Item = u16>) -> Self {
        let mut bytes = Vec::new();
        for unit in char::decode_utf16(units) {
            match unit {
                Ok(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(lone) => {
                    let unit = lone.unpaired_surrogate();
                    let parts =
                        [0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8];
                    bytes.extend_from_slice(&parts);
                }
            }
        }
        Self(bytes)
    }

    /// The UTF-16 of Windows, halves of surrogates as well; `None` when it is not in WTF-8, so that no file of Windows
    /// has this name.
    pub fn to_utf16(&self) -> Option<Vec<u16>> {
        let mut units = Vec::with_capacity(self.0.len());
        let mut rest = &*self.0;
        while !rest.is_empty() {
            let valid = rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            units.extend(valid.encode_utf16());
            rest = match rest.get(valid.len()..)? {
                [] => break,
                [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, rest @ ..] => {
                    units.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
                    rest
                }
                _ => return None,
            };
        }
        Some(units)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people: what is no UTF-8 is replaced.
    pub fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The path of a name in the directory with this path; of the root, whose path is empty, just the name.
    #[must_use]
    pub fn join(&self, name: &Self) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        if !self.0.is_empty() {
            path.extend_from_slice(&self.0);
            path.push(b'/');
        }
        path.extend_from_slice(&name.0);
        Self(path)
    }

    /// Whether it can be the name of a file in a directory of this computer: not empty, not `.` or `..`, and without `/`
    /// and NUL. What a guest's directory says may be none of that.
    pub fn is_plain(&self) -> bool {
        !matches!(&*self.0, b"" | b"." | b"..") && !self.0.iter().any(|byte| matches!(byte, b'/' | 0))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl From<&str> for FileName {
    fn from(name: &str) -> Self {
        Self(name.as_bytes().to_vec())
    }
}

impl From<&[u8]> for FileName {
    fn from(name: &[u8]) -> Self {
        Self(name.to_vec())
    }
}

impl AsRef<[u8]> for FileName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for FileName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<str> for FileName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_windows_keep_halves_of_surrogates() {
        let name = FileName::from_utf16([0x61, 0xd83d, 0xde00, 0xd800, 0x62]);
        assert_eq!(name.as_bytes(), b"a\xf0\x9f\x98\x80\xed\xa0\x80b");
        assert_eq!(name.to_utf16().unwrap(), [0x61, 0xd83d, 0xde00, 0xd800, 0x62]);
        assert_eq!(FileName::new(b"a\xff".to_vec()).to_utf16(), None);
    }

    #[test]
    fn a_name_that_would_lead_elsewhere_is_not_plain() {
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(!FileName::from(bad).is_plain(), "{bad:?}");
        }
        assert!(FileName::from("...").is_plain() && FileName::new(vec![0xff]).is_plain());
    }
}
