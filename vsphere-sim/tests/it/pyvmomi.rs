//! VMware's own Python client against the simulator as a program.

use std::path::PathBuf;
use std::process::Command;

/// A Python that has pyVmomi: the one named, the one that `scripts/install-peers` makes, the system's.
fn python() -> Option<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/venv/bin/python");
    let named = std::env::var_os("PYVMOMI_PYTHON").map(PathBuf::from);
    let mut all = named.into_iter().chain([installed.into(), "python3".into()]);
    let has_it = |python: &PathBuf| {
        Command::new(python).args(["-c", "import pyVmomi"]).output().is_ok_and(|output| output.status.success())
    };

    all.find(has_it)
}

#[test]
fn pyvmomi_works_with_the_standalone_simulator() {
    let Some(python) = python() else {
        eprintln!("PEER MISSING: python3 with pyVmomi. This test proves nothing; run scripts/install-peers");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "pyVmomi is required");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyvmomi/test_simulator.py");
    let output = Command::new(python).args([script, env!("CARGO_BIN_EXE_vsphere-sim")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.lines().filter(|line| line.starts_with("ok ")).count() >= 30, "{text}");
}
