//! What a process costs: time by the clock, time on the processors, and memory.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
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

/// This program in another process, serving something until it is dropped.
pub(crate) struct Server(Child, Lines<BufReader<ChildStdout>>);

/// What a server says when it is ready; words follow.
const READY: &str = "serving:";

impl Server {
    /// Starts it with `arguments`; gives what it [said](announce) when it was ready.
    pub(crate) fn start<A: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(Self, Vec<String>), Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut server = Self(child, BufReader::new(output).lines());
        let words = server.answer()?;
        Ok((server, words))
    }

    /// Tells it a line and waits until it says that it is ready again; what it said.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let input = self.0.stdin.as_mut().ok_or("the server has no input")?;
        writeln!(input, "{line}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Vec<String>, Box<dyn Error>> {
        let line = self.1.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(READY)));
        let line = line.ok_or("the server did not start")??;
        Ok(line.split(' ').skip(1).filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the server: says that it is ready, with words without blanks.
pub(crate) fn announce(words: &[String]) -> io::Result<()> {
    println!("{READY} {}", words.join(" "));
    io::stdout().flush()
}

/// In the server: waits until whoever started it has gone.
pub(crate) fn until_left() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
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
