//! Reparse points: links, and files whose content is elsewhere.

use super::attribute::units;
use crate::{
    bytes::{le_u16, le_u32},
    error::Error,
    fs::{FileKind, FileName},
};

/// What a file with a reparse point is.
pub(super) fn kind(tag: u32, directory: bool) -> FileKind {
    match tag {
        SYMLINK | MOUNT_POINT | LX_SYMLINK => FileKind::Symlink,
        AF_UNIX => FileKind::Socket,
        LX_FIFO => FileKind::Fifo,
        LX_CHR => FileKind::CharDevice,
        LX_BLK => FileKind::BlockDevice,
        // It stands for something else, which is not known.
        tag if tag & NAME_SURROGATE != 0 => FileKind::Other,
        _ if directory => FileKind::Directory,
        _ => FileKind::File,
    }
}

/// The tag of a reparse point's value, and what it holds for that.
pub(super) fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let len = usize::from(le_u16(value, 4)?);
    Some((le_u32(value, 0)?, value.get(8..8 + len)?))
}

/// Where a link leads: `\` made `/`, and absolute targets without the prefix of the object manager (`C:/dir`,
/// `//server/share`, `Volume{…}/`). `None` when it is no link, or contradicts itself.
pub(super) fn target(tag: u32, data: &[u8]) -> Option<FileName> {
    let names = match tag {
        // Names are preceded by flags, which say what the name says as well.
        SYMLINK => data.get(12..)?,
        MOUNT_POINT => data.get(8..)?,
        LX_SYMLINK => return data.get(4..).map(FileName::from),
        _ => return None,
    };
    let name = |at: usize| {
        let from = usize::from(le_u16(data, at)?);
        names.get(from..from + usize::from(le_u16(data, at + 2)?))
    };
    let (substitute, print) = (name(0)?, name(4)?);
    // The print name is for people, and may be left out.
    let stored = if substitute.is_empty() { print } else { substitute };
    let units: Vec<u16> =
        units(stored).map(|unit| if unit == u16::from(b'\\') { u16::from(b'/') } else { unit }).collect();
    let prefix = |prefix: &str, units: &[u16]| {
        let prefix: Vec<u16> = prefix.encode_utf16().collect();
        units.strip_prefix(&*prefix).map(<[u16]>::to_vec)
    };
    if let Some(rest) = prefix("/??/UNC/", &units) {
        return Some(FileName::from_utf16([u16::from(b'/'); 2].into_iter().chain(rest)));
    }
    Some(FileName::from_utf16(prefix("/??/", &units).unwrap_or(units)))
}

/// Refuses content that is not what the file's stream holds.
pub(super) fn refuse(tag: u32, number: u64) -> Error {
    let (what, reason) = match tag {
        DEDUP => ("data deduplication", "its content is in the chunk store of System Volume Information".into()),
        SIS => ("single instance storage", "its content is in the common store".into()),
        HSM | HSM2 => ("hierarchical storage", "its content was moved to other storage".into()),
        APP_EXEC_LINK => ("an app execution alias", "it has no content".into()),
        tag if tag & CLOUD_MASK == CLOUD => ("cloud files", "its content may be in the cloud only".into()),
        tag => ("an unknown filter", format!("its reparse tag is {tag:#010x}")),
    };
    Error::unsupported(format!("file {number} of {what}"), reason)
}

/// `IO_REPARSE_TAG_*`, MS-FSCC section 2.1.2.1.
const MOUNT_POINT: u32 = 0xa000_0003;
const HSM: u32 = 0xc000_0004;
const HSM2: u32 = 0x8000_0006;
const SIS: u32 = 0x8000_0007;
const SYMLINK: u32 = 0xa000_000c;
const DEDUP: u32 = 0x8000_0013;
pub(super) const WOF: u32 = 0x8000_0017;
const CLOUD: u32 = 0x9000_001a;
/// The byte that numbers sixteen kinds of cloud files is left out.
const CLOUD_MASK: u32 = 0xffff_0fff;
const APP_EXEC_LINK: u32 = 0x8000_001b;
const LX_SYMLINK: u32 = 0xa000_001d;
const AF_UNIX: u32 = 0x8000_0023;
const LX_FIFO: u32 = 0x8000_0024;
const LX_CHR: u32 = 0x8000_0025;
const LX_BLK: u32 = 0x8000_0026;
/// It stands for another file or directory.
const NAME_SURROGATE: u32 = 0x2000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn link(tag: u32, target: &str) -> Vec<u8> {
        let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = (name.len() as u16).to_le_bytes();
        let mut data = vec![0, 0, len[0], len[1], 0, 0, 0, 0];
        data.resize(if tag == SYMLINK { 12 } else { 8 }, 0);
        data.extend(name);
        data
    }

    #[test]
    fn targets_become_paths() {
        for (tag, stored, path) in [
            (SYMLINK, r"..\a b\c", "../a b/c"),
            (SYMLINK, r"\Windows", "/Windows"),
            (SYMLINK, r"\??\UNC\server\share\x", "//server/share/x"),
            (MOUNT_POINT, r"\??\C:\Users\All Users", "C:/Users/All Users"),
            (MOUNT_POINT, r"\??\Volume{0}\", "Volume{0}/"),
        ] {
            assert_eq!(target(tag, &link(tag, stored)), Some(path.into()));
        }
        assert_eq!(target(LX_SYMLINK, b"\x02\0\0\0a/b"), Some("a/b".into()));
    }

    #[test]
    fn what_stands_for_something_unknown_is_neither_file_nor_directory() {
        assert_eq!(kind(LX_BLK, false), FileKind::BlockDevice);
        assert_eq!(kind(MOUNT_POINT, true), FileKind::Symlink);
        assert_eq!((kind(0x9000_301a, true), kind(WOF, false)), (FileKind::Directory, FileKind::File));
        assert_eq!((kind(0x2000_1234, true), kind(0x2000_1234, false)), (FileKind::Other, FileKind::Other));
    }

    #[test]
    fn a_target_outside_its_point_is_none() {
        let mut data = link(SYMLINK, "abc");
        data[2] = 99;
        assert_eq!(target(SYMLINK, &data), None);
        assert_eq!(target(MOUNT_POINT, &[0; 7]), None);
    }

    #[test]
    fn cloud_files_of_all_numbers_are_named() {
        for tag in [0x9000_001a, 0x9000_301a, 0x9000_f01a] {
            assert!(refuse(tag, 40).to_string().contains("cloud"));
        }
    }
}
