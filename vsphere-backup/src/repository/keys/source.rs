//! What people and machines hold: passwords, key files, recipients' keys, key services.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    error::{DiskError, Error, Result},
    repository::{
        id::{RecipientKey, random},
        storage::BoxFuture,
    },
};

/// A secret of 32 bytes, zeroed when it is dropped and never shown.
#[derive(Clone)]
pub struct SecretKey(Box<Zeroizing<[u8; Self::LEN]>>);

impl SecretKey {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// Wraps a secret.
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let mut boxed = Box::new(Zeroizing::new([0; Self::LEN]));
        boxed.copy_from_slice(&*bytes);
        Self(boxed)
    }

    /// Makes a random secret.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn generate() -> Result<Self> {
        Ok(Self::new(random()?))
    }

    /// Returns the bytes.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// A way to open a repository, as it is made: each becomes one slot.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeySource {
    pub(super) label: String,
    pub(super) way: Way,
}

#[derive(Clone, Debug)]
pub(super) enum Way {
    Password { secret: Secret, cost: PasswordCost },
    KeyFile(Secret),
    Recipient(RecipientKey),
    Service(Arc<dyn KeyService>),
}

impl KeySource {
    /// Opens by a password, made slow to guess by Argon2id.
    pub fn password(password: impl Into<Vec<u8>>) -> Self {
        Self::of(Way::Password { secret: Secret::new(password.into()), cost: PasswordCost::default() })
    }

    /// Opens by the content of a key file: at least 32 bytes, which must be random.
    pub fn key_file(content: impl Into<Vec<u8>>) -> Self {
        Self::of(Way::KeyFile(Secret::new(content.into())))
    }

    /// Opens by the secret that belongs to a recipient's public key. Who makes the slot need not know it.
    pub fn recipient(key: RecipientKey) -> Self {
        Self::of(Way::Recipient(key))
    }

    /// Opens by a key service.
    pub fn service(service: Arc<dyn KeyService>) -> Self {
        Self::of(Way::Service(service))
    }

    /// Names the slot for people.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets how costly a password is to try; changes nothing for other kinds.
    pub fn cost(mut self, cost: PasswordCost) -> Self {
        if let Way::Password { cost: old, .. } = &mut self.way {
            *old = cost;
        }
        self
    }

    fn of(way: Way) -> Self {
        Self { label: String::new(), way }
    }

    /// Refuses what would be no protection or cannot be stored.
    pub(super) fn check(&self) -> Result<()> {
        let short = match &self.way {
            Way::Password { secret, .. } => secret.0.is_empty().then_some("a password must not be empty"),
            Way::KeyFile(content) => {
                (content.0.len() < MIN_KEY_FILE).then_some("a key file must hold at least 32 random bytes")
            }
            _ => None,
        };
        match short {
            Some(what) => Err(Error::invalid(what)),
            None if self.label.len() > MAX_LABEL => {
                Err(Error::invalid("the label of a key slot has at most 256 bytes"))
            }
            None => Ok(()),
        }
    }

    /// Returns what opens the slot, where that is known here.
    pub(super) fn unlock(&self) -> Option<Unlock> {
        match &self.way {
            Way::Password { secret, .. } => Some(Unlock(Holder::Password(secret.clone()))),
            Way::KeyFile(content) => Some(Unlock(Holder::KeyFile(content.clone()))),
            Way::Recipient(_) => None,
            Way::Service(service) => Some(Unlock(Holder::Service(service.clone()))),
        }
    }
}

/// What opens an encrypted repository. Kept in memory while the repository is open, so that keys which others rotate
/// meanwhile can be had; zeroed afterwards.
#[derive(Clone, Debug)]
pub struct Unlock(pub(super) Holder);

#[derive(Clone, Debug)]
pub(super) enum Holder {
    Password(Secret),
    KeyFile(Secret),
    Recipient(Box<RecipientSecret>),
    Service(Arc<dyn KeyService>),
}

impl Unlock {
    /// Opens by a password.
    pub fn password(password: impl Into<Vec<u8>>) -> Self {
        Self(Holder::Password(Secret::new(password.into())))
    }

