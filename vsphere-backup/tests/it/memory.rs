//! Peak memory, measured in a process of its own.

use std::process::Command;

use bytes::Bytes;
use futures_util::stream;
use vsphere_backup::{
    DiskError,
    engine::{DiskBackup, DiskSource},
    repository::{Consistency, Repository, WriterOptions, storage::BoxFuture},
};

use crate::world::{MIB, disk_record, noise, record};

const GIB: u64 = 1 << 30;

/// A disk of 64 GiB of which every chunk is different; what is read of it is made on the spot.
struct Huge {
    /// 4 MiB that do not compress.
    noise: Bytes,
    /// Whether chunks compress to almost nothing.
    thin: bool,
}

impl DiskSource for Huge {
    fn capacity(&self) -> u64 {
        64 * GIB
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move {
            let mut data = if self.thin { vec![0; len] } else { self.noise[..len].to_vec() };
            for (at, chunk) in (offset..).step_by(64 << 10).zip(data.chunks_mut(64 << 10)) {
                chunk[..8].copy_from_slice(&(at + 1).to_le_bytes());
            }
            Ok(data.into())
        })
    }
}

async fn back_up_and_measure(source: Huge, areas: Vec<std::ops::Range<u64>>) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create_local(folder.path(), Default::default()).await.unwrap();
    let mut point = repository.begin(record(), Consistency::Crash, WriterOptions::default()).await.unwrap();
    let areas = stream::iter(areas.into_iter().map(Ok));
    let done = DiskBackup::new(2000, &source, point.writer()).run(areas).await.unwrap();
    point.add_disk(disk_record(&done)).unwrap();
    point.commit().await.unwrap();
    assert!(done.bytes.new > 0);
    peak_mib()
}

/// Returns the process's peak resident memory in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Runs an ignored test of this binary alone and returns the figure that it prints.
fn alone(test: &str) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let figure = text.lines().find_map(|line| line.split("peak MiB: ").nth(1)).unwrap();
    figure.trim().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn the_backup_of_a_sparse_64_gib_disk_stays_under_256_mib() {
    let peak = alone("memory::measure_sparse");
    eprintln!("peak of the backup of a sparse 64 GiB disk: {peak} MiB");
    assert!(peak < 256, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test that measures it, in a process of its own"]
async fn measure_sparse() {
    // 8 MiB of data in each GiB: every leaf of the index is written.
    let areas = (0..64).map(|at| at * GIB + 512 * MIB..at * GIB + 520 * MIB).collect();
    let source = Huge { noise: noise(9, 4 * MIB).into(), thin: false };
    println!("peak MiB: {}", back_up_and_measure(source, areas).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "reads 64 GiB of different chunks, which takes a while: by hand, in release"]
async fn measure_full() {
    let source = Huge { noise: Bytes::new(), thin: true };
    println!("peak MiB: {}", back_up_and_measure(source, vec![0..64 * GIB]).await);
}
