//! Starting simulators, example programs and peers.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use vsphere_backup::repository::{PointId, Repository, VmId};
use vsphere_sim::{DiskHandle, DiskSpec, Simulator, VmSpec};

/// An example program of this package; cargo builds it with the tests.
pub(crate) fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "{} is not built: run the tests of the whole package", program.display());
    Command::new(program)
}

/// A peer program; says loudly when it is missing, and fails then if `REQUIRE_PEERS` is set.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/sbin".into(), "/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("PEER MISSING: {name}. This test proves nothing; run scripts/install-peers");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none(), "{name} is required");
    }
    found
}

/// Runs a program and fails the test with what it printed when it fails.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// A simulated vCenter with one machine, and folders for its backups.
pub(crate) struct Site {
    pub(crate) sim: Simulator,
    pub(crate) folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn with(disk: DiskSpec) -> Self {
        Self::of(VmSpec::new("web").disk(disk)).await
    }

    /// With this machine, whose name is `web`.
    pub(crate) async fn of(machine: VmSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sim = Simulator::builder().vm(machine).start().await.unwrap();
        std::fs::write(folder.path().join("password"), sim.password()).unwrap();
        Self { sim, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn disk(&self) -> DiskHandle {
        self.sim.guest("web").unwrap().disk(2000).unwrap()
    }

    /// An example program, told where the simulator is and where backups go.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = example(name);
        command.args(["--url", &self.sim.url(), "--user", self.sim.username()]);
        command.arg("--password-file").arg(self.path("password"));
        command.args(["--thumbprint", &self.sim.thumbprint_sha256()]);
        command.args(["--vm", &self.sim.vm("web").unwrap().inventory_path()]);
        command.arg("--repository").arg(self.path("repository"));
        command
    }

    /// The `backup` example, ready to run.
    pub(crate) fn backup(&self) -> Command {
        let mut command = self.program("backup");
        command.arg("--enable-cbt").arg("--journal").arg(self.path("journal"));
        command
    }

    /// The machine's points; none where there is no repository yet.
    pub(crate) async fn points(&self) -> Vec<PointId> {
        let vm = VmId::parse(&self.sim.vm("web").unwrap().instance_uuid()).unwrap();
        match Repository::open_local(self.path("repository")).await {
            Ok(repository) => repository.points(&vm).await.unwrap(),
            Err(vsphere_backup::Error::NotARepository { .. }) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Nothing of a backup is left on the server. Sessions of killed programs end by their own age.
    pub(crate) fn assert_clean(&self) {
        self.sim.expire_sessions();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.sim.leftovers();
            if left.snapshots.is_empty()
                && left.locks.is_empty()
                && left.open_layers == 0
                && left.unconsolidated.is_empty()
            {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until the condition holds, while the child runs.
pub(crate) fn wait_until(child: &mut Child, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(Instant::now() < deadline, "no sign of {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every byte of a guest's disk.
pub(crate) fn content(disk: &DiskHandle) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.capacity()).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}
