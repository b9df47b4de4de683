//! A client that is logged in to a simulator, for tests of several transports.

use std::time::Duration;

use vsphere_sim::Simulator;
use vsphere_vim::{Credentials, MoRef, RetryPolicy, Vim, mo};

/// Logs in; what fails is tried a few times, soon.
pub(crate) async fn connect(sim: &Simulator) -> Vim {
    let retry = RetryPolicy::default().attempts(4).back_off(Duration::from_millis(1), Duration::from_millis(5));
    let credentials = Credentials::password(sim.username(), sim.password());
    let builder = Vim::builder(sim.url()).credentials(credentials).retry(retry);
    builder.thumbprint(sim.thumbprint_sha256().parse().unwrap()).connect().await.unwrap()
}

/// The machine of that name.
pub(crate) fn machine(sim: &Simulator, name: &str) -> MoRef<mo::VirtualMachine> {
    MoRef::new(sim.vm(name).unwrap().id())
}

/// Logs out and checks that nothing is left on the server, which notices the end of a connection a moment after it.
pub(crate) async fn close(vim: Vim, sim: Simulator) {
    vim.logout().await.unwrap();
    let left = sim.settled(Duration::from_secs(3)).await;
    assert!(left.is_clean(), "{left}");
    sim.shutdown().await;
}

/// A small generator: tests must repeat.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for eight in bytes.chunks_mut(8) {
            eight.copy_from_slice(&self.next().to_le_bytes()[..eight.len()]);
        }
        bytes
    }
}
