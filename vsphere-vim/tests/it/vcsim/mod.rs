//! The client against vcsim, govmomi's simulator: a server that none of us wrote.
//!
//! `scripts/install-peers` builds it. It knows no changed blocks and keeps no disk contents; what it does know it
//! learned from real servers' answers.

mod alarms;
mod events;
mod export;
mod fcd;
mod files;
mod machines;
mod properties;
mod session;
mod sessions;

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use vsphere_vim::{Credentials, Thumbprint, Vim, VimBuilder};

/// A running vcsim; it ends with the value.
pub(crate) struct Vcsim {
    child: Child,
    pub(crate) url: String,
    pub(crate) thumbprint: Thumbprint,
    pub(crate) user: String,
    pub(crate) password: String,
    /// The port of the tunnel for extensions, with the option `-tunnel`.
    pub(crate) tunnel: u16,
}

impl Vcsim {
    /// Starts one with options of `scripts/vcsim/main.go`; `None`, loudly, where it is not installed.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let installed = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/vcsim"));
        let program = std::env::var_os("VCSIM").map_or(installed, PathBuf::from);
        if !program.exists() {
            eprintln!("PEER MISSING: vcsim. This test proves nothing; run scripts/install-peers");
            assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "vcsim is required");
            return None;
        }
        let mut child = Command::new(program)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It logs every refused call.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
        let value = |name: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("vcsim did not say its {name}: {lines:?}")).to_owned()
        };
        Some(Self {
            url: value("url"),
            thumbprint: value("thumbprint").parse().unwrap(),
            user: value("user"),
            password: value("password"),
            tunnel: value("tunnel").parse().unwrap(),
            child,
        })
    }

    /// A connection that trusts it and does not know yet who logs in.
    pub(crate) fn builder(&self) -> VimBuilder {
        Vim::builder(&self.url).thumbprint(self.thumbprint)
    }

    /// Its own account.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::password(&self.user, self.password.as_str())
    }

    /// Logged in.
    pub(crate) async fn connect(&self) -> Vim {
        self.builder().credentials(self.credentials()).connect().await.unwrap()
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