    /// Opens by the content of a key file.
    pub fn key_file(content: impl Into<Vec<u8>>) -> Self {
        Self(Holder::KeyFile(Secret::new(content.into())))
    }

    /// Opens by a recipient's secret.
    pub fn recipient(secret: RecipientSecret) -> Self {
        Self(Holder::Recipient(Box::new(secret)))
    }

    /// Opens by a key service.
    pub fn service(service: Arc<dyn KeyService>) -> Self {
        Self(Holder::Service(service))
    }

    /// Returns the kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.0 {
            Holder::Password(_) => "password",
            Holder::KeyFile(_) => "key file",
            Holder::Recipient(_) => "recipient",
            Holder::Service(_) => "key service",
        }
    }
}

/// The X25519 secret of a recipient, zeroed when it is dropped.
#[derive(Clone)]
pub struct RecipientSecret(StaticSecret);

impl RecipientSecret {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the operating system has no random numbers.
    pub fn generate() -> Result<Self> {
        Ok(Self::new(&SecretKey::generate()?))
    }

    /// Takes a stored one.
    pub fn new(secret: &SecretKey) -> Self {
        Self(StaticSecret::from(*secret.expose()))
    }

    /// Returns the secret, to be stored in a safe place.
    pub fn secret(&self) -> SecretKey {
        SecretKey::new(self.0.to_bytes())
    }

    /// Returns the public key, which may be known to anybody.
    pub fn public(&self) -> RecipientKey {
        RecipientKey(PublicKey::from(&self.0).to_bytes())
    }

    /// Agrees on a secret with the holder of the other key; `None` when that key is one that gives the same secret to
    /// everybody.
    pub(super) fn agree(&self, other: RecipientKey) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(other.0));
        shared.was_contributory().then(|| Zeroizing::new(*shared.as_bytes()))
    }
}

impl fmt::Debug for RecipientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientSecret(of {})", self.public())
    }
}

/// A key management service of a vendor: it wraps a repository's key and unwraps it again.
///
/// It is asked when a slot is made and when a repository is opened, never for data.
pub trait KeyService: fmt::Debug + Send + Sync + 'static {
    /// Returns the name that the slot is stored under; a repository may have slots of several services and of several
    /// keys of one.
    fn name(&self) -> &str;

    /// Wraps a key. `context` is bound to it where the service can do that: it says for which repository and slot.
    ///
    /// # Errors
    /// What the service says; whether a retry can help is passed on.
    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a str) -> BoxFuture<'a, Result<Bytes, DiskError>>;

    /// Unwraps a key; `None` when the service knows it but refuses: the wrapped bytes are not its own.
    ///
    /// # Errors
    /// What the service says.
    fn unwrap<'a>(&'a self, wrapped: &'a [u8], context: &'a str)
    -> BoxFuture<'a, Result<Option<SecretKey>, DiskError>>;
}

/// How costly it is to try a password (Argon2id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl Default for PasswordCost {
    /// 64 MiB, 3 passes, 4 lanes: the second recommendation of RFC 9106, section 4.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl PasswordCost {
    /// Sets memory in KiB (8 a lane to 1 GiB), passes (1 to 64) and lanes (1 to 64).
    ///
    /// # Errors
    /// [`Error::Invalid`] when one is out of its range.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let cost = Self { memory_kib, passes, lanes };
        if cost.is_sound() {
            Ok(cost)
        } else {
            Err(Error::invalid(format!(
                "a password cannot cost {memory_kib} KiB, {passes} passes and {lanes} lanes: 8 KiB a lane to 1 GiB, 1 to 64 passes, 1 to 64 lanes"
            )))
        }
    }

    /// Tells whether the figures are in their ranges: a slot that was read must not take all of the memory.
    pub(super) fn is_sound(self) -> bool {
        (1..=64).contains(&self.lanes)
            && (1..=64).contains(&self.passes)
            && (8 * self.lanes..=1 << 20).contains(&self.memory_kib)
    }
}

/// Secret bytes of any length.
#[derive(Clone)]
pub(super) struct Secret(pub(super) Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

const MIN_KEY_FILE: usize = 32;
const MAX_LABEL: usize = 256;
