//! The small libraries, begun, with a folder as their first volume.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use vixmntapi::vendor::{
    ConnectSpec, Connection, DiskLibrary, DiskLibraryOptions, DiskSet, LibraryOptions, Proxy, VixMntapi,
};

use crate::tree::Tree;

/// Both libraries in a directory.
pub(super) struct Fake(TempDir);

impl Fake {
    pub(super) fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib64")).unwrap();
        for (name, source, flags) in
            [("libvixDiskLib.so.8", DISK_SOURCE, &[][..]), ("libvixMntapi.so.1", SOURCE, flags)]
        {
            std::fs::copy(compiled(source, flags), folder.path().join("lib64").join(name)).unwrap();
        }
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn disks(&self) -> DiskLibrary {
        DiskLibrary::load(DISKS.get_or_init(|| self.path().to_owned()), options()).unwrap()
    }
}

/// There is one disk library a process.
static DISKS: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

/// Compiles a library. What was compiled once is used again.
fn compiled(source: &str, flags: &[&str]) -> std::path::PathBuf {
    let mut hasher = DefaultHasher::new();
    (source, flags).hash(&mut hasher);
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vendor-{:x}.so", hasher.finish()));
    if !made.exists() {
        // Under another name first: other processes look for it too.
        let own = made.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-w", "-pthread", "-o"]).arg(&own).args(flags).args(["-x", "c", "-"]);
        let mut compiler = compiler.stdin(Stdio::piped()).spawn().expect("a C compiler is there");
        compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        assert!(compiler.wait().unwrap().success());
        std::fs::rename(own, &made).unwrap();
    }
    made
}

const SOURCE: &str = include_str!("../../../sys/tests/it/fake.c");
const DISK_SOURCE: &str = include_str!("../../../../vixdisklib/sys/tests/it/fake.c");

/// What both have logged.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn options() -> DiskLibraryOptions {
    DiskLibraryOptions::default().log(Arc::new(|_, line: &str| LOG.lock().unwrap().push(line.to_owned())))
}

pub(super) struct Begun {
    pub(super) vendor: VixMntapi,
    disks: DiskLibrary,
    _fake: Fake,
    _folder: TempDir,
}

impl Begun {
    /// On Linux, with a tree as the first volume of every disk.
    pub(super) fn linux(tree: &Tree) -> Self {
        Self::with(tree, Fake::new(&[]), Proxy::Linux)
    }

    pub(super) fn with(tree: &Tree, fake: Fake, proxy: Proxy) -> Self {
        std::fs::write(tree.path().join("file"), "file").unwrap();
        Self::at(tree.path(), fake, proxy)
    }

    pub(super) fn linux_at(folder: &Path) -> Self {
        Self::at(folder, Fake::new(&[]), Proxy::Linux)
    }

    fn at(volume: &Path, fake: Fake, proxy: Proxy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(volume, folder.path().join("volume0")).unwrap();
        let disks = fake.disks();
        let options = LibraryOptions::default().tmp_directory(folder.path()).assume_proxy(proxy);
        let vendor = VixMntapi::load(&disks, fake.path(), options).unwrap();
        let begun = Self { vendor, disks, _fake: fake, _folder: folder };
        begun.calls();
        begun
    }

    pub(super) fn connect(&self) -> Connection {
        self.disks.connect(ConnectSpec::local()).wait().unwrap()
    }

    /// A set of one disk. The path says what goes wrong.
    pub(super) fn open(&self, path: &str) -> DiskSet {
        self.vendor.open(&self.connect(), &[path]).unwrap()
    }

    /// What was called of VixMntapi since it was asked last; nothing of it was wrong.
    pub(super) fn calls(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *LOG.lock().unwrap());
        let bad: Vec<_> = lines.iter().filter(|line| line.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let calls = lines.iter().filter_map(|line| line.split_once(" mnt "));
        calls.map(|(_, call)| call.to_owned()).collect()
    }

    /// Ends both, and checks that nothing was left.
    pub(super) fn end(self) {
        self.vendor.clone().shut_down();
        let Self { vendor, disks, _fake, _folder } = self;
        drop(vendor);
        let lines = LOG.lock().unwrap().clone();
        let exit = lines.iter().find(|line| line.contains(" mnt exit"));
        // Otherwise the disk library would be waited for without end.
        let exit = exit.unwrap_or_else(|| panic!("something is still in use: {lines:#?}"));
        assert!(exit.ends_with(" mnt exit with 0 sets, 0 arrays, 0 infos, 0 mounts"), "{exit}");
        disks.shut_down().wait().unwrap();
        let lines = LOG.lock().unwrap().clone();
        assert!(!lines.iter().any(|line| line.starts_with("BAD")), "{lines:#?}");
        assert!(lines.last().unwrap().contains(" exit with 0 connections, 0 disks"), "{lines:#?}");
    }
}

/// Runs a test in a process of its own. `name` is the test's, with its module.
pub(super) fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "VIXMNTAPI_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", run.status);
    // A missing peer is said by the other process.
    eprint!("{err}");
}
