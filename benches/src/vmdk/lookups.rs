//! Random reads and whole maps, in process; the peer's are `qemu-img bench` and `qemu-img map`.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use super::table::{Table, mib};
use super::work::{BLOCK, Kind, READS, Report, Work};
use super::{BAR_OF_MEMORY, Bench, QEMU, RAW, SPARSE, STREAM};
use crate::process;

pub(super) fn run(bench: &Bench<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
    reads(bench, table, SPARSE, Some(BAR_OF_READS))?;
    reads(bench, table, STREAM, None)?;
    for (name, format) in [(SPARSE, "vmdk"), (STREAM, "vmdk"), (RAW, "raw")] {
        map(bench, table, name, format)?;
    }
    Ok(())
}

/// Single reads of 4 KiB from anywhere, holes and data alike.
fn reads(bench: &Bench<'_>, table: &mut Table, name: &str, bar: Option<f64>) -> Result<(), Box<dyn Error>> {
    let works = [Kind::Read(1), Kind::Read(2)].map(|kind| Work::new(kind, bench, name, ""));
    let (mut ours, mut theirs, mut peak) = ([Duration::MAX; 2], Duration::MAX, 0);
    // Without a bar, once is enough.
    for _ in 0..bar.map_or(1, |_| bench.rounds) {
        for (work, best) in works.iter().zip(&mut ours) {
            let report = work.run()?;
            *best = report.time().min(*best);
            peak = peak.max(report.peak);
        }
        theirs = theirs.min(peer_reads(bench, name)?);
    }
    let theirs = rate(PEER_READS, theirs);
    for (threads, time) in ["one thread", "two threads"].into_iter().zip(ours) {
        let ours = rate(READS, time);
        let question = format!("4 KiB reads of {name}, {threads}");
        let [ours_shown, theirs_shown] = [ours, theirs].map(|rate| format!("{rate:.0} /s"));
        match bar {
            Some(bar) => table.ratio(&question, ours_shown, theirs_shown, ours / theirs, bar),
            None => table.note(&question, ours_shown, theirs_shown),
        }
    }
    table.limit(&format!("4 KiB reads of {name}: peak memory"), mib(peak), String::new(), mib(BAR_OF_MEMORY), "MiB");
    Ok(())
}

/// The peer cannot read at random, but its steps can be such that neighbours in time are none on the disk.
fn peer_reads(bench: &Bench<'_>, name: &str) -> Result<Duration, Box<dyn Error>> {
    let blocks = bench.size / BLOCK;
    // By the golden section, odd so that it goes everywhere; the peer takes no step of 2 GiB.
    let step = (((blocks as f64 * 0.381_966) as u64) | 1).min((i32::MAX as u64 / BLOCK - 1) | 1) * BLOCK;
    let mut command = Command::new(QEMU);
    command.args(["bench", "-f", "vmdk", "-t", "unsafe", "-d", "64"]);
    command.args(["-c", &PEER_READS.to_string(), "-s", &BLOCK.to_string(), "-S", &step.to_string()]);
    let (printed, _) = process::run(command.arg(bench.path(name)))?;
    let time = printed.lines().find_map(|line| line.strip_prefix("Run completed in ")?.strip_suffix(" seconds."));
    Ok(Duration::from_secs_f64(time.ok_or("qemu-img bench says no time")?.parse()?))
}

fn map(bench: &Bench<'_>, table: &mut Table, name: &str, format: &str) -> Result<(), Box<dyn Error>> {
    let question = format!("map of {name}, with opening");
    let work = Work::new(Kind::Map, bench, name, "");
    let (mut ours, mut theirs, mut peak) = (Duration::MAX, Duration::MAX, 0);
    for _ in 0..bench.rounds {
        let report = work.run()?;
        ours = ours.min(report.time());
        peak = peak.max(report.peak);
        let mut command = Command::new(QEMU);
        command.args(["map", "--output=json", "-f", format]).arg(bench.path(name));
        theirs = theirs.min(process::run(&mut command)?.1.wall);
    }
    let theirs = format!("{:.2} ms as a process", milliseconds(theirs));
    table.limit(&question, milliseconds(ours), theirs, BAR_OF_MAP, "ms");
    table.limit(&format!("{question}: peak memory"), mib(peak), String::new(), mib(BAR_OF_MEMORY), "MiB");
    Ok(())
}

impl Report {
    /// Of the only step.
    fn time(&self) -> Duration {
        self.steps.iter().map(|(_, time)| *time).sum()
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const PEER_READS: u64 = 50_000;
const BAR_OF_READS: f64 = 10.0;
/// In milliseconds.
const BAR_OF_MAP: f64 = 20.0;
