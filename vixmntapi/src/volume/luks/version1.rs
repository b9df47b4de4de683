//! The header of LUKS1.

use std::sync::Arc;

use super::{
    Keys, Unlocked,
    cipher::Cipher,
    decrypted::Decrypted,
    key_slot::{Hash, Kdf, KeySlot, Proof, find_key},
};
use crate::{
    bytes::{be_u32, slice, until_nul},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// All that is in it.
pub(super) struct Header {
    cipher: String,
    /// Where what is encrypted begins, in bytes.
    payload: u64,
    proof: Proof,
    slots: Vec<Result<KeySlot>>,
    uuid: String,
}

impl Header {
    pub(super) fn read(device: &dyn Device) -> Result<Self> {
        let head = device.read_vec(0, LEN)?;
        let name = device.name();
        let short = || Error::damaged(format!("the header of LUKS on {name}"), "it ends early");
        let text = |at, len| slice(&head, at, len).map(|text| String::from_utf8_lossy(until_nul(text)).into_owned());
        let number = |at| be_u32(&head, at).ok_or_else(short);
        let cipher = format!("{}-{}", text(8, 32).ok_or_else(short)?, text(40, 32).ok_or_else(short)?);
        let hash = Hash::named(&text(72, 32).ok_or_else(short)?)?;
        let key_len = number(108)? as usize;
        let proof = Proof {
            hash,
            iterations: number(164)?,
            salt: slice(&head, 132, 32).ok_or_else(short)?.to_vec(),
            digest: slice(&head, 112, 20).ok_or_else(short)?.to_vec(),
        };
        let mut slots = Vec::new();
        for at in (208..LEN).step_by(48) {
            if number(at)? == ENABLED {
                slots.push(Ok(KeySlot {
                    kdf: Kdf::Pbkdf2 { hash, iterations: number(at + 4)? },
                    salt: slice(&head, at + 8, 32).ok_or_else(short)?.to_vec(),
                    key_len,
                    stripes: number(at + 44)? as usize,
                    hash,
                    offset: u64::from(number(at + 40)?) * 512,
                    cipher: cipher.clone(),
                    area_key_len: key_len,
                }));
            }
        }
        let payload = u64::from(number(104)?) * 512;
        if payload == 0 || payload > device.size() {
            let problem = format!("what is encrypted begins at byte {payload} of {}", device.size());
            return Err(Error::damaged(format!("the header of LUKS on {name}"), problem));
        }
        Ok(Self { cipher, payload, proof, slots, uuid: text(168, 40).ok_or_else(short)? })
    }

    pub(super) fn open(&self, device: &Arc<dyn Device>, keys: &Keys) -> Result<Unlocked> {
        let key = find_key(&**device, keys, &self.slots, &self.proof)?;
        let cipher = Cipher::new(&self.cipher, &key)?;
        let size = (device.size() - self.payload) / 512 * 512;
        let inner = Decrypted { device: device.clone(), cipher, start: self.payload, size, sector: 512, first: 0 };
        Ok(Unlocked { device: Arc::new(inner), uuid: self.uuid.clone(), scheme: "LUKS1" })
    }
}

/// Bytes of it, with its eight key slots.
const LEN: usize = 592;
/// What an enabled key slot begins with.
const ENABLED: u32 = 0x00ac_71f3;
