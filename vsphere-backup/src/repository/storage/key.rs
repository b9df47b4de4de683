//! Names of objects.

use std::fmt;

use crate::error::{Error, Result};

/// The name of an object: segments of `[A-Za-z0-9._-]` joined by `/`.
///
/// The alphabet is what every store and file system takes literally; a segment never is `.` or
/// `..`, so a key cannot leave the repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// Parses a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty, longer than 512 bytes, or has a segment that is not
    /// allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let sound = text.len() <= MAX_LEN && text.split('/').all(is_segment);
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(format!("{text:?} cannot be the name of an object")))
        }
    }

    /// Joins segments that are known to be valid, because they are literals or hex digits.
    pub(crate) fn of(segments: &[&str]) -> Self {
        debug_assert!(segments.iter().all(|segment| is_segment(segment)), "{segments:?}");
        Self(segments.join("/").into())
    }

    /// Returns the whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Tells whether this lies below `prefix`, counted in whole segments.
    pub fn is_below(&self, prefix: &str) -> bool {
        prefix.is_empty() || self.0.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells whether `text` may be one segment of a key.
pub(crate) fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

const MAX_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_leave_the_repository() {
        for bad in ["", "/", "a//b", "../x", "a/../b", "a/.", "a b", "a#1", "é", "/a", "a/"] {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
        assert!(Key::parse("packs/ab/0123").is_ok());
        assert!(Key::parse(&"a".repeat(513)).is_err());
    }

    #[test]
    fn below_counts_whole_segments() {
        let key = Key::parse("points/vm-1/x").unwrap();
        assert!(key.is_below("points") && key.is_below("points/vm-1") && key.is_below(""));
        assert!(!key.is_below("point") && !key.is_below("points/vm") && !key.is_below("points/vm-1/x"));
        assert_eq!(key.file_name(), "x");
    }
}
