//! The small libraries, and processes of one's own.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use vixdisklib_sys::load::{ConnectSpec, Connection, Library as DiskLibrary, LibraryOptions as DiskOptions, LogLevel};
use vixmntapi_sys::load::{DiskSet, Library, LibraryOptions, Proxy};

use vixmntapi_sys::OpenFlags;

/// A directory with both libraries in `lib64`, as a VDDK has them.
pub(crate) struct Fake {
    folder: TempDir,
}

impl Fake {
    /// With a library that was compiled with these flags.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let fake = Self::without();
        fake.build("libvixMntapi.so.1", SOURCE, flags);
        fake
    }

    /// With the disk library only.
    pub(crate) fn without() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib64")).unwrap();
        let fake = Self { folder };
        fake.build("libvixDiskLib.so.8", DISK_SOURCE, &[]);
        fake
    }

    /// Compiles a library. What was compiled once is used again.
    fn build(&self, name: &str, source: &str, flags: &[&str]) {
        let mut hasher = DefaultHasher::new();
        (source, flags).hash(&mut hasher);
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mnt-{:x}.so", hasher.finish()));
        static COMPILING: Mutex<()> = Mutex::new(());
        let compiling = COMPILING.lock().unwrap();
        if !made.exists() {
            // Under another name first: other processes look for it too.
            let own = made.with_extension(std::process::id().to_string());
            compile(&own, source, flags);
            std::fs::rename(own, &made).unwrap();
        }
        drop(compiling);
        std::fs::copy(made, self.file(name)).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("lib64").join(name)
    }
}

fn compile(target: &Path, source: &str, flags: &[&str]) {
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-w", "-pthread", "-o"]).arg(target).args(flags).args(["-x", "c", "-"]);
    let mut compiler = compiler.stdin(Stdio::piped()).spawn().expect("a C compiler is there");
    compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());
}

const SOURCE: &str = include_str!("fake.c");
const DISK_SOURCE: &str = include_str!("../../../../vixdisklib/sys/tests/it/fake.c");

/// What both libraries have logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(LogLevel, String)>>>);

impl Log {
    fn of(&self, level: LogLevel) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(of, _)| *of == level).map(|(_, line)| line.clone()).collect()
    }

    /// What was called, without the threads: `mnt` begins the calls of VixMntapi. What was read is forgotten.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = self.of(LogLevel::Info);
        self.assert_nothing_bad();
        self.0.lock().unwrap().clear();
        calls.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Those of VixMntapi alone.
    pub(crate) fn mnt(&self) -> Vec<String> {
        self.calls().iter().filter_map(|call| call.strip_prefix("mnt ")).map(str::to_owned).collect()
    }

    pub(crate) fn assert_nothing_bad(&self) {
        let bad: Vec<_> = self.of(LogLevel::Warning).into_iter().filter(|line| line.starts_with("BAD")).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

/// Both libraries, begun.
pub(crate) struct Begun {
    pub(crate) fake: Fake,
    pub(crate) disks: DiskLibrary,
    pub(crate) library: Library,
    pub(crate) log: Log,
}

impl Begun {
    pub(crate) fn linux() -> Self {
        Self::with(Fake::with(&[]), LibraryOptions::default())
    }

    /// Taken for one of Windows.
    pub(crate) fn windows() -> Self {
        Self::with(Fake::with(&["-DWINDOWS"]), LibraryOptions::default().assume_proxy(Proxy::Windows))
    }

    pub(crate) fn with(fake: Fake, options: LibraryOptions) -> Self {
        let (disks, log) = begin_disks(&fake);
        let library = Library::load(&disks, fake.path(), options).unwrap();
        log.calls();
        Self { fake, disks, library, log }
    }

    pub(crate) fn connect(&self) -> Connection {
        self.disks.connect(ConnectSpec::local()).wait().unwrap()
    }

    /// A set of one disk. The path says what goes wrong.
    pub(crate) fn open(&self, path: &str) -> DiskSet {
        let set = self.library.open_disks(&self.connect(), &[path], OpenFlags::READ_ONLY).unwrap();
        self.log.calls();
        set
    }

    /// Ends both, and checks that nothing was left.
    pub(crate) fn end(self) {
        self.library.shut_down();
        let calls = self.log.mnt();
        assert_eq!(calls.last().unwrap(), "exit with 0 sets, 0 arrays, 0 infos, 0 mounts", "{calls:#?}");
        self.disks.shut_down().wait().unwrap();
        let calls = self.log.calls();
        assert!(calls.last().unwrap().starts_with("exit with 0 connections, 0 disks"), "{calls:#?}");
    }
}

pub(crate) fn begin_disks(fake: &Fake) -> (DiskLibrary, Log) {
    let log = Log::default();
    let lines = log.clone();
    let sink = Arc::new(move |level, line: &str| lines.0.lock().unwrap().push((level, line.to_owned())));
    let disks = DiskLibrary::load(fake.path(), DiskOptions::default().log(sink)).unwrap();
    (disks, log)
}

/// Runs a test in a process of its own: a library begins once a process. `name` is the test's, with its module.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "VIXMNTAPI_SYS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", run.status);
}
