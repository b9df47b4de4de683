//! What a process costs: time by the clock, time on the processors, and memory.

use std::error::Error;
use std::io;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// What a finished process took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time of all its threads, to a hundredth of a second.
    pub(crate) cpu: Duration,
}

impl Cost {
    pub(crate) const MAX: Self = Self { wall: Duration::MAX, cpu: Duration::MAX };

    /// The better of both, figure by figure: what disturbs a run makes it longer, never shorter.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Runs `command` to its end; what it printed and what it took. Nothing else may run beside it.
pub(crate) fn run(command: &mut Command) -> Result<(String, Cost), Box<dyn Error>> {
    let (before, begun) = (time_of_children()?, Instant::now());
    let Output { status, stdout, stderr } = command.output()?;
    let cost = Cost { wall: begun.elapsed(), cpu: time_of_children()?.saturating_sub(before) };
    let printed = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        return Err(format!("{command:?} failed: {printed}{}", String::from_utf8_lossy(&stderr)).into());
    }
    Ok((printed, cost))
}

/// The most memory that this process has had, in bytes.
pub(crate) fn high_water() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Processor time of this process so far, to a hundredth of a second: fields 14 and 15 of proc(5)'s stat.
pub(crate) fn own_time() -> io::Result<Duration> {
    time(11)
}

/// Processor time of all children that have ended: fields 16 and 17.
fn time_of_children() -> io::Result<Duration> {
    time(13)
}

/// User and system time, `skip` fields behind the name (field 2), which may have blanks in it.
fn time(skip: usize) -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(skip).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND)))
}

/// What Linux counts in towards user space, whatever its own clock does.
const TICKS_PER_SECOND: u64 = 100;
