//! Programs of others that make file systems, and this system's own drivers for them.
#![allow(dead_code)] // Each reader takes what it needs.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A peer program; says loudly when it is missing, and fails then if `REQUIRE_PEERS` is set.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/sbin".into(), "/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        missing(name);
    }
    found
}

/// Says that a test proves nothing for want of something; fails if `REQUIRE_PEERS` is set.
pub(crate) fn missing(what: &str) {
    eprintln!("PEER MISSING: {what}. This test proves nothing; run scripts/install-peers");
    assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "{what} is required");
}

/// Runs a program; what it printed, or the test fails with that.
pub(crate) fn run(program: impl AsRef<OsStr>, arguments: &[&dyn AsRef<OsStr>]) -> String {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// An image that this system's kernel has mounted, until this is dropped. For what only a kernel can make (dirty
/// journals) and as a second source of truth; a test needs another way as well to prove its reader without one.
pub(crate) struct Mount {
    point: TempDir,
}

impl Mount {
    /// Mounts `image` with `options` besides `loop`. `None` where this system cannot: no rights, no loop devices, no
    /// such driver. That is said, and is a failure only with `REQUIRE_MOUNTS` set.
    pub(crate) fn new(image: &Path, options: &str) -> Option<Self> {
        let point = tempfile::tempdir().unwrap();
        let options = if options.is_empty() { "loop".into() } else { format!("loop,{options}") };
        let mut command = Command::new("mount");
        command.arg("-o").arg(options).arg(image).arg(point.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            return Some(Self { point });
        }
        let text = String::from_utf8_lossy(&output.stderr);
        eprintln!("CANNOT MOUNT {}: {}. This test proves nothing", image.display(), text.trim());
        assert!(std::env::var_os("REQUIRE_MOUNTS").is_none(), "mounts are required");
        None
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.point.path()).status();
        if !done.is_ok_and(|status| status.success()) {
            drop(Command::new("umount").arg("-l").arg(self.point.path()).status());
        }
    }
}

/// Tries a volume in use until something of it is in its journal alone, without which nothing would be proved: a slow
/// machine's kernel may write all back before the copy is made.
pub(crate) fn assert_in_flight(arguments: &[&str], try_it: impl Fn() -> Option<bool>) {
    let mut tries = (0..5).map_while(|_| try_it()).peekable();
    if tries.peek().is_some() {
        assert!(tries.any(|in_flight| in_flight), "{arguments:?}: all was in its place already");
    }
}

/// Brings everything into the journal, and nothing into its place: what `sync` would do too.
pub(crate) fn sync(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            sync(&entry.path());
        } else if kind.is_file() {
            std::fs::File::open(entry.path()).unwrap().sync_all().unwrap();
        }
    }
    std::fs::File::open(folder).unwrap().sync_all().unwrap();
}
