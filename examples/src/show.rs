//! What a person sees: bars on a terminal, plain lines elsewhere, and a table at the end.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of one step.
pub struct Progress {
    name: String,
    terminal: bool,
    bar: Option<ProgressBar>,
    begun: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins a step.
    #[must_use]
    pub fn begin(name: &str) -> Self {
        println!("{name} ...");
        let now = Instant::now();
        Self { name: name.to_owned(), terminal: std::io::stderr().is_terminal(), bar: None, begun: now, last_line: now }
    }

    /// Says how far it is, in bytes: the bar moves, or now and then a line appears.
    pub fn at(&mut self, done: u64, total: u64) {
        if self.terminal {
            let bar = self.bar.get_or_insert_with(new_bar);
            bar.set_length(total);
            bar.set_position(done);
        } else if self.last_line.elapsed() >= Duration::from_secs(2) {
            self.last_line = Instant::now();
            println!("  {}: {} of {}", self.name, bytes(done), bytes(total));
        }
    }

    /// Ends the step; gives the time that it took.
    pub fn end(self) -> Duration {
        let took = self.begun.elapsed();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        println!("  done in {}", seconds(took));
        took
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("  [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// `1.5 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1.25 s`.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Prints rows under headings, columns aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        println!("{}", cells.collect::<Vec<_>>().join("  "));
    };
    line(head.to_vec());
    line(widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str).collect());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// The most memory that this process ever held, in bytes; `None` where the system does not tell.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!((bytes(12), bytes(1536), bytes(3 << 30)), ("12 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
    }
}
