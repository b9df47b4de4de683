//! A slot: the key-encryption key, wrapped for one password, key file, recipient or service.
//!
//! Layout: `FORMAT.md`, "Key slots".

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    error::{DiskError, Error, Result},
    repository::{
        cipher::{Cipher, WRAPPED},
        hex::{hex, parse_hex, unhex},
        id::{RecipientKey, RepositoryId, SlotId, random},
        now,
    },
    thread,
};

use super::source::{Holder, KeySource, PasswordCost, RecipientSecret, Secret, SecretKey, Unlock, Way};

/// A slot as it is stored. One of a kind that this release does not know is kept as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    #[serde(default)]
    pub(super) label: String,
    /// Seconds since 1970, UTC.
    #[serde(default)]
    pub(super) created: u64,
    pub(super) kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What a slot of a known kind holds.
#[derive(Debug)]
pub(super) enum Content {
    Password {
        cost: PasswordCost,
        salt: Hex<SALT>,
        wrapped: Hex<WRAPPED>,
    },
    KeyFile {
        salt: Hex<SALT>,
        wrapped: Hex<WRAPPED>,
    },
    Recipient {
        recipient: RecipientKey,
        ephemeral: RecipientKey,
        wrapped: Hex<WRAPPED>,
    },
    Service {
        service: String,
        wrapped: Vec<u8>,
    },
    /// Of a kind that this release does not know.
    Unknown,
    /// Of a known kind, but not as it has to be.
    Malformed(String),
}

/// How an attempt to open a slot ended.
#[derive(Debug)]
pub(super) enum Attempt {
    Opened(SecretKey),
    /// The slot is of the right kind and does not open.
    Refused,
    /// The slot is for something else.
    OfAnotherKind,
    /// The slot is of the right kind and not as it has to be.
    Malformed(String),
}

impl Slot {
    /// Wraps `key` for a source.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a source that is no protection, [`Error::KeyService`].
    pub(super) async fn make(repository: RepositoryId, key: &SecretKey, source: &KeySource) -> Result<Self> {
        source.check()?;
        let id = SlotId(random()?);
        let bound = binding(repository, id);
        let (kind, fields) = match &source.way {
            Way::Password { secret, cost } => {
                let salt: [u8; SALT] = random()?;
                let cipher = password_cipher(secret, *cost, salt).await?;
                let fields = Argon2id {
                    memory_kib: cost.memory_kib,
                    passes: cost.passes,
                    lanes: cost.lanes,
                    salt: Hex(salt),
                    wrapped: Hex(cipher.wrap(&bound, key)),
                };
                (PASSWORD, serde_json::to_value(fields))
            }
            Way::KeyFile(content) => {
                let salt: [u8; SALT] = random()?;
                let wrapped = Hex(key_file_cipher(content, &salt).wrap(&bound, key));
                (KEY_FILE, serde_json::to_value(KeyFile { salt: Hex(salt), wrapped }))
            }
            &Way::Recipient(recipient) => {
                let sender = RecipientSecret::generate()?;
                let ephemeral = sender.public();
                let cipher = recipient_cipher(&sender, recipient, ephemeral, recipient)
                    .ok_or_else(|| Error::invalid(format!("{recipient} is no recipient's key: it protects nothing")))?;
                let wrapped = Hex(cipher.wrap(&bound, key));
                (RECIPIENT, serde_json::to_value(Recipient { recipient, ephemeral, wrapped }))
            }
            Way::Service(service) => {
                let name = service.name().to_owned();
                let wrapped = service.wrap(key, &context(repository, id)).await;
                let wrapped = wrapped.map_err(|source| service_failed("wrapping a key", &name, source))?;
                if wrapped.len() > MAX_SERVICE {
                    let what =
                        format!("the key service {name:?} gave {} bytes, more than fit into a slot", wrapped.len());
                    return Err(Error::invalid(what));
                }
                (SERVICE, serde_json::to_value(Service { service: name, wrapped: hex(&wrapped) }))
            }
        };
        let Ok(Value::Object(fields)) = fields else { unreachable!("a struct of plain fields is a JSON object") };
        Ok(Self { id, label: source.label.clone(), created: now(), kind: kind.into(), fields })
    }

    /// Parses what the slot holds.
    pub(super) fn content(&self) -> Content {
        let fields = Value::Object(self.fields.clone());
        let parsed = match &*self.kind {
            PASSWORD => serde_json::from_value(fields).map(|slot: Argon2id| {
                let cost = PasswordCost { memory_kib: slot.memory_kib, passes: slot.passes, lanes: slot.lanes };
                match cost.is_sound() {
                    true => Content::Password { cost, salt: slot.salt, wrapped: slot.wrapped },
                    false => Content::Malformed("the cost of its password is out of range".into()),
                }
            }),
            KEY_FILE => serde_json::from_value(fields)
                .map(|slot: KeyFile| Content::KeyFile { salt: slot.salt, wrapped: slot.wrapped }),
            RECIPIENT => serde_json::from_value(fields).map(|slot: Recipient| Content::Recipient {
                recipient: slot.recipient,
                ephemeral: slot.ephemeral,
                wrapped: slot.wrapped,
            }),
            SERVICE => serde_json::from_value(fields).map(|slot: Service| match unhex(&slot.wrapped) {
                Some(wrapped) => Content::Service { service: slot.service, wrapped },
                None => Content::Malformed("its wrapped key is not in hex".into()),
            }),
            _ => Ok(Content::Unknown),
        };
        parsed.unwrap_or_else(|error| Content::Malformed(error.to_string()))
    }

