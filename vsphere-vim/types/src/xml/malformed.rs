//! What is wrong with an XML text.

use std::borrow::Cow;
use std::fmt;

/// What is wrong with an XML text, and where. Neither texts nor attribute values are shown: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    // Behind a pointer: every read returns a result, and almost none of them is an error.
    inner: Box<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    offset: usize,
    what: Cow<'static, str>,
    /// The elements around, outermost first; filled where values are read.
    path: String,
}

impl Malformed {
    #[cold]
    pub(crate) fn at(offset: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Box::new(Inner { offset, what: what.into(), path: String::new() }) }
    }

    /// The same with the elements that were open. However they were named, the path stays short.
    #[cold]
    pub(super) fn inside(mut self, open: &[&str]) -> Self {
        let path = &mut self.inner.path;
        let left_out = open.len().saturating_sub(MAX_PATH_NAMES);
        if left_out > 0 {
            path.push_str("...");
        }
        for name in &open[left_out..] {
            if !path.is_empty() {
                path.push('/');
            }
            path.extend(name.chars().take(MAX_PATH_NAME));
        }
        self
    }

    /// The byte at which it was noticed.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.inner.offset
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { offset, what, path } = &*self.inner;
        write!(f, "malformed XML at byte {offset}")?;
        if !path.is_empty() {
            write!(f, ", in {path}")?;
        }
        write!(f, ": {what}")
    }
}

impl std::error::Error for Malformed {}

/// How many of the innermost elements an error names. Real answers stay below it but for odd ones.
const MAX_PATH_NAMES: usize = 24;

/// How much of each name. The longest of the model has 60 characters.
const MAX_PATH_NAME: usize = 80;
