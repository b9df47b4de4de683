//! Names in directories, and the order they are in.

use std::cmp::Ordering;

use super::{
    attribute::{kind, units},
    mft::Mft,
    record::Reference,
    reparse,
};
use crate::{
    bytes::le_u32,
    error::{Error, Result},
    fs::FileKind,
};

/// What a directory says of a file: the value of a `$FILE_NAME`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    attributes: u32,
    tag: u32,
    space: u8,
    /// UTF-16, little endian.
    stored: &'a [u8],
}

impl<'a> Name<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let len = usize::from(*value.get(0x40)?);
        Some(Self {
            attributes: le_u32(value, 0x38)?,
            tag: le_u32(value, 0x3c)?,
            space: *value.get(0x41)?,
            stored: value.get(0x42..0x42 + len * 2)?,
        })
    }

    /// Whether it is the short name of a file that has a long one as well.
    pub(super) fn is_short(&self) -> bool {
        self.space == DOS
    }

    pub(super) fn units(&self) -> impl Iterator<Item = u16> + use<'a> {
        units(self.stored)
    }

    /// What it names, where that is certain.
    pub(super) fn kind(&self) -> Option<FileKind> {
        let directory = self.attributes & DIRECTORY != 0;
        match (self.attributes & REPARSE_POINT != 0, self.tag) {
            (false, _) if directory => Some(FileKind::Directory),
            (false, _) => Some(FileKind::File),
            (true, 0) => None,
            (true, tag) => Some(reparse::kind(tag, directory)),
        }
    }
}

/// Upper case as the volume was formatted with it.
#[derive(Debug)]
pub(super) struct UpCase(Vec<u16>);

impl UpCase {
    pub(super) fn open(mft: &Mft) -> Result<Self> {
        let file = mft.file(Reference(UPCASE))?;
        let lost = || Error::damaged("$UpCase", "it is empty");
        let table = mft.attribute(&file, kind::DATA, &[])?.ok_or_else(lost)?.whole(UPCASE_BYTES)?;
        Ok(Self(units(&table).collect()))
    }

    /// Compares names as directories order them, case aside.
    pub(super) fn compare(&self, one: impl Iterator<Item = u16>, other: impl Iterator<Item = u16>) -> Ordering {
        one.map(|unit| self.of(unit)).cmp(other.map(|unit| self.of(unit)))
    }

    fn of(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }
}

const DOS: u8 = 2;
const REPARSE_POINT: u32 = 0x400;
/// In `$FILE_NAME` only.
const DIRECTORY: u32 = 0x1000_0000;
/// Number of the record of `$UpCase`.
const UPCASE: u64 = 10;
const UPCASE_BYTES: u64 = 128 << 10;
