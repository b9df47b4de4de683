//! What a server grants its clients.

use std::time::Duration;

/// Limits of a server. The most memory that clients can make it use is [`connections`](Self::connections) times
/// [`memory`](Self::memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NbdLimits {
    /// Connections at a time; others wait to be accepted. Default: 16.
    pub connections: u32,
    /// Requests in flight on a connection; others wait to be read. Default: 128.
    pub requests: u32,
    /// Bytes that a request may carry; clients are told. Default: 32 MiB, which clients take for granted that were not
    /// told.
    pub request_bytes: u32,
    /// Bytes of requests and replies in flight on a connection. Default: 64 MiB.
    pub memory: u32,
    /// Time for the whole negotiation. Default: 10 s.
    pub handshake: Duration,
    /// Time that requests under way have to finish when the server is stopped, and that a client that sends nothing more
    /// has to take its last replies. Default: 30 s.
    pub stop: Duration,
}

impl Default for NbdLimits {
    fn default() -> Self {
        Self {
            connections: 16,
            requests: 128,
            request_bytes: 32 << 20,
            memory: 64 << 20,
            handshake: Duration::from_secs(10),
            stop: Duration::from_secs(30),
        }
    }
}

impl NbdLimits {
    /// Sets how many connections there may be at a time.
    #[must_use]
    pub fn connections(self, connections: u32) -> Self {
        Self { connections, ..self }
    }

    /// Sets how many requests may be in flight on a connection.
    #[must_use]
    pub fn requests(self, requests: u32) -> Self {
        Self { requests, ..self }
    }

    /// Sets the bytes of a request, and of all requests and replies in flight on a connection.
    #[must_use]
    pub fn memory(self, request_bytes: u32, memory: u32) -> Self {
        Self { request_bytes, memory, ..self }
    }

    /// Sets the time for the negotiation.
    #[must_use]
    pub fn handshake(self, handshake: Duration) -> Self {
        Self { handshake, ..self }
    }

    /// Sets the time for requests under way when the server is stopped.
    #[must_use]
    pub fn stop(self, stop: Duration) -> Self {
        Self { stop, ..self }
    }

    /// The first thing that is wrong with the limits.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.connections == 0 || self.requests == 0 {
            return Err("there must be room for one connection and one request");
        }
        if self.request_bytes < LEAST_REQUEST {
            return Err("a request must be allowed to carry 64 KiB");
        }
        if self.memory < self.request_bytes {
            return Err("the memory of a connection must hold a request");
        }
        Ok(())
    }

    /// What clients are told about the most bytes of a request: whole blocks.
    pub(super) fn max_block(&self, alignment: u32) -> u32 {
        self.request_bytes - self.request_bytes % alignment.max(1)
    }
}

/// Unfragmented reads of this length have to be served, says the protocol.
const LEAST_REQUEST: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_nothing_fits_into_are_refused() {
        let good = NbdLimits::default();
        assert_eq!(good.check(), Ok(()));
        for bad in [good.connections(0), good.requests(0), good.memory(1 << 20, 1 << 19), good.memory(512, 1 << 20)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert_eq!(good.memory(100_000, 1 << 20).max_block(512), 99_840);
    }
}
