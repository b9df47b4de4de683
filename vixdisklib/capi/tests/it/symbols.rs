//! What the library exports, and under which name.

use std::process::Command;

use crate::support::{library, succeed};

#[test]
fn exactly_the_documented_functions_are_exported() {
    let output = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut exported: Vec<_> = text.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    let mut documented: Vec<_> = vixdisklib_sys::FUNCTIONS.iter().map(|function| function.symbol).collect();
    exported.sort_unstable();
    documented.sort_unstable();
    assert_eq!(exported, documented);
}

#[test]
fn the_library_bears_the_name_that_programs_are_linked_to() {
    let output = succeed(Command::new("readelf").arg("-d").arg(library()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Library soname: [libvixDiskLib.so.8]"), "{text}");
    let needed = text.lines().filter(|line| line.contains("NEEDED"));
    for line in needed {
        // Nothing that a program could have in another version: no libssl, no libstdc++.
        let of_the_system = ["libc.so", "libm.so", "libgcc_s.so", "ld-linux"];
        assert!(of_the_system.iter().any(|name| line.contains(name)), "{line}");
    }
}
