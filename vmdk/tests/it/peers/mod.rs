//! Differential tests against the programs of others: qemu-img and qemu-io, libvmdk, VMDKstream.
//!
//! Random disks, written by them and read by us, and the other way round. A property makes few disks unless
//! `PROPTEST_CASES` says how many. Where a peer is wrong, `defects` says so and holds to what is right.

mod chains;
mod changes;
mod defects;
mod known;
pub(crate) mod libvmdk;
mod ours;
mod qemu;
mod reading;
mod split;
mod vmdkstream;
mod writing;

use std::path::Path;

use proptest::test_runner::Config;
use vmdk::check::{CheckOptions, Problem, check};

/// So many cases, unless the environment says otherwise: each starts a dozen processes.
fn cases(number: u32) -> Config {
    let default = Config { max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { Config { cases: number, ..default } }
}

/// Fails unless our own checker finds the disk and its parents sound. A grain that was stored before it was zeroed
/// may be left over: qemu-img does not give its space back.
fn assert_sound(dir: &Path, name: &str) {
    let report = check(dir.join(name), &CheckOptions::new().deep(true)).unwrap();
    let findings: Vec<_> = report.findings().map(ToString::to_string).collect();
    assert!(report.counts().all(|(problem, _)| problem == Problem::Leaked), "{findings:#?}");
}
