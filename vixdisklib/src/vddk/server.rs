//! Who VMware's library connects to: it logs in by itself.

use vixdisklib_sys::load::{ConnectSpec, Login, Object};

use crate::machine::Machine;

/// The server that VMware's library connects to, the thumbprint that it trusts, and as whom.
///
/// On Linux the library checks no chain of certificates: the thumbprint is all the trust there is, so it has to be
/// stated.
#[derive(Debug, Clone)]
#[must_use]
pub struct Server {
    thumbprint: String,
    own: Option<(String, Login)>,
    ports: Option<(u16, u16)>,
}

impl Server {
    /// The server and the session of the connection's [`Vim`](vsphere_vim::Vim), with the SHA-1 thumbprint of its
    /// certificate in hexadecimal with colons.
    ///
    /// The library shares the session by its cookie; logging the session out ends the library's access too.
    pub fn of_session(thumbprint: impl Into<String>) -> Self {
        Self { thumbprint: thumbprint.into(), own: None, ports: None }
    }

    /// A server and a login of the library's own.
    pub fn new(name: impl Into<String>, thumbprint: impl Into<String>, login: Login) -> Self {
        Self { thumbprint: thumbprint.into(), own: Some((name.into(), login)), ports: None }
    }

    /// The ports of the management service and of NFC; 0 is the usual one. Without this, they are 0, or those of the
    /// session.
    #[doc(alias = "nfcHostPort")]
    pub fn ports(self, port: u16, nfc_port: u16) -> Self {
        Self { ports: Some((port, nfc_port)), ..self }
    }

    /// What the library needs to connect; `None` when there is no session to take it from.
    pub(crate) fn spec(&self, machine: Option<&Machine>) -> Option<ConnectSpec> {
        let (spec, usual) = match (&self.own, machine) {
            (Some((name, login)), _) => (ConnectSpec::server(name, login.clone()), (0, 0)),
            (None, Some(machine)) => {
                let endpoint = machine.vim.endpoint();
                // Read anew each time: it changes with every login.
                let cookie = machine.vim.session_cookie()?;
                let cookie = String::from(cookie.expose()).into();
                let login = Login::Session { cookie, user: None, key: None };
                (ConnectSpec::server(endpoint.host(), login), (endpoint.port(), 0))
            }
            (None, None) => return None,
        };
        let (port, nfc_port) = self.ports.unwrap_or(usual);
        let spec = spec.thumbprint(&self.thumbprint).ports(port, nfc_port);
        let Some(machine) = machine else { return Some(spec) };
        let spec = spec.object(Object::Vm(format!("moref={}", machine.vm.value())));
        Some(match &machine.snapshot {
            Some(snapshot) => spec.snapshot(snapshot.value()),
            None => spec,
        })
    }
}
