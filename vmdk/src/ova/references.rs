//! Which member of a package is which file of its descriptor.

use std::collections::HashMap;

use super::descriptor::{FileReference, OvfDescriptor};

/// Finds files by the names of members.
#[derive(Debug)]
pub(super) struct References {
    by_name: HashMap<String, usize>,
}

/// What a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the file in the descriptor.
    pub(super) file: usize,
    /// Which piece of it; `None` for all.
    pub(super) chunk: Option<u64>,
}

impl References {
    pub(super) fn new(descriptor: &OvfDescriptor) -> Self {
        let names = |(index, file): (usize, &FileReference)| file.names().into_iter().map(move |name| (name, index));
        Self { by_name: descriptor.files.iter().enumerate().flat_map(names).collect() }
    }

    pub(super) fn find(&self, descriptor: &OvfDescriptor, member: &str) -> Option<Place> {
        if let Some(file) = self.by_name.get(member) {
            return Some(Place { file: *file, chunk: None });
        }
        let (stem, digits) = member.rsplit_once('.')?;
        let file = *self.by_name.get(stem)?;
        let is_chunk = digits.len() == CHUNK_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
        (is_chunk && descriptor.files[file].chunk_size.is_some())
            .then(|| digits.parse().ok())
            .flatten()
            .map(|chunk| Place { file, chunk: Some(chunk) })
    }
}

impl FileReference {
    /// Name of a piece, when the file has this name.
    pub(super) fn chunk_name(name: &str, chunk: u64) -> String {
        format!("{name}.{chunk:0CHUNK_DIGITS$}")
    }

    /// What is wrong with a member of `found` bytes that is all of this file.
    pub(super) fn check_size(&self, found: u64) -> Result<(), String> {
        match self.size {
            Some(size) if size != found => Err(format!("it has {found} bytes, and the descriptor says {size}")),
            _ => Ok(()),
        }
    }

    /// What is wrong with piece `chunk` of `found` bytes; else whether it is the last one, if that shows.
    pub(super) fn check_chunk(&self, chunk: u64, found: u64) -> Result<Option<bool>, String> {
        let whole = self.chunk_size.unwrap_or(u64::MAX);
        let before = chunk.checked_mul(whole).ok_or("too many pieces come before it")?;
        let Some(size) = self.size else {
            return if found > whole {
                Err(format!("it has more than {whole} bytes"))
            } else {
                Ok((found < whole).then_some(true))
            };
        };
        let wanted = size.saturating_sub(before).min(whole);
        if found != wanted {
            return Err(format!("it has {found} bytes, and should have {wanted}"));
        }
        Ok(Some(before.saturating_add(wanted) >= size))
    }
}

/// `name.000000000`: as the standard has it.
const CHUNK_DIGITS: usize = 9;
