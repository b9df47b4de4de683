//! Extent lines: `ACCESS SIZE TYPE ["file" [OFFSET [PARTITION-UUID [DEVICE-ID]]]]`.

use std::fmt;

use super::{ExtentAccess, ExtentType};
use crate::{
    SECTOR,
    error::{Error, Result},
};

/// One extent of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentLine {
    /// What may be done with it.
    pub access: ExtentAccess,
    /// Size in sectors of 512 bytes.
    pub size_sectors: u64,
    /// How its bytes are kept.
    pub kind: ExtentType,
    /// The file, relative to the descriptor; `ZERO` extents have none.
    pub file_name: Option<String>,
    /// Where the extent starts in the file, in sectors; required for `FLAT` only.
    pub offset_sectors: Option<u64>,
    /// What follows the offset (partition UUID and device id), as written.
    pub rest: Option<String>,
}

impl ExtentLine {
    /// A writable extent that starts at the beginning of its file.
    pub fn new(kind: ExtentType, size_sectors: u64, file_name: impl Into<String>) -> Self {
        let offset_sectors = (kind == ExtentType::Flat).then_some(0);
        let file_name = Some(file_name.into());
        Self { access: ExtentAccess::ReadWrite, size_sectors, kind, file_name, offset_sectors, rest: None }
    }

    /// Reads one line.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for sizes whose bytes do not fit in 63 bits.
    pub fn parse(line: &str) -> Result<Self> {
        let bad = |problem: &str| Error::malformed("descriptor", format!("extent line {line:?}: {problem}"));
        let (access, text) = word(line.trim_start_matches('\u{feff}').trim());
        let access = ExtentAccess::from_name(access).ok_or_else(|| bad("unknown access"))?;
        let (size, text) = word(text);
        let size_sectors = sectors(size).ok_or_else(|| bad("the size is no number of sectors"))?;
        let (kind, text) = word(text);
        if kind.is_empty() {
            return Err(bad("there is no type"));
        }
        let kind = ExtentType::from_name(kind);
        let mut extent = Self { access, size_sectors, kind, file_name: None, offset_sectors: None, rest: None };
        if text.is_empty() {
            return match extent.kind {
                ExtentType::Zero => Ok(extent),
                _ => Err(bad("there is no file")),
            };
        }
        let (name, text) = text
            .strip_prefix('"')
            .and_then(|quoted| quoted.split_once('"'))
            .ok_or_else(|| bad("the file name is not quoted"))?;
        extent.file_name = Some(name.to_owned());
        let (offset, text) = word(text.trim_start());
        if !offset.is_empty() {
            extent.offset_sectors = Some(sectors(offset).ok_or_else(|| bad("the offset is no number of sectors"))?);
        }
        extent.rest = (!text.is_empty()).then(|| text.to_owned());
        Ok(extent)
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.size_sectors.saturating_mul(SECTOR)
    }

    /// Whether the extent has no bytes.
    pub fn is_empty(&self) -> bool {
        self.size_sectors == 0
    }

    /// Where the extent starts in its file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset_sectors.unwrap_or(0).saturating_mul(SECTOR)
    }
}

impl fmt::Display for ExtentLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.access, self.size_sectors, self.kind)?;
        if let Some(name) = &self.file_name {
            write!(f, " \"{name}\"")?;
        }
        if let Some(offset) = self.offset_sectors {
            write!(f, " {offset}")?;
        }
        if let Some(rest) = &self.rest {
            write!(f, " {rest}")?;
        }
        Ok(())
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A decimal number of sectors whose bytes fit in an `i64`, as file offsets must.
fn sectors(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&sectors: &u64| sectors <= (i64::MAX as u64) / SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_shape() {
        for line in [
            "RW 63 FLAT \"a.vmdk\" 0",
            "RDONLY 4192256 SPARSE \"dir/a b-s001.vmdk\"",
            "NOACCESS 1 ZERO",
            "RW 0 FLAT \"\\\\.\\PhysicalDrive0\" 63 partitionUUID dev=x",
            "RW 10 VSANSPARSE \"vsan://5274\"",
            "RW 10 BRANDNEW \"x\"",
        ] {
            assert_eq!(ExtentLine::parse(line).unwrap().to_string(), line);
        }
        let extent = ExtentLine::parse("  rw  8 vmfs  \"x-flat.vmdk\"  2 ").unwrap();
        assert_eq!((extent.kind.clone(), extent.len(), extent.offset()), (ExtentType::Vmfs, 4096, 1024));
    }

    #[test]
    fn refuses_what_it_cannot_place() {
        for line in [
            "RW",
            "RW x FLAT \"a\" 0",
            "RW -1 ZERO",
            "RW 8",
            "RW 8 FLAT",
            "RW 8 FLAT a.vmdk 0",
            "RW 8 FLAT \"a 0",
            "RW 99999999999999999999 ZERO",
            "RW 36028797018963968 ZERO",
            "RW 8 FLAT \"a\" 0x1",
        ] {
            assert!(ExtentLine::parse(line).is_err(), "{line}");
        }
    }
}
