//! What a conformance suite says, whatever it looks at.

use std::fmt;

/// What was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report<R> {
    /// The rules that were checked, all of which were kept.
    pub kept: Vec<R>,
}

/// The first breach of a contract.
#[derive(Debug)]
#[non_exhaustive]
pub struct Violation<R> {
    /// The broken rule.
    pub rule: R,
    /// What was seen.
    pub what: String,
}

impl<R> Report<R> {
    pub(crate) fn new(kept: Vec<R>) -> Self {
        Self { kept }
    }
}

impl<R> Violation<R> {
    pub(crate) fn new(rule: R, what: String) -> Self {
        Self { rule, what }
    }
}

impl<R: fmt::Debug> fmt::Display for Violation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

impl<R: fmt::Debug> std::error::Error for Violation<R> {}
