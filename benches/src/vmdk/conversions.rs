//! Whole disks from one format to another, taking turns with `qemu-img convert`.

use std::error::Error;
use std::fs;
use std::process::Command;

use super::table::{Table, mib, show};
use super::work::{Kind, Work};
use super::{BAR_OF_MEMORY, Bench, QEMU, RAW, SPARSE, STREAM};
use crate::process::{self, Cost};

/// A way from one file to another.
struct Conversion {
    question: &'static str,
    kind: Kind,
    /// File and format, for qemu-img.
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
    /// What qemu-img is told besides.
    flags: &'static [&'static str],
    bar: f64,
    /// The size of the result counts.
    sized: bool,
    /// The peer takes a minute for each.
    slow: bool,
}

/// The peer's results of the first two are the sources of the others.
pub(super) fn run(bench: &Bench<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
    ALL.iter().try_for_each(|conversion| conversion.run(bench, table))
}

impl Conversion {
    fn run(&self, bench: &Bench<'_>, table: &mut Table) -> Result<(), Box<dyn Error>> {
        let (ours_to, theirs_to) = (bench.path(OURS), bench.path(self.to.0));
        let work = Work::new(self.kind, bench, self.from.0, OURS);
        let (mut ours, mut theirs, mut peak) = (Cost::MAX, Cost::MAX, 0);
        let mut sizes = [0; 2];
        for round in 0..bench.rounds {
            let report = work.run()?;
            ours = ours.min(report.cost);
            peak = peak.max(report.peak);
            if round == 0 || !self.slow {
                let _ = fs::remove_file(&theirs_to);
                theirs = theirs.min(process::run(&mut self.peer(bench))?.1);
            }
            if round == 0 {
                self.compare(bench)?;
                sizes = [fs::metadata(&ours_to)?.len(), fs::metadata(&theirs_to)?.len()];
            }
            fs::remove_file(&ours_to)?;
        }
        let ratio = theirs.wall.as_secs_f64() / ours.wall.as_secs_f64();
        table.ratio(self.question, show(ours), show(theirs), ratio, self.bar);
        // Tells more than the clock where others use the machine, and more threads are no merit in it.
        let ratio = theirs.cpu.as_secs_f64() / ours.cpu.as_secs_f64();
        table.note(&format!("{}: CPU", self.question), format!("{ratio:.2} times less"), String::new());
        if self.sized {
            let name = format!("{}: size", self.question);
            let times = sizes[0] as f64 / sizes[1] as f64;
            table.limit(&name, times, format!("{} bytes", sizes[1]), BAR_OF_SIZE, "times");
        }
        table.limit(&format!("{}: peak memory", self.question), mib(peak), String::new(), mib(BAR_OF_MEMORY), "MiB");
        if self.to.1 == "raw" {
            fs::remove_file(&theirs_to)?;
        }
        Ok(())
    }

    fn peer(&self, bench: &Bench<'_>) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["convert", "-t", "unsafe", "-m", "16", "-f", self.from.1, "-O", self.to.1]).args(self.flags);
        command.args([bench.path(self.from.0), bench.path(self.to.0)]);
        command
    }

    /// Fails unless our result has the bytes of the disk.
    fn compare(&self, bench: &Bench<'_>) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(QEMU);
        command.args(["compare", "-f", self.to.1, "-F", "raw"]).args([bench.path(OURS), bench.path(RAW)]);
        process::run(&mut command).map(drop)
    }
}

const ALL: [Conversion; 5] = [
    Conversion {
        question: "raw to streamOptimized",
        kind: Kind::Export,
        from: (RAW, "raw"),
        to: (STREAM, "vmdk"),
        flags: &["-o", "subformat=streamOptimized"],
        bar: 10.0,
        sized: true,
        slow: true,
    },
    Conversion {
        question: "raw to monolithicSparse",
        kind: Kind::ToSparse,
        from: (RAW, "raw"),
        to: (SPARSE, "vmdk"),
        flags: &["-W", "-o", "subformat=monolithicSparse"],
        bar: 1.5,
        ..QUICK
    },
    Conversion {
        question: "streamOptimized to raw, forward",
        kind: Kind::Import,
        from: (STREAM, "vmdk"),
        bar: 3.0,
        ..QUICK
    },
    Conversion {
        question: "streamOptimized to raw, by position",
        kind: Kind::ToRaw,
        from: (STREAM, "vmdk"),
        bar: 3.0,
        ..QUICK
    },
    Conversion { question: "monolithicSparse to raw", kind: Kind::ToRaw, from: (SPARSE, "vmdk"), bar: 1.5, ..QUICK },
];

/// Our result.
const OURS: &str = "ours.out";
const BAR_OF_SIZE: f64 = 1.02;

/// What most of them share.
const QUICK: Conversion = Conversion {
    question: "",
    kind: Kind::ToRaw,
    from: (RAW, "raw"),
    to: ("back.img", "raw"),
    flags: &["-W"],
    bar: 0.0,
    sized: false,
    slow: false,
};
