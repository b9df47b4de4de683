//! What the tests ask of libvmdk, through its Python module.

use std::{path::Path, process::Command, sync::OnceLock};

use crate::support::{DEBIAN_PYTHON, module};

/// Fails unless libvmdk finds this content in the disk. It does not look for parents: the files of all links are
/// named, the disk itself first.
pub(crate) fn assert_is(dir: &Path, links: &[&str], content: &[u8]) {
    static HERE: OnceLock<bool> = OnceLock::new();
    if *HERE.get_or_init(|| module("pyvmdk")) {
        let read = read(dir, links).unwrap();
        assert_eq!(read.len(), content.len(), "{links:?}");
        let differs = read.iter().zip(content).position(|(read, right)| read != right);
        assert_eq!(differs, None, "{links:?}");
    }
}

/// All that libvmdk reads of the disk, or what it says.
pub(super) fn read(dir: &Path, links: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new(DEBIAN_PYTHON)
        .args(["-c", include_str!("libvmdk.py")])
        .args(links.iter().map(|link| dir.join(link)))
        .output()
        .unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}
