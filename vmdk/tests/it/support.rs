//! What the tests share: random content, files in memory, the peers' tools.

pub(crate) mod dying;
pub(crate) mod snapshot;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use vmdk::{Access, Disk, Handle, MapKind, MemSource, Resolver};

/// A small generator: tests must repeat.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

/// Content with runs of data and of zeros, at odd places.
pub(crate) fn holey(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut content = vec![0; len];
    let mut at = 0;
    while at < len {
        let run = (random.below(300_000) as usize + 1).min(len - at);
        if random.below(2) == 0 {
            content[at..at + run].copy_from_slice(&random.bytes(run));
        }
        at += run;
    }
    content
}

/// All bytes of a disk.
pub(crate) fn content(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0xee; disk.capacity() as usize];
    disk.read_at(0, &mut all).unwrap();
    all
}

/// Reads at random places must agree with `expected`; and so must the map: contiguous, alternating, and zero
/// wherever it does not say data.
pub(crate) fn assert_is(disk: &Disk, expected: &[u8]) {
    assert_eq!(disk.capacity(), expected.len() as u64);
    assert!(content(disk) == expected, "the content differs");
    let mut random = Random::new(7);
    for _ in 0..200 {
        let start = random.below(expected.len() as u64) as usize;
        let len = random.below(200_000).min((expected.len() - start) as u64) as usize;
        let mut buf = vec![0xee; len];
        disk.read_at(start as u64, &mut buf).unwrap();
        assert!(buf == expected[start..start + len], "{start}+{len} differs");
    }
    let (mut at, mut last) = (0, None);
    for entry in disk.map(0..disk.capacity()) {
        let entry = entry.unwrap();
        assert_eq!(entry.range.start, at);
        assert!(entry.range.end > at);
        let says = (entry.kind, entry.layer, entry.compressed);
        assert_ne!(last, Some(says), "not coalesced");
        assert_eq!(entry.layer.is_none(), entry.kind == MapKind::Unallocated);
        if entry.kind != MapKind::Data {
            let bytes = &expected[at as usize..entry.range.end as usize];
            assert!(bytes.iter().all(|&byte| byte == 0), "{entry:?} is not zero");
        }
        at = entry.range.end;
        last = Some(says);
    }
    assert_eq!(at, disk.capacity());
}

/// Files in memory.
#[derive(Default)]
pub(crate) struct MemFiles {
    files: Mutex<HashMap<PathBuf, Arc<MemSource>>>,
}

impl MemFiles {
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Arc<Self> {
        let all = Self::default();
        for (name, bytes) in files {
            all.files.lock().unwrap().insert(PathBuf::from(name), Arc::new(MemSource::new(bytes.to_vec())));
        }
        Arc::new(all)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap()[Path::new(name)].to_vec()
    }
}

impl Resolver for MemFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Handle> {
        let files = self.files.lock().unwrap();
        let file = Arc::clone(files.get(path).ok_or(io::ErrorKind::NotFound)?);
        Ok(match access {
            Access::ReadOnly => Handle::ReadOnly(file),
            Access::ReadWrite => Handle::ReadWrite(file),
        })
    }

    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// Whether a peer's tool is here. Says so loudly when it is not, and fails if peers are required.
pub(crate) fn peer(tool: &str) -> bool {
    here(tool, Command::new(tool).arg("--version").output().is_ok())
}

/// As [`peer`], for a Python module of a Debian package.
pub(crate) fn module(name: &str) -> bool {
    let import = Command::new(DEBIAN_PYTHON).args(["-c", &format!("import {name}")]).output();
    here(name, import.is_ok_and(|output| output.status.success()))
}

/// As [`peer`], for one that was looked for in another way.
pub(crate) fn here(peer: &str, here: bool) -> bool {
    if !here {
        eprintln!("PEER MISSING: {peer}: this test proved nothing");
        assert!(std::env::var_os("REQUIRE_PEERS").is_none_or(|value| value != "1"), "{peer} is required");
    }
    here
}

/// Has the modules of Debian's packages, whatever `python3` is on the path.
pub(crate) const DEBIAN_PYTHON: &str = "/usr/bin/python3";

/// Runs a tool that must succeed; returns its output.
pub(crate) fn run(tool: &str, dir: &Path, args: &[&str]) -> String {
    let output = Command::new(tool).current_dir(dir).args(args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?}: {text}");
    text
}
