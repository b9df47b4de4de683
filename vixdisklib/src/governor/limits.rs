//! What a governor keeps to, and what it counts.

/// Limits of a [`Governor`](crate::Governor). The defaults are those that VMware documents for hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GovernorLimits {
    /// Disks open at a time on one host. Default: 50.
    pub disks_per_host: u32,
    /// Disks open at a time through one vCenter; each has a connection of its own. Default: 52.
    pub disks_per_vcenter: u32,
    /// Bytes of the session buffers of all disks of a host. Default: 48 MiB, `maxMemory` of hosts before 8.0. A disk
    /// that asks for more than all of it is opened alone.
    pub memory_per_host: u64,
    /// Requests over HTTPS under way at a time at one host, each with a connection of its own; vCenter is a host here
    /// when it passes the bytes on. No limit of hosts is documented: the default, 32, is four disks as they are by
    /// default.
    pub connections_per_host: u32,
    /// Bytes of all disks under way at a time, more than that only for a single request. What is above waits for its
    /// turn, so this is what turns are about. Default: 64 MiB.
    pub bytes_in_flight: u64,
    /// Bytes per second of all disks. Default: no limit.
    pub rate: Option<u64>,
    /// Bytes per second of the disks of each host. Default: no limit.
    pub rate_per_host: Option<u64>,
}

impl Default for GovernorLimits {
    fn default() -> Self {
        Self {
            disks_per_host: 50,
            disks_per_vcenter: 52,
            memory_per_host: 48 << 20,
            connections_per_host: 32,
            bytes_in_flight: 64 << 20,
            rate: None,
            rate_per_host: None,
        }
    }
}

impl GovernorLimits {
    /// Sets how many disks may be open at a time, on one host and through one vCenter. At least one may.
    #[must_use]
    pub fn disks(self, per_host: u32, per_vcenter: u32) -> Self {
        Self { disks_per_host: per_host, disks_per_vcenter: per_vcenter, ..self }
    }

    /// Sets the bytes of session buffers on a host.
    #[must_use]
    pub fn memory_per_host(self, memory_per_host: u64) -> Self {
        Self { memory_per_host, ..self }
    }

    /// Sets how many requests over HTTPS may be under way at one host. At least one may.
    #[must_use]
    pub fn connections_per_host(self, connections_per_host: u32) -> Self {
        Self { connections_per_host, ..self }
    }

    /// Sets the bytes under way at a time.
    #[must_use]
    pub fn bytes_in_flight(self, bytes_in_flight: u64) -> Self {
        Self { bytes_in_flight, ..self }
    }

    /// Sets the bytes per second of all disks. A rate of 0 counts as 1.
    #[must_use]
    pub fn rate(self, rate: u64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Sets the bytes per second of the disks of each host. A rate of 0 counts as 1.
    #[must_use]
    pub fn rate_per_host(self, rate: u64) -> Self {
        Self { rate_per_host: Some(rate), ..self }
    }
}

/// What a [`Governor`](crate::Governor) has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GovernorUsage {
    /// Disks that have a place: those over NFC.
    pub disks: usize,
    /// Disks that wait for one.
    pub waiting_disks: usize,
    /// Bytes of reads and writes under way.
    pub bytes_in_flight: u64,
    /// Reads and writes that wait for their turn.
    pub waiting_requests: usize,
}
