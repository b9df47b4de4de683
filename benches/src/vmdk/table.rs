//! The figures, side by side.

use std::time::Duration;

use crate::process::Cost;
use crate::verdict;

/// Rows of a question, ours, the peer's, their ratio, and the bar.
#[derive(Default)]
pub(super) struct Table(Vec<[String; 5]>);

impl Table {
    /// Something that must be at least `bar` times as good as the peer's.
    pub(super) fn ratio(&mut self, question: &str, ours: String, theirs: String, ratio: f64, bar: f64) {
        self.row(question, ours, theirs, format!("{ratio:.2}"), format!("at least {bar}: {}", verdict(ratio >= bar)));
    }

    /// Something that may be `bar` at most.
    pub(super) fn limit(&mut self, question: &str, ours: f64, theirs: String, bar: f64, unit: &str) {
        let met = verdict(ours <= bar);
        self.row(question, format!("{ours:.2} {unit}"), theirs, String::new(), format!("at most {bar} {unit}: {met}"));
    }

    /// Something without a bar.
    pub(super) fn note(&mut self, question: &str, ours: String, theirs: String) {
        self.row(question, ours, theirs, String::new(), String::new());
    }

    fn row(&mut self, question: &str, ours: String, theirs: String, ratio: String, bar: String) {
        let row = [question.to_owned(), ours, theirs, ratio, bar];
        // Now as well as at the end: a run takes minutes.
        println!("measured: {}", row.join(" | "));
        self.0.push(row);
    }

    pub(super) fn print(&self) {
        let heads = ["", "ours", "qemu-img", "ratio", "bar"].map(str::to_owned);
        let rows = || std::iter::once(&heads).chain(&self.0);
        let widths: [usize; 5] = std::array::from_fn(|column| rows().map(|row| row[column].len()).max().unwrap_or(0));
        for row in rows() {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("figure: vmdk {}", cells.join("  ").trim_end());
        }
    }
}

/// By the clock and on the processors.
pub(super) fn show(cost: Cost) -> String {
    format!("{} wall, {} CPU", seconds(cost.wall), seconds(cost.cpu))
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
