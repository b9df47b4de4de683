//! Extended attributes of OS/2, in which the Windows Subsystem for Linux keeps owners, permissions and devices.

use crate::{
    bytes::{le_u16, le_u32},
    error::{Error, Result},
    fs::Metadata,
};

/// Puts into `metadata` what Linux under Windows noted in the value of an `$EA`.
pub(super) fn apply(value: &[u8], metadata: &mut Metadata, number: u64) -> Result<()> {
    let mut rest = value;
    while !rest.is_empty() {
        let (name, value, next) = parse(rest)
            .ok_or_else(|| Error::damaged(format!("the extended attributes of file {number}"), "they are cut off"))?;
        rest = next;
        match (name, le_u32(value, 0), le_u32(value, 4)) {
            (b"$LXUID", Some(uid), _) => metadata.uid = uid,
            (b"$LXGID", Some(gid), _) => metadata.gid = gid,
            (b"$LXMOD", Some(mode), _) => metadata.mode = mode & 0o7777,
            (b"$LXDEV", Some(major), Some(minor)) => metadata.device = Some((major, minor)),
            _ => {}
        }
    }
    Ok(())
}

/// The first attribute, and what comes after it.
fn parse(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let len = le_u32(bytes, 0)? as usize;
    let name_len = usize::from(*bytes.get(5)?);
    let name = bytes.get(8..8 + name_len)?;
    // A NUL is between them.
    let at = 9 + name_len;
    let value = bytes.get(at..at + usize::from(le_u16(bytes, 6)?))?;
    let next = match len {
        0 => &[][..],
        len if len < at => return None,
        len => bytes.get(len..)?,
    };
    Some((name, value, next))
}

/// MS-FSCC section 2.4.16.
pub(super) const LONGEST: u64 = 64 << 10;
