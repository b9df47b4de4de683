//! The header of LUKS2: numbers in binary, the rest as JSON, and all of it twice.

use std::{collections::BTreeMap, sync::Arc};

use argon2::Algorithm;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest;
use serde::Deserialize;

use super::{
    Keys, MAGIC, Unlocked,
    cipher::Cipher,
    decrypted::Decrypted,
    key_slot::{Hash, Kdf, KeySlot, Proof, find_key},
};
use crate::{
    bytes::{be_u16, be_u64, slice, until_nul},
    device::{Device, DeviceExt},
    error::{Error, Result},
};

/// The newer of the two headers that is whole.
pub(super) struct Header {
    sequence: u64,
    uuid: String,
    json: Json,
}

#[derive(Deserialize)]
struct Json {
    keyslots: BTreeMap<String, serde_json::Value>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, Digest>,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

#[derive(Deserialize)]
struct Segment {
    r#type: String,
    offset: String,
    size: String,
    #[serde(default)]
    iv_tweak: Option<String>,
    #[serde(default)]
    encryption: Option<String>,
    #[serde(default)]
    sector_size: Option<u64>,
    #[serde(default)]
    integrity: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Digest {
    r#type: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

#[derive(Deserialize)]
struct Slot {
    r#type: String,
    key_size: usize,
    af: Af,
    area: Area,
    kdf: SlotKdf,
}

#[derive(Deserialize)]
struct Af {
    r#type: String,
    stripes: usize,
    hash: String,
}

#[derive(Deserialize)]
struct Area {
    r#type: String,
    offset: String,
    encryption: String,
    key_size: usize,
}

#[derive(Deserialize)]
struct SlotKdf {
    r#type: String,
    salt: String,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    iterations: u32,
    #[serde(default)]
    time: u32,
    #[serde(default)]
    memory: u32,
    #[serde(default)]
    cpus: u32,
}

impl Header {
    pub(super) fn read(device: &dyn Device) -> Result<Self> {
        let first = Self::at(device, 0);
        // Where the second is, the first says; where it may be otherwise is a short list.
        let second = match &first {
            Ok((_, len)) => Self::at(device, *len).ok(),
            Err(_) => SIZES.iter().find_map(|size| Self::at(device, *size).ok()),
        };
        match (first, second) {
            (Ok((first, _)), Some((second, _))) if second.sequence > first.sequence => Ok(second),
            (Ok((first, _)), _) => Ok(first),
            (Err(_), Some((second, _))) => Ok(second),
            (Err(error), None) => Err(error),
        }
    }

    /// The header at a place, with its size.
    fn at(device: &dyn Device, offset: u64) -> Result<(Self, u64)> {
        let wrong = |problem: String| {
            Error::damaged(format!("the header of LUKS2 at byte {offset} of {}", device.name()), problem)
        };
        let mut bytes = device.read_vec(offset, BINARY)?;
        let magic = if offset == 0 { MAGIC } else { SECOND_MAGIC };
        let len = be_u64(&bytes, 8).filter(|len| SIZES.contains(len));
        let (true, Some(2), Some(len)) = (bytes.starts_with(magic), be_u16(&bytes, 6), len) else {
            return Err(wrong("it is none".into()));
        };
        if be_u64(&bytes, 256) != Some(offset) {
            return Err(wrong("it says that it is elsewhere".into()));
        }
        bytes.extend(device.read_vec(offset + BINARY as u64, len as usize - BINARY)?);
        let sum = bytes.get(448..512).unwrap_or_default().to_vec();
        bytes.get_mut(448..512).unwrap_or_default().fill(0);
        let algorithm = until_nul(slice(&bytes, 72, 32).unwrap_or_default());
        if algorithm != b"sha256" {
            return Err(wrong(format!("its checksum is {}", algorithm.escape_ascii())));
        }
        if digest::digest(&digest::SHA256, &bytes).as_ref() != &sum[..32] {
            return Err(wrong("its checksum is another".into()));
        }
        let json = serde_json::from_slice(until_nul(&bytes[BINARY..])).map_err(|error| wrong(error.to_string()))?;
        let uuid = String::from_utf8_lossy(until_nul(slice(&bytes, 168, 40).unwrap_or_default())).into_owned();
        Ok((Self { sequence: be_u64(&bytes, 16).unwrap_or(0), uuid, json }, len))
    }

    pub(super) fn open(&self, device: &Arc<dyn Device>, keys: &Keys) -> Result<Unlocked> {
        if let Some(requirement) = self.json.config.requirements.mandatory.first() {
            return Err(Error::unsupported("LUKS2", format!("its header asks for {requirement}")));
        }
        let mut segments = self.json.segments.iter();
        let (Some((number, segment)), None) = (segments.next(), segments.next()) else {
            let count = self.json.segments.len();
            return Err(Error::unsupported("LUKS2", format!("its header has {count} segments")));
        };
        if segment.r#type != "crypt" || segment.integrity.is_some() {
            let what = if segment.integrity.is_some() { "checksums" } else { &segment.r#type };
            return Err(Error::unsupported("LUKS2", format!("its segment has {what}")));
        }
        let digests = self.json.digests.values();
        let digest = digests.into_iter().find(|digest| digest.segments.contains(number));
        let digest = digest.ok_or_else(|| damaged("it has no digest of its segment"))?;
        if digest.r#type != "pbkdf2" {
            return Err(Error::unsupported("LUKS2", format!("a digest by {}", digest.r#type)));
        }
        let proof = Proof {
            hash: Hash::named(&digest.hash)?,
            iterations: digest.iterations,
            salt: decoded(&digest.salt)?,
            digest: decoded(&digest.digest)?,
        };
        let slots = digest.keyslots.iter().take(MAX_SLOTS).filter_map(|slot| self.json.keyslots.get(slot)).map(slot);
        let key = find_key(&**device, keys, &slots.collect::<Vec<_>>(), &proof)?;
        let start = number_of(&segment.offset)?;
        let rest = device.size().checked_sub(start).ok_or_else(|| damaged("its segment begins behind its end"))?;
        let size = if segment.size == "dynamic" { rest } else { number_of(&segment.size)?.min(rest) };
        let sector = segment.sector_size.unwrap_or(512);
        if ![512, 1024, 2048, 4096].contains(&sector) {
            return Err(damaged(format!("its sectors have {sector} bytes")));
        }
        let inner = Decrypted {
            device: device.clone(),
            cipher: Cipher::new(segment.encryption.as_deref().unwrap_or_default(), &key)?,
            start,
            size: size / sector * sector,
            sector,
            first: segment.iv_tweak.as_deref().map_or(Ok(0), number_of)?,
        };
        Ok(Unlocked { device: Arc::new(inner), uuid: self.uuid.clone(), scheme: "LUKS2" })
    }
}

/// A key slot that may hold the key.
fn slot(json: &serde_json::Value) -> Result<KeySlot> {
    let Slot { r#type, key_size, af, area, kdf } =
        Slot::deserialize(json).map_err(|error| damaged(format!("a key slot: {error}")))?;
    if (&*r#type, &*af.r#type, &*area.r#type) != ("luks2", "luks1", "raw") {
        let kinds = format!("a key slot of the kinds {type}, {}, {}", af.r#type, area.r#type);
        return Err(Error::unsupported("LUKS2", kinds));
    }
    let argon2 = |algorithm| Kdf::Argon2 { algorithm, time: kdf.time, memory: kdf.memory, lanes: kdf.cpus };
    Ok(KeySlot {
        kdf: match &*kdf.r#type {
            "pbkdf2" => Kdf::Pbkdf2 { hash: Hash::named(&kdf.hash)?, iterations: kdf.iterations },
            "argon2i" => argon2(Algorithm::Argon2i),
            "argon2id" => argon2(Algorithm::Argon2id),
            other => return Err(Error::unsupported("LUKS2", format!("a key slot by {other}"))),
        },
        salt: decoded(&kdf.salt)?,
        key_len: key_size,
        stripes: af.stripes,
        hash: Hash::named(&af.hash)?,
        offset: number_of(&area.offset)?,
        cipher: area.encryption,
        area_key_len: area.key_size,
    })
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|error| damaged(format!("base64: {error}")))
}

/// A number that stands as text, because JSON's numbers have 53 bits.
fn number_of(text: &str) -> Result<u64> {
    text.parse().map_err(|_| damaged(format!("{text:?} is no number")))
}

fn damaged(problem: impl Into<String>) -> Error {
    Error::damaged("the header of LUKS2", problem)
}

/// Bytes of the binary part.
const BINARY: usize = 4096;
/// What the second header begins with.
const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";
/// The sizes that a header may have, which are where the second one may be.
const SIZES: [u64; 9] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
/// As many as LUKS2 has.
const MAX_SLOTS: usize = 32;
