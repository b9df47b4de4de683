//! Images and their content, and QEMU's tools to look at them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use tempfile::TempDir;
use vixdisklib::{Disk, Progress};
use vmdk::{CreateKind, CreateSpec, create};

use crate::support;

pub(crate) const MIB: u64 = 1 << 20;

/// A new image in a folder of its own.
pub(crate) fn image(name: &str, capacity: u64, kind: CreateKind) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(name);
    create(&path, &CreateSpec::new(capacity, kind)).unwrap().close().unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

/// The path of a file in a folder, as text.
pub(crate) fn within(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// All bytes of a disk.
pub(crate) async fn content(disk: &Disk) -> Vec<u8> {
    disk.read_at(0, disk.capacity() as usize).await.unwrap().to_vec()
}

/// Content with runs of data and zeros at odd places, the same every time.
pub(crate) fn holey(len: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut all = vec![0; len as usize];
    let mut at = 0;
    while at < all.len() {
        let run = (next() as usize % 300_000 + 1).min(all.len() - at);
        if next() % 2 == 0 {
            all[at..at + run].fill_with(|| next() as u8);
        }
        at += run;
    }
    all
}

/// The names of a folder's files.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// A progress that checks that it only grows, and where it ended.
pub(crate) fn progress() -> (Progress, Arc<AtomicU8>) {
    let last = Arc::new(AtomicU8::new(0));
    let seen = Arc::clone(&last);
    let one_at_a_time = Mutex::new(());
    let told: Progress = Arc::new(move |percent| {
        let _alone = one_at_a_time.try_lock().expect("told twice at once");
        assert!(seen.swap(percent, Ordering::SeqCst) <= percent && percent <= 100);
    });
    (told, last)
}

/// Whether the tools of QEMU are here; [`support::peer`] says so loudly when not.
pub(crate) fn has_qemu() -> bool {
    ["qemu-img", "qemu-io"].iter().all(|tool| support::peer(tool).is_some())
}

/// Runs a tool that is here and must succeed; returns what it said.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> String {
    support::run(&support::peer(tool).unwrap(), arguments)
}
