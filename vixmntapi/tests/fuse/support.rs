//! Mounts for tests.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use vixmntapi::{
    fs::FileSystem,
    fuse::{FuseMount, FuseMountBuilder},
};

use crate::{
    disks::raw,
    peers::{Mount, missing, peer, run},
};

/// Something mounted in a temporary folder. The mount goes first.
pub(crate) struct Mounted {
    pub(crate) mount: FuseMount,
    _folder: TempDir,
}

impl Mounted {
    /// Mounts; `None` where this computer cannot, which is said.
    pub(crate) fn new(builder: FuseMountBuilder) -> Option<Self> {
        can_mount().then(|| {
            let folder = tempfile::tempdir().unwrap();
            Self { mount: builder.at(folder.path()).unwrap(), _folder: folder }
        })
    }

    pub(crate) fn of(files: Arc<dyn FileSystem>) -> Option<Self> {
        Self::new(FuseMount::of_files(files))
    }

    pub(crate) fn path(&self) -> &Path {
        self.mount.folder()
    }
}

/// Whether there is FUSE at all.
pub(crate) fn can_mount() -> bool {
    let is_there = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !is_there {
        missing("/dev/fuse");
    }
    is_there
}

/// An image that the kernel's driver filled, and what that driver says of it.
pub(crate) struct Filled<T> {
    pub(crate) image: PathBuf,
    pub(crate) said: T,
    _folder: TempDir,
}

impl<T> Filled<T> {
    /// Formats an image, fills it with a tree, and asks its kernel about it. `None` where that cannot be.
    pub(crate) fn new(format: &[&str], tree: &Path, ask: impl FnOnce(&Path) -> T) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let mut command = Command::new(peer(format[0])?);
        command.args(&format[1..]).arg(&image).stdin(Stdio::null());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let mount = Mount::new(&image, "")?;
        run("cp", &[&"-a", &"--sparse=always", &tree.join("."), &mount.path()]);
        drop(mount);
        let mount = Mount::new(&image, "ro")?;
        let said = ask(mount.path());
        drop(mount);
        Some(Self { image, said, _folder: folder })
    }

    pub(crate) fn files(&self) -> Arc<dyn FileSystem> {
        vixmntapi::fs::open(&raw(&self.image)).unwrap().unwrap()
    }
}

/// Runs a program in a folder; what it printed, or the test fails with that.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    output.stdout
}

/// The parts of what a program printed, sorted, and those that are in one only.
pub(crate) fn assert_same_parts(what: &str, ours: &[u8], theirs: &[u8], end: u8) {
    let parts = |text: &[u8]| {
        let mut parts: Vec<_> = text.split(|byte| *byte == end).map(|part| part.escape_ascii().to_string()).collect();
        parts.sort();
        parts
    };
    let (ours, theirs) = (parts(ours), parts(theirs));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|part| those.binary_search(part).is_err()).take(5).cloned().collect::<Vec<_>>()
    };
    let (of_ours, of_theirs) = (only(&ours, &theirs), only(&theirs, &ours));
    assert!(of_ours.is_empty() && of_theirs.is_empty(), "{what}: we have {of_ours:#?}, not {of_theirs:#?}");
    assert_eq!(ours.len(), theirs.len(), "{what}");
}
