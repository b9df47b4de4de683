//! Devices encrypted with LUKS: recognised, and with the feature `luks` opened with a key.
//!
//! "LUKS On-Disk Format Specification" 1.2.3, "LUKS2 On-Disk Format Specification" 1.1.

#[cfg(feature = "luks")]
mod cipher;
#[cfg(feature = "luks")]
mod decrypted;
#[cfg(feature = "luks")]
mod key_slot;
#[cfg(feature = "luks")]
mod version1;
#[cfg(feature = "luks")]
mod version2;

use std::sync::Arc;

#[cfg(feature = "luks")]
use zeroize::Zeroizing;

use crate::{
    bytes::be_u16,
    device::{Device, DeviceExt},
    error::{Error, Result},
    fs::FileSystem,
};

/// Names a device that is encrypted with LUKS.
pub(crate) fn probe(device: &Arc<dyn Device>) -> Result<Option<Arc<dyn FileSystem>>> {
    match scheme(&**device)? {
        Some(scheme) => Err(Error::Encrypted { what: device.name(), scheme }),
        None => Ok(None),
    }
}

/// The version by which a device is encrypted, if it is.
fn scheme(device: &dyn Device) -> Result<Option<&'static str>> {
    if device.size() < HEADER {
        return Ok(None);
    }
    let head: [u8; 8] = device.read_array(0)?;
    Ok(match (head.strip_prefix(MAGIC), be_u16(&head, 6)) {
        (Some(_), Some(1)) => Some("LUKS1"),
        (Some(_), Some(2)) => Some("LUKS2"),
        (Some(_), _) => Some("LUKS"),
        (None, _) => None,
    })
}

/// Magic, then the version.
const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// Bytes of the smallest header.
const HEADER: u64 = 4096;

/// What opens encrypted volumes; nothing does without the feature `luks`.
#[derive(Default)]
pub(crate) struct Keys {
    #[cfg(feature = "luks")]
    keys: Vec<Key>,
    /// KiB that the key slots of a volume may have worked on; the default without.
    #[cfg(feature = "luks")]
    work: Option<u64>,
}

#[cfg(feature = "luks")]
enum Key {
    /// What a person types, or the bytes of a key file.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The key of the volume itself.
    Volume(Zeroizing<Vec<u8>>),
}

/// What is in an encrypted device.
pub(crate) struct Unlocked {
    pub(crate) device: Arc<dyn Device>,
    /// The id in its header, by which the guest may name it.
    pub(crate) uuid: String,
    pub(crate) scheme: &'static str,
}

#[cfg(feature = "luks")]
impl Keys {
    pub(crate) fn passphrase(&mut self, secret: &[u8]) {
        self.keys.push(Key::Passphrase(Zeroizing::new(secret.to_vec())));
    }

    pub(crate) fn volume_key(&mut self, key: &[u8]) {
        self.keys.push(Key::Volume(Zeroizing::new(key.to_vec())));
    }

    pub(crate) fn limit_work(&mut self, kib: u64) {
        self.work = Some(kib);
    }

    /// Opens a device with the first key that fits; `None` when there are no keys, or it is not encrypted with LUKS.
    pub(crate) fn unlock(&self, device: &Arc<dyn Device>) -> Option<Result<Unlocked>> {
        if self.keys.is_empty() {
            return None;
        }
        let opened = match scheme(&**device) {
            Ok(Some("LUKS1")) => version1::Header::read(&**device).and_then(|header| header.open(device, self)),
            Ok(Some("LUKS2")) => version2::Header::read(&**device).and_then(|header| header.open(device, self)),
            // Whoever opens it is told.
            _ => return None,
        };
        Some(opened)
    }
}

#[cfg(not(feature = "luks"))]
impl Keys {
    pub(crate) fn unlock(&self, _: &Arc<dyn Device>) -> Option<Result<Unlocked>> {
        None
    }
}
