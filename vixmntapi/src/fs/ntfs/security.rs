//! Security descriptors, which `$Secure` keeps once for all files that have the same.

use super::{
    attribute::kind,
    index::Cursor,
    mft::{Body, Mft},
    plain::Plain,
    record::Reference,
};
use crate::{
    bytes::{le_u32, le_u64},
    error::{Error, Result},
};

/// The descriptor of an id of `$STANDARD_INFORMATION`.
pub(super) fn descriptor(mft: &Mft, id: u32) -> Result<Vec<u8>> {
    let lost = |problem: &str| Error::damaged(format!("security descriptor {id}"), problem);
    let secure = mft.file(Reference(SECURE))?;
    let mut index = Cursor::open(mft, &secure, "$SII")?.ok_or_else(|| lost("$Secure has no $SII"))?;
    index.seek(|key| Some(le_u32(key, 0)?.cmp(&id)))?;
    let entry = index.next()?.filter(|entry| le_u32(&entry.key, 0) == Some(id));
    let entry = entry.ok_or_else(|| lost("it is not in $SII"))?;
    let place = le_u64(&entry.data, 8).zip(le_u32(&entry.data, 16));
    let (at, len) = place.filter(|(_, len)| (HEADER..=LONGEST).contains(len)).ok_or_else(|| lost("its entry"))?;
    let name: Vec<u16> = "$SDS".encode_utf16().collect();
    match mft.attribute(&secure, kind::DATA, &name)?.map(|found| found.body) {
        Some(Body::Mapped(stream, _)) => read(&stream, id, at, len as usize),
        _ => Err(lost("$Secure has no $SDS")),
    }
}

/// Reads a descriptor, or its copy in the stream's next block.
fn read(stream: &Plain, id: u32, at: u64, len: usize) -> Result<Vec<u8>> {
    for at in [Some(at), at.checked_add(COPY)].into_iter().flatten() {
        let mut bytes = vec![0; len];
        match stream.fill(at, &mut bytes) {
            Ok(()) if le_u32(&bytes, 4) == Some(id) && le_u32(&bytes, 16) == Some(len as u32) => {
                return Ok(bytes.split_off(HEADER as usize));
            }
            Ok(()) | Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::damaged(format!("security descriptor {id}"), format!("it is not at byte {at} of $SDS")))
}

/// Number of the record of `$Secure`.
const SECURE: u64 = 9;
/// Bytes before a descriptor: hash, id, place, length.
const HEADER: u32 = 20;
/// An ACL has 64 KiB at most, and a descriptor two of them.
const LONGEST: u32 = 256 << 10;
/// Every other 256 KiB of `$SDS` repeat those before them.
const COPY: u64 = 256 << 10;
