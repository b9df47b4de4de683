//! pyVmomi, VMware's own client for Python, on the same bytes; in a process of its own that takes its own time.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;

/// The best time for making objects of these pages; `None` when there is no pyVmomi.
pub(super) fn time(pages: &[Bytes], machines: usize) -> Result<Option<Duration>, Box<dyn Error>> {
    let Some(python) = python() else { return Ok(None) };
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, ROUNDS]);
    for (at, page) in pages.iter().enumerate() {
        let path = folder.path().join(format!("{at}.xml"));
        std::fs::write(&path, page)?;
        command.arg(path);
    }
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let parsed = printed.trim().split_once(' ').and_then(|(count, seconds)| {
        let (count, seconds) = (count.parse::<usize>().ok()?, seconds.parse().ok()?);
        (count == machines).then_some(Duration::from_secs_f64(seconds))
    });
    let failed = || format!("pyVmomi did not read {machines} machines: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(parsed.ok_or_else(failed)?))
}

/// A Python that has pyVmomi: the one named, the one that `scripts/install-peers` makes, the system's.
fn python() -> Option<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/venv/bin/python");
    let named = std::env::var_os("PYVMOMI_PYTHON").map(PathBuf::from);
    named.into_iter().chain([installed.into(), "python3".into()]).find(|python| {
        let tried = Command::new(python).args(["-c", "import pyVmomi"]).output();
        tried.is_ok_and(|output| output.status.success())
    })
}

const SCRIPT: &str = include_str!("pyvmomi.py");
const ROUNDS: &str = "2";
