//! Which files a new disk has, and what its descriptor says of them.

use std::path::{Path, PathBuf};

use super::{CreateKind, CreateSpec};
use crate::{
    SECTOR,
    descriptor::{ExtentLine, ExtentType},
    error::{Error, Result},
};

/// Most sectors of one file of a split disk: 2 GiB less 2 MiB, as VMware splits.
pub(crate) const SPLIT_SECTORS: u64 = 4_192_256;

/// The extents in disk order, and their files.
#[derive(Debug)]
pub(super) struct ExtentFiles {
    pub(super) paths: Vec<PathBuf>,
    pub(super) lines: Vec<ExtentLine>,
}

impl ExtentFiles {
    /// Extents of a disk of this kind whose descriptor is at `path`.
    pub(super) fn plan(path: &Path, spec: &CreateSpec) -> Result<Self> {
        let name = file_name(path)?;
        let sectors = spec.capacity / SECTOR;
        let lines = match spec.kind {
            // The bytes alone have no descriptor.
            CreateKind::Raw => Vec::new(),
            CreateKind::Flat => vec![ExtentLine::new(ExtentType::Flat, sectors, flat_name(name))],
            CreateKind::Vmfs => vec![ExtentLine::new(ExtentType::Vmfs, sectors, flat_name(name))],
            CreateKind::MonolithicSparse => vec![ExtentLine::new(ExtentType::Sparse, sectors, name)],
            CreateKind::TwoGbMaxExtentFlat => split(name, ExtentType::Flat, sectors, 0),
            CreateKind::TwoGbMaxExtentSparse => split(name, ExtentType::Sparse, sectors, 0),
        };
        let paths = lines.iter().filter_map(|line| Some(path.with_file_name(line.file_name.as_deref()?))).collect();
        Ok(Self { paths, lines })
    }
}

/// Cuts `sectors` into extents of at most [`SPLIT_SECTORS`] for the disk called `name`; `before` extents come first.
pub(crate) fn split(name: &str, kind: ExtentType, sectors: u64, before: usize) -> Vec<ExtentLine> {
    let letter = if kind == ExtentType::Sparse { 's' } else { 'f' };
    let count = sectors.div_ceil(SPLIT_SECTORS);
    (0..count)
        .map(|index| {
            let size = (sectors - index * SPLIT_SECTORS).min(SPLIT_SECTORS);
            let number = before as u64 + index + 1;
            ExtentLine::new(kind.clone(), size, format!("{}-{letter}{number:03}.vmdk", stem(name)))
        })
        .collect()
}

/// The file name of a disk, as its descriptor can hold it.
pub(crate) fn file_name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::invalid("path", format!("{} has no file name in UTF-8", path.display())))
}

fn flat_name(name: &str) -> String {
    format!("{}-flat.vmdk", stem(name))
}

/// The name of a disk without its extension: what its extents' names begin with.
pub(crate) fn stem(name: &str) -> &str {
    name.strip_suffix(".vmdk").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_disks_are_named_and_cut_as_vmware_does() {
        let lines: Vec<_> = split("a b.vmdk", ExtentType::Sparse, 2 * SPLIT_SECTORS + 1, 0);
        let text: Vec<_> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "RW 4192256 SPARSE \"a b-s001.vmdk\"",
                "RW 4192256 SPARSE \"a b-s002.vmdk\"",
                "RW 1 SPARSE \"a b-s003.vmdk\""
            ]
        );
        let lines = split("d.vmdk", ExtentType::Flat, 8, 999);
        assert_eq!(lines[0].to_string(), "RW 8 FLAT \"d-f1000.vmdk\" 0");
    }
}
