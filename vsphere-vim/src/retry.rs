//! When a call is tried again, and how long to wait before it.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::TransportError;

/// How failures of the network are met.
///
/// A call of which nothing was sent is always repeated. A call that the server may have seen is repeated only when
/// repeating is harmless: reads, never a snapshot or a power operation. Refusals by the server are not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Tries altogether. 8, which outlasts a service restart of half a minute.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each further one. 500 ms.
    pub base: Duration,
    /// The longest wait between two tries. 15 s.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 8, base: Duration::from_millis(500), cap: Duration::from_secs(15) }
    }
}

impl RetryPolicy {
    /// Every failure is reported at once.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// Sets the number of tries.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Sets the first and the longest wait.
    #[must_use]
    pub fn back_off(self, base: Duration, cap: Duration) -> Self {
        Self { base, cap, ..self }
    }

    /// The wait before the next try, or `None` when the error is to be reported.
    pub(crate) fn delay(&self, tries: u32, error: &TransportError, idempotent: bool) -> Option<Duration> {
        let harmless = idempotent || !error.was_sent();
        (harmless && error.is_retryable() && tries < self.attempts).then(|| self.wait(tries, jitter()))
    }

    /// Exponential, capped, and shortened by up to a half so that many clients do not come back in step.
    fn wait(&self, tries: u32, jitter: u8) -> Duration {
        let doubled = self.base.saturating_mul(1_u32 << tries.saturating_sub(1).min(20));
        let full = doubled.min(self.cap);
        full / 2 + (full / 2).mul_f32(f32::from(jitter) / 255.0)
    }
}

fn jitter() -> u8 {
    let mut byte = [128];
    // Without random numbers the middle is as good.
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

/// True for methods that change nothing on the server, or nothing more when repeated.
///
/// The public model does not say so; VMware's names do. A new ticket that nobody redeems simply expires.
pub(crate) fn is_harmless_to_repeat(method: &str) -> bool {
    const PREFIXES: [&str; 6] = ["Retrieve", "Query", "Find", "List", "Fetch", "HasPrivilege"];
    const NAMES: [&str; 20] = [
        "AcquireGenericServiceTicket",
        "CancelRetrievePropertiesEx",
        "CancelTask",
        "CancelWaitForUpdates",
        "CheckForUpdates",
        "CurrentTime",
        "EstimateStorageForConsolidateSnapshots_Task",
        "HasUserPrivilegeOnEntities",
        "HostVStorageObjectRetrieveSnapshotInfo",
        "HttpNfcLeaseGetManifest",
        "HttpNfcLeaseProgress",
        "NfcGetServerNfcLibVersion",
        "NfcGetVmFiles",
        "NfcRandomAccessOpenDisk",
        "NfcRandomAccessOpenReadonly",
        "SessionIsActive",
        "ValidateHost",
        "VstorageObjectVCenterQueryChangedDiskAreas",
        "WaitForUpdates",
        "WaitForUpdatesEx",
    ];
    // Services beside the main one, and ESXi's own variants, put their name before the usual ones.
    let usual = method.strip_prefix("Vslm").or_else(|| method.strip_prefix("Host")).unwrap_or(method);
    NAMES.contains(&method) || (PREFIXES.iter().any(|prefix| usual.starts_with(prefix)) && !method.ends_with("_Task"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TransportErrorKind;

    fn error(kind: TransportErrorKind) -> TransportError {
        TransportError::new(kind, "test")
    }

    #[test]
    fn waits_double_up_to_the_cap_and_vary_by_a_half() {
        let policy = RetryPolicy::default().back_off(Duration::from_secs(1), Duration::from_secs(4));
        let waits: Vec<_> = (1..6).map(|tries| policy.wait(tries, 255).as_secs_f32()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 4.0, 4.0]);
        assert_eq!(policy.wait(1, 0).as_secs_f32(), 0.5);
        assert!(policy.wait(u32::MAX, 255) <= Duration::from_secs(4));
    }

    #[test]
    fn a_call_that_may_have_happened_is_repeated_only_when_harmless() {
        let policy = RetryPolicy::default();
        assert!(policy.delay(1, &error(TransportErrorKind::Disconnected), false).is_none());
        assert!(policy.delay(1, &error(TransportErrorKind::Disconnected), true).is_some());
        assert!(policy.delay(1, &error(TransportErrorKind::Connect).not_sent(), false).is_some());
        assert!(policy.delay(8, &error(TransportErrorKind::Disconnected), true).is_none());
    }

    #[test]
    fn distrust_is_never_tried_again() {
        assert!(RetryPolicy::default().delay(1, &error(TransportErrorKind::Untrusted).not_sent(), true).is_none());
    }

    #[test]
    fn changing_methods_are_not_harmless() {
        for method in [
            "CreateSnapshot_Task",
            "PowerOffVM_Task",
            "Login",
            "Logout",
            "CreateContainerView",
            "CreateFilter",
            "ContinueRetrievePropertiesEx",
            "DisableMethods",
            "HostCreateDisk_Task",
            "VslmRegisterDisk",
            "ReadNextEvents",
        ] {
            assert!(!is_harmless_to_repeat(method), "{method}");
        }
        for method in [
            "RetrievePropertiesEx",
            "QueryChangedDiskAreas",
            "FindByUuid",
            "WaitForUpdatesEx",
            "VslmQueryInfo",
            "HostListVStorageObject",
        ] {
            assert!(is_harmless_to_repeat(method), "{method}");
        }
    }
}
