//! An S3 server of others: moto's, in a process of its own, with the bucket [`BUCKET`].

use std::{
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The bucket that the server begins with.
pub(crate) const BUCKET: &str = "backups";

/// The server, ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    /// On the local host; plain HTTP.
    pub(crate) port: u16,
}

impl Server {
    /// Starts the server; `None`, said loudly, when it is not installed.
    ///
    /// # Errors
    /// When it does not start; and when it is not installed while `REQUIRE_PEERS` is set.
    pub(crate) fn start() -> io::Result<Option<Self>> {
        // Of the workspace, whichever package this is compiled for.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package is in the workspace");
        let venv = root.join("target/peers/venv/bin/python");
        let pythons = [std::env::var_os("PYVMOMI_PYTHON").map(PathBuf::from), Some(venv), Some("python3".into())];
        let has_moto = |python: &PathBuf| {
            let imported =
                Command::new(python).args(["-c", "import moto.server, werkzeug"]).stderr(Stdio::null()).status();
            imported.is_ok_and(|status| status.success())
        };
        let Some(python) = pythons.into_iter().flatten().find(has_moto) else {
            let missing = "no Python has moto[server]: run scripts/install-peers";
            if std::env::var_os("REQUIRE_PEERS").is_some() {
                return Err(io::Error::other(missing));
            }
            eprintln!("NOT RUN: {missing}");
            return Ok(None);
        };
        let script = root.join("vsphere-backup/tests/s3/server.py");
        let mut process = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let printed = process.stdout.take().expect("it is piped");
        BufReader::new(printed).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| io::Error::other("the server prints its port first"));
        Ok(Some(Self { port: port?, process }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