    /// Tries to open the slot.
    ///
    /// # Errors
    /// [`Error::KeyService`] when the service failed, rather than refused.
    pub(super) async fn open(&self, repository: RepositoryId, unlock: &Unlock) -> Result<Attempt> {
        let bound = binding(repository, self.id);
        let opened = match (self.content(), &unlock.0) {
            (Content::Password { cost, salt, wrapped }, Holder::Password(password)) => {
                password_cipher(password, cost, salt.0).await?.unwrap(&bound, &wrapped.0)
            }
            (Content::KeyFile { salt, wrapped }, Holder::KeyFile(content)) => {
                key_file_cipher(content, &salt.0).unwrap(&bound, &wrapped.0)
            }
            (Content::Recipient { recipient, ephemeral, wrapped }, Holder::Recipient(secret)) => {
                if secret.public() != recipient {
                    return Ok(Attempt::Refused);
                }
                recipient_cipher(secret, ephemeral, ephemeral, recipient)
                    .and_then(|cipher| cipher.unwrap(&bound, &wrapped.0))
            }
            (Content::Service { service: name, wrapped }, Holder::Service(service)) => {
                if service.name() != name {
                    return Ok(Attempt::Refused);
                }
                let unwrapped = service.unwrap(&wrapped, &context(repository, self.id)).await;
                unwrapped.map_err(|source| service_failed("unwrapping a key", &name, source))?
            }
            (Content::Malformed(reason), holder) if self.kind == kind_of(holder) => {
                return Ok(Attempt::Malformed(reason));
            }
            _ => return Ok(Attempt::OfAnotherKind),
        };
        Ok(opened.map_or(Attempt::Refused, Attempt::Opened))
    }
}

/// What a wrapped key is bound to.
fn binding(repository: RepositoryId, slot: SlotId) -> [u8; 24] {
    let mut bound = [0; 24];
    bound[..16].copy_from_slice(&repository.0);
    bound[16..].copy_from_slice(&slot.0);
    bound
}

/// The same, for a service.
fn context(repository: RepositoryId, slot: SlotId) -> String {
    format!("vsphere-backup repository {repository} slot {slot}")
}

/// Argon2id takes a tenth of a second and more: not on a thread of the runtime.
async fn password_cipher(password: &Secret, cost: PasswordCost, salt: [u8; SALT]) -> Result<Cipher> {
    let password = password.clone();
    let derived = thread::run("deriving a key", move || {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(&password.0, &salt, &mut *key)?;
        Ok(Cipher::new(&key))
    });
    let failed = |what: String| Error::invalid(format!("a key could not be derived from the password: {what}"));
    derived.await?.map_err(|error: argon2::Error| failed(error.to_string()))
}

fn key_file_cipher(content: &Secret, salt: &[u8; SALT]) -> Cipher {
    Cipher::derive(KEY_FILE_CONTEXT, salt, &[&content.0])
}

/// The cipher that a sender and a recipient agree on; both public keys take part.
fn recipient_cipher(
    own: &RecipientSecret,
    other: RecipientKey,
    ephemeral: RecipientKey,
    recipient: RecipientKey,
) -> Option<Cipher> {
    let shared = own.agree(other)?;
    Some(Cipher::derive(RECIPIENT_CONTEXT, &*shared, &[&ephemeral.0, &recipient.0]))
}

fn kind_of(holder: &Holder) -> &'static str {
    match holder {
        Holder::Password(_) => PASSWORD,
        Holder::KeyFile(_) => KEY_FILE,
        Holder::Recipient(_) => RECIPIENT,
        Holder::Service(_) => SERVICE,
    }
}

fn service_failed(operation: &'static str, service: &str, source: DiskError) -> Error {
    Error::KeyService { operation, service: service.into(), source }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argon2id {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Hex<SALT>,
    wrapped: Hex<WRAPPED>,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    salt: Hex<SALT>,
    wrapped: Hex<WRAPPED>,
}

#[derive(Serialize, Deserialize)]
struct Recipient {
    recipient: RecipientKey,
    ephemeral: RecipientKey,
    wrapped: Hex<WRAPPED>,
}

#[derive(Serialize, Deserialize)]
struct Service {
    service: String,
    wrapped: String,
}

/// Exactly `N` bytes, in hex.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (text, mut bytes) = (String::deserialize(deserializer)?, [0; N]);
        parse_hex(&text, &mut bytes).ok_or_else(|| D::Error::custom(format!("{} hex digits are expected", N * 2)))?;
        Ok(Self(bytes))
    }
}

pub(super) const PASSWORD: &str = "argon2id";
pub(super) const KEY_FILE: &str = "keyFile";
pub(super) const RECIPIENT: &str = "x25519";
pub(super) const SERVICE: &str = "service";

const KEY_FILE_CONTEXT: &str = "vsphere-backup 2026-11-22 format 1 key file slot";
const RECIPIENT_CONTEXT: &str = "vsphere-backup 2026-11-22 format 1 recipient slot";
const SALT: usize = 32;
/// The most that a service may give for a wrapped key, in bytes.
const MAX_SERVICE: usize = 16 << 10;
