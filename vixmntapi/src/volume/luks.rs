//! Devices encrypted with LUKS: recognised, not opened.

use std::sync::Arc;

use crate::{
    bytes::be_u16,
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::FileSystem,
};

/// Names a device that is encrypted with LUKS.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    if device.size() < HEADER {
        return Ok(None);
    }
    let head: [u8; 8] = device.read_array(0)?;
    let scheme = match (head.strip_prefix(MAGIC), be_u16(&head, 6)) {
        (Some(_), Some(1)) => "LUKS1",
        (Some(_), Some(2)) => "LUKS2",
        (Some(_), _) => "LUKS",
        (None, _) => return Ok(None),
    };
    Err(Error::Encrypted { what: device.name(), scheme })
}

/// "LUKS On-Disk Format Specification" 1.2.3, "LUKS2 On-Disk Format Specification" 1.1: magic, then the version.
const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// Bytes of the smallest header.
const HEADER: u64 = 4096;
