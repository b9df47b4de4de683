//! What was learnt about hosts: where on the ladder a session starts.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ladder::Rung;
use crate::ticket::ServerVersion;

/// What connections learn about hosts and tell later ones, so that a host that refuses the first
/// way of starting a session is not asked in vain, with a ticket each, for every disk.
///
/// Clones share what they know; [`NfcOptions`](crate::NfcOptions) has one. Everything is forgotten
/// after an hour: a host may be upgraded.
#[derive(Clone, Default)]
pub struct NfcHosts(Arc<Mutex<HashMap<Arc<str>, Known>>>);

/// What is known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// What the ticket source said.
    pub(crate) version: ServerVersion,
    /// The rung that worked.
    pub(crate) rung: Option<Rung>,
    /// TLS needed SHA-1 signatures.
    pub(crate) legacy_tls: bool,
    since: Instant,
}

impl NfcHosts {
    /// A memory of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The rung that the latest session with `host:port` started on, if that was not long ago.
    pub fn rung(&self, endpoint: &str) -> Option<Rung> {
        self.known(endpoint).and_then(|known| known.rung)
    }

    pub(crate) fn known(&self, endpoint: &str) -> Option<Known> {
        self.lock().get(endpoint).copied().filter(|known| known.since.elapsed() < MEMORY)
    }

    pub(crate) fn learn(&self, endpoint: &Arc<str>, learn: impl FnOnce(&mut Known)) {
        let mut hosts = self.lock();
        let fresh = Known { version: ServerVersion::Unknown, rung: None, legacy_tls: false, since: Instant::now() };
        let known = hosts.entry(Arc::clone(endpoint)).or_insert(fresh);
        if known.since.elapsed() >= MEMORY {
            *known = fresh;
        }
        learn(known);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for NfcHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.lock().iter()).finish()
    }
}

/// How long something is remembered.
const MEMORY: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_was_learnt_and_other_hosts_are_not_concerned() {
        let hosts = NfcHosts::new();
        let other = hosts.clone();
        hosts.learn(&"esx1:902".into(), |known| known.rung = Some(Rung::Synchronous));
        assert_eq!(other.rung("esx1:902"), Some(Rung::Synchronous));
        assert_eq!(other.rung("esx2:902"), None);
        other.clear();
        assert_eq!(hosts.rung("esx1:902"), None);
    }
}
