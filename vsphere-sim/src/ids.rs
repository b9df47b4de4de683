//! Random identifiers: UUIDs of sessions, tickets, VMs and tracking periods.

use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes.
///
/// Every id of the simulator comes from here, tickets and session keys included, so the source is the
/// operating system's.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system's random source does not fail once the process runs");
    bytes
}

/// A new random UUID, lower case with dashes.
pub(crate) fn uuid() -> String {
    uuid_from(random_bytes())
}

/// `bytes` as a version 4 UUID.
pub(crate) fn uuid_from(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The UUID that names `text`, the same in every run: a VM keeps its identity when a simulator is restarted.
pub(crate) fn uuid_of(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    uuid_from(bytes)
}
