//! Processes that end with a mount: by SIGTERM, by SIGKILL, and one of a user without rights.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal},
};
use vixmntapi::fuse::FuseMount;

use crate::{
    made_up::MadeUp,
    peers::{peer, run},
    support::can_mount,
};

const FOLDER: &str = "VIXMNTAPI_TEST_MOUNT";

/// The child of the tests below: mounts, says so, and waits for a signal.
#[test]
#[ignore = "it is run by the tests of this file"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let files = MadeUp::new(&[(b"file", 2)]).file(2, b"of the child").shared();
    let mount = FuseMount::of_files(files).at(&folder).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        println!("MOUNTED");
        end.recv().await;
    });
    drop(mount);
    println!("UNMOUNTED");
}

/// A process that has mounted a folder. It ends with this, and its mount too.
struct Server {
    child: Child,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if is_listed(&self.folder) {
            drop(Command::new("umount").arg("-l").arg(&self.folder).status());
        }
    }
}

fn spawn(program: &Path, folder: &Path, user: Option<u32>) -> (Server, BufReader<ChildStdout>) {
    let mut command = Command::new(program);
    command.args(["--exact", "process::child", "--ignored", "--nocapture"]).env(FOLDER, folder).current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let server = Server { child, folder: folder.to_owned() };
    wait_for(&mut output, "MOUNTED");
    (server, output)
}

fn wait_for(output: &mut impl BufRead, word: &str) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended without {word}");
    }
}

fn is_listed(folder: &Path) -> bool {
    let list = fs::read_to_string("/proc/self/mounts").unwrap();
    list.lines().any(|line| line.split(' ').nth(1) == folder.to_str())
}

fn kill(server: &mut Server, signal: Signal) {
    let child = &mut server.child;
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the child does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_that_gets_sigterm_leaves_no_mount() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut output) = spawn(&std::env::current_exe().unwrap(), folder.path(), None);
    assert!(is_listed(folder.path()));
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"of the child");
    kill(&mut server, Signal::TERM);
    wait_for(&mut output, "UNMOUNTED");
    assert!(!is_listed(folder.path()));
}

#[test]
fn what_sigkill_leaves_is_named_by_the_next_mount_and_can_be_cleared() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut server, _) = spawn(&std::env::current_exe().unwrap(), folder.path(), None);
    kill(&mut server, Signal::KILL);
    assert!(is_listed(folder.path()));
    let error = fs::metadata(folder.path()).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTCONN));
    let files = || FuseMount::of_files(MadeUp::new(&[]).shared());
    let error = files().at(folder.path()).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("has died") && reason.contains("fusermount3 -u -z "), "{reason}");
    run("umount", &[&"-l", &folder.path()]);
    assert!(!is_listed(folder.path()));
    drop(files().at(folder.path()).unwrap());
}

#[test]
fn a_user_without_rights_mounts_by_fusermount() {
    const NOBODY: u32 = 65534;
    if !can_mount() || peer("fusermount3").is_none() || !rustix::process::geteuid().is_root() {
        return;
    }
    // A copy that this user may run, and a folder that is this user's.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let folder = place.path().join("folder");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let (mut server, mut output) = spawn(&program, &folder, Some(NOBODY));
    assert!(is_listed(&folder));
    let list = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = list.lines().find(|line| line.split(' ').nth(1) == folder.to_str()).unwrap();
    for option in ["fuse.vixmntapi", "ro", "nosuid", "nodev", "noexec", "user_id=65534"] {
        assert!(line.contains(option), "{line}");
    }
    let read = Command::new("cat").arg(folder.join("file")).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert_eq!(read.stdout, b"of the child");
    kill(&mut server, Signal::TERM);
    wait_for(&mut output, "UNMOUNTED");
    assert!(!is_listed(&folder));
}
