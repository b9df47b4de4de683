//! Programs of others.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// A peer program; says loudly when it is missing, and fails then if `REQUIRE_PEERS` is set.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("PEER MISSING: {name}. This test proves nothing; run scripts/install-peers");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "{name} is required");
    }
    found
}

/// Runs a program; what it printed, or the test fails with that.
pub(crate) fn run(program: &PathBuf, arguments: &[&str]) -> String {
    let (success, text) = outcome(program, arguments);
    assert!(success, "{program:?} {arguments:?}: {text}");
    text
}

/// Runs a program; whether it succeeded, and what it printed.
pub(crate) fn outcome(program: &PathBuf, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
