//! A program that declares the interface itself, in Python, from the documented layout.

use std::{path::Path, process::Command};

use vmdk::{CreateKind, CreateSpec, create};

use crate::support::{installed, peer, succeed};

#[test]
fn ctypes_loads_the_library_with_declarations_of_its_own() {
    if !peer("python3", Command::new("python3").arg("--version").output().is_ok()) {
        return;
    }
    let (lib, folder) = (installed(), tempfile::tempdir().unwrap());
    let path = folder.path().join("disk.vmdk");
    let disk = create(&path, &CreateSpec::new(32 << 20, CreateKind::MonolithicSparse)).unwrap();
    disk.write_at(1 << 20, &[5; 512]).unwrap();
    disk.close().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/consumer.py");
    let mut python = Command::new("python3");
    let output = succeed(python.arg(script).arg(lib.path().join("libvixDiskLib.so.8")).arg(&path));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
}
