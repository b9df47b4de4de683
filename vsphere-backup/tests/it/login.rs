//! Logins to a simulated server, which processes and runtimes of their own can be given.

use vsphere_sim::Simulator;
use vsphere_vim::{Credentials, Thumbprint, Vim};

/// What another process needs to connect.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) pin: Thumbprint,
}

impl Login {
    pub(crate) async fn connect(&self) -> Vim {
        Vim::builder(self.url.as_str())
            .credentials(Credentials::password(self.user.as_str(), self.password.as_str()))
            .thumbprint(self.pin)
            .connect()
            .await
            .unwrap()
    }
}

pub(crate) fn login(sim: &Simulator) -> Login {
    Login {
        url: sim.url(),
        user: sim.username().to_owned(),
        password: sim.password().to_owned(),
        pin: sim.thumbprint_sha256().parse().unwrap(),
    }
}
