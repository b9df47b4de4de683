//! How far long work is.

use std::ops::ControlFlow;

use crate::fs::FileName;

/// How far a copy or an archive is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is at work.
    pub path: FileName,
    /// Files, directories and links that are done.
    pub entries: u64,
    /// Bytes of files; holes too where they are written as zeros.
    pub bytes: u64,
}

/// Is told of progress and says whether to go on.
pub(crate) type OnProgress<'a> = Box<dyn FnMut(&Progress) -> ControlFlow<()> + 'a>;
