//! Measured questions: `cargo run --release -p benches -- NAME` prints `figure:` lines.
//!
//! Each figure is a ratio against a limit or a peer that is measured in the same run on the same bytes. Wall
//! times on a loaded machine mean little; the ratios hold better.

mod backup;
mod ffi;
mod files;
mod nfc;
mod process;
mod retrieve;
mod transports;
mod vmdk;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == world::SERVE {
        let image = std::env::args_os().nth(2).unwrap_or_default();
        return ended(world::serve(image.as_ref()));
    }
    let rest: Vec<_> = std::env::args_os().skip(2).collect();
    match name.as_str() {
        backup::simulated::SERVE => return ended(backup::simulated::serve(&rest)),
        backup::steps::STEP => return ended(backup::steps::be(&rest)),
        _ => {}
    }
    println!("machine: {} threads, {}", std::thread::available_parallelism().map_or(0, usize::from), cpu());
    let answered = match name.as_str() {
        "vim-retrieve" => retrieve::run(),
        "backup" => backup::run(),
        "vmdk" => vmdk::run(),
        "nfc" => nfc::run(),
        "transports" => transports::run(),
        "ffi" => ffi::run(),
        "files" => files::run(),
        _ => {
            Err("questions: vim-retrieve (a large inventory through the public API, against a bare scan and pyVmomi), \
                  backup (full, incremental and restore, and their limit, restic and borg), vmdk (conversions, reads and maps of disks, against qemu-img), nfc (disks over port \
                  902, near and far, against bare streams), transports (one disk over each), ffi (the C interface against the crate), files (guests' file systems, against native readers and dissect)"
                .into())
        }
    };
    ended(answered)
}

fn ended(answered: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The shortest of several runs: what disturbs a run makes it longer, never shorter.
fn best<T>(runs: u32, mut work: impl FnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..runs {
        let begun = Instant::now();
        std::hint::black_box(work());
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "not met" }
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with two digits")]
fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(|| "unknown".into(), |line| line.trim_start_matches([' ', '\t', ':']).to_owned())
}
