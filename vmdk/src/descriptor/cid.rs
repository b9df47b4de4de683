//! Content ids: how a child knows that its parent is still what it was.

use std::fmt;

use crate::error::{Error, Result};

/// Content id: 32 bits that change when the content does, written as eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cid(pub u32);

impl Cid {
    /// `parentCID` of a disk without a parent.
    pub const NONE: Self = Self(0xffff_ffff);
    /// Says that `ddb.longContentID` holds the content id.
    pub const LONG: Self = Self(0xffff_fffe);

    /// A fresh id that is neither [`Cid::NONE`] nor [`Cid::LONG`].
    pub fn random() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // RandomState is seeded by the operating system; an id needs to be different, not secret.
        Self((RandomState::new().build_hasher().finish() as u32) % Self::LONG.0)
    }

    /// Reads up to eight hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.trim();
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(id) if hexadecimal => Ok(Self(id)),
            _ => Err(Error::malformed("descriptor", format!("content id {text:?} is not hexadecimal"))),
        }
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ids_are_eight_hexadecimal_digits() {
        assert_eq!(Cid::parse("FFFFFFFE").unwrap(), Cid::LONG);
        for bad in ["", "+1", "123456789", "xyz", "-1"] {
            assert!(Cid::parse(bad).is_err(), "{bad}");
        }
    }
}
