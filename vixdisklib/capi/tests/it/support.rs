//! The built library, and running programs with it.

use std::{
    env,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// The library that Cargo made for these tests: beside them, because they depend on it as an rlib.
pub(crate) fn library() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let library = tests.with_file_name("libvixDiskLib.so");
    assert!(library.is_file(), "{} is missing: cargo build -p vixdisklib-capi", library.display());
    library
}

/// A folder that has the library under the names that programs look for.
pub(crate) fn installed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libvixDiskLib.so.8", "libvixDiskLib.so"] {
        symlink(library(), folder.path().join(name)).unwrap();
    }
    folder
}

pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c")
}

/// How a program is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Plain,
    /// With AddressSanitizer, which looks for leaks too.
    Sanitized,
}

/// Compiles one of the programs in `tests/c` against the header, and links it with the library.
pub(crate) fn compile(name: &str, build: Build, lib: &Path, out: &Path) -> PathBuf {
    let program = out.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-I"]);
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    if build == Build::Sanitized {
        cc.args(["-fsanitize=address", "-fno-omit-frame-pointer"]);
    }
    cc.arg("-o")
        .arg(&program)
        .arg(sources().join(format!("{name}.c")))
        .arg("-L")
        .arg(lib)
        .args(["-lvixDiskLib", "-lpthread"]);
    succeed(&mut cc);
    program
}

/// Runs a program with the library in its search path.
pub(crate) fn run(program: &Path, lib: &Path, arguments: &[&str]) {
    let output = succeed(Command::new(program).args(arguments).env("LD_LIBRARY_PATH", lib));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok"), "{output:?}");
}

/// Runs a command that has to succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// Whether a program of others is there; a test without it says so and passes, unless `REQUIRE_PEERS` is set.
pub(crate) fn peer(what: &str, found: bool) -> bool {
    if !found {
        assert!(env::var_os("REQUIRE_PEERS").is_none(), "{what} is missing: run scripts/install-peers");
        eprintln!("SKIPPED: {what} is missing; run scripts/install-peers");
    }
    found
}
