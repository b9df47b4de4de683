//! VMware's own Python client against the simulator as a program.

use std::process::Command;

#[test]
fn pyvmomi_works_with_the_standalone_simulator() {
    let present =
        Command::new("python3").args(["-c", "import pyVmomi"]).output().is_ok_and(|output| output.status.success());
    if !present {
        eprintln!("PEER MISSING: python3 with pyVmomi (pip install pyvmomi); not tested against it");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none_or(|value| value != "1"), "REQUIRE_PEERS=1 and no pyVmomi");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyvmomi/test_simulator.py");
    let output = Command::new("python3").args([script, env!("CARGO_BIN_EXE_vsphere-sim")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.lines().filter(|line| line.starts_with("ok ")).count() >= 30, "{text}");
}
