//! `ddb.uuid`: sixteen bytes that name a disk for its guest.

use std::{fmt, str::FromStr};

use super::Cid;
use crate::error::{Error, Result};

/// A disk's uuid, written as VMware does: `60 00 C2 9x …-…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DiskUuid(pub [u8; 16]);

impl DiskUuid {
    /// A fresh uuid in VMware's range.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        for piece in bytes.chunks_exact_mut(4) {
            piece.copy_from_slice(&Cid::random().0.to_be_bytes());
        }
        bytes[..3].copy_from_slice(&VMWARE);
        bytes[3] = 0x90 | bytes[3] & 0x0f;
        Self(bytes)
    }
}

impl FromStr for DiskUuid {
    type Err = Error;

    /// Reads 32 hexadecimal digits, whatever blanks and hyphens are between them: the forms of the disk data base
    /// and of vSphere's API.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid("uuid", format!("{text:?} is not 16 bytes in hexadecimal"));
        let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b' ' | b'-')).collect();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for DiskUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            f.write_str(match index {
                0 => "",
                8 => "-",
                _ => " ",
            })?;
            // VMware writes its own prefix in capitals and the rest in small letters.
            if index < VMWARE.len() { write!(f, "{byte:02X}")? } else { write!(f, "{byte:02x}")? }
        }
        Ok(())
    }
}

/// VMware's prefix.
const VMWARE: [u8; 3] = [0x60, 0x00, 0xc2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_mean_the_same() {
        let text = "60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9d";
        let uuid: DiskUuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!("6000C29c-449c-3d2f-908f-02f5a36ab79d".parse::<DiskUuid>().unwrap(), uuid);
        for bad in ["", "60", "60 00 C2 9c 44 9c 3d 2f-90 8f 02 f5 a3 6a b7 9", "+000C29c-449c-3d2f-908f-02f5a36ab79d"]
        {
            assert!(bad.parse::<DiskUuid>().is_err(), "{bad}");
        }
        let random = DiskUuid::random();
        assert!(random.to_string().starts_with("60 00 C2 9") && random != DiskUuid::random());
    }
}
