//! Differential tests against the programs of others: qemu-img and qemu-io, libvmdk, VMDKstream.
//!
//! Random disks, written by them and read by us, and the other way round. A property makes few disks unless
//! `PROPTEST_CASES` says how many. Where a peer is wrong, `defects` says so and holds to what is right.

mod chains;
mod changes;
mod defects;
mod known;
mod libvmdk;
mod qemu;
mod reading;
mod vmdkstream;
mod writing;

use proptest::test_runner::Config;

/// So many cases, unless the environment says otherwise: each starts a dozen processes.
fn cases(number: u32) -> Config {
    let default = Config { max_shrink_iters: 100, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { Config { cases: number, ..default } }
}
