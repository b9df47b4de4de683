//! The small library, and processes of one's own.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use vixdisklib_sys::load::{Library, LibraryOptions, LogLevel, LogSink};

/// A directory with a library in `lib64`, as a VDDK has it.
pub(crate) struct Fake {
    folder: TempDir,
}

impl Fake {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib64")).unwrap();
        Self { folder }
    }

    /// Adds the library, compiled with these flags. What was compiled once is used again.
    pub(crate) fn build(self, name: &str, flags: &[&str]) -> Self {
        let mut hasher = DefaultHasher::new();
        (SOURCE, flags).hash(&mut hasher);
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-{:x}.so", hasher.finish()));
        static COMPILING: Mutex<()> = Mutex::new(());
        let compiling = COMPILING.lock().unwrap();
        if !made.exists() {
            // Under another name first: other processes look for it too.
            let own = made.with_extension(std::process::id().to_string());
            compile(&own, flags);
            std::fs::rename(own, &made).unwrap();
        }
        drop(compiling);
        std::fs::copy(made, self.file(name)).unwrap();
        self
    }

    pub(crate) fn newest() -> Self {
        Self::empty().build("libvixDiskLib.so.8", &[])
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("lib64").join(name)
    }
}

/// Compiles the library.
pub(crate) fn compile(target: &Path, flags: &[&str]) {
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-w", "-pthread", "-o"]).arg(target).args(flags).args(["-x", "c", "-"]);
    let mut compiler = compiler.stdin(Stdio::piped()).spawn().expect("a C compiler is there");
    compiler.stdin.take().unwrap().write_all(SOURCE.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());
}

const SOURCE: &str = include_str!("fake.c");

/// What a library has logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(LogLevel, String)>>>);

impl Log {
    pub(crate) fn sink(&self) -> LogSink {
        let lines = Arc::clone(&self.0);
        Arc::new(move |level, line: &str| lines.lock().unwrap().push((level, line.to_owned())))
    }

    pub(crate) fn of(&self, level: LogLevel) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(of, _)| *of == level).map(|(_, line)| line.clone()).collect()
    }

    /// What was called, without the threads.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.of(LogLevel::Info).iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// The threads of the calls that begin so.
    pub(crate) fn threads(&self, calls: &[&str]) -> Vec<String> {
        let lines = self.of(LogLevel::Info).into_iter().map(|line| {
            let (thread, call) = line.split_once(' ').unwrap();
            (thread.to_owned(), call.to_owned())
        });
        let mut threads: Vec<_> = lines
            .filter(|(_, call)| calls.iter().any(|name| call.starts_with(name)))
            .map(|(thread, _)| thread)
            .collect();
        threads.sort();
        threads.dedup();
        threads
    }
}

/// The library of a fake, begun, and its log.
pub(crate) fn begin(fake: &Fake, options: LibraryOptions) -> (Library, Log) {
    let log = Log::default();
    let library = Library::load(fake.path(), options.log(log.sink())).unwrap();
    (library, log)
}

/// Runs a test in a process of its own: a library begins once a process. `name` is the test's, with its module.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "VIXDISKLIB_SYS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", run.status);
}
