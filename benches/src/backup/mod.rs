//! How fast is a backup, against the bare work on the same bytes, restic and borg?
//!
//! All side by side in one run, each step in a process of its own: [`bare`] is the limit; ours goes through the
//! transport `file` and over nbdssl from a simulator that shares the processors (so its wall time holds both ends of
//! TLS and the server's reads; processor time and memory are the client's alone).
//!
//! `backup` measures 4 GiB with everything; `backup --gib 16` another size, full and restore only; `--rounds N` takes
//! the best of N; `--steps` tells where the time of each machine's backup went. Images and repositories lie in the folder for temporary files, which must be on a disk, not in
//! memory.

mod bare;
pub(crate) mod image;
mod ours;
mod peers;
pub(crate) mod simulated;
pub(crate) mod steps;
mod stopwatch;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::peers::Peer;
use self::simulated::Tracked;
use self::steps::Step;
use crate::process::Cost;
use crate::{megabytes_per_second, verdict};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// From this size on, disks of machines are too small for all repositories side by side.
const LARGE: u64 = 8 * GIB;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let size = option("--gib").unwrap_or(4) * GIB;
    let rounds = option("--rounds").unwrap_or(2);
    let folder = tempfile::tempdir()?;
    let bench = Bench { folder: folder.path(), size };
    let mut best: Option<Round> = None;
    for round in 0..rounds {
        let found = bench.round(round)?;
        best = Some(match best {
            Some(best) => best.best(found),
            None => found,
        });
    }
    best.ok_or("no round was asked for")?.print();
    if size < LARGE {
        bench.eight_disks()?;
    }
    Ok(())
}

struct Bench<'a> {
    folder: &'a Path,
    size: u64,
}

/// What one contender took.
#[derive(Clone, Copy)]
struct Contender {
    full: Step,
    incremental: Option<Step>,
    stored: u64,
}

impl Contender {
    fn best(self, other: Self) -> Self {
        let incremental = match (self.incremental, other.incremental) {
            (Some(one), Some(two)) => Some(one.best(two)),
            _ => None,
        };
        Self { full: self.full.best(other.full), incremental, stored: other.stored }
    }
}

struct Round {
    size: u64,
    data: u64,
    bare: Contender,
    /// Transport and what it took.
    ours: Vec<(&'static str, Contender)>,
    peers: Vec<(Peer, Contender)>,
    source: Step,
    target: Step,
    restore: Step,
}

impl Round {
    fn best(self, other: Self) -> Self {
        let ours = self.ours.into_iter().zip(other.ours).map(|((name, one), (_, two))| (name, one.best(two)));
        let peers = self.peers.into_iter().zip(other.peers).map(|((peer, one), (_, two))| (peer, one.best(two)));
        Self {
            bare: self.bare.best(other.bare),
            ours: ours.collect(),
            peers: peers.collect(),
            source: self.source.best(other.source),
            target: self.target.best(other.target),
            restore: self.restore.best(other.restore),
            ..other
        }
    }
}

impl Bench<'_> {
    /// Everybody once, each from nothing.
    fn round(&self, round: u64) -> Result<Round, Box<dyn Error>> {
        let image = self.path("disk.raw");
        let _ = fs::remove_file(&image);
        let data = image::make(&image, self.size, 0)?;
        let small = self.size < LARGE;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (image_name, round_name) = (text(&image), round.to_string());
        let out = self.path("bare.out");

        // All full ones, then the changes, then all incremental ones. A large image is stored by one at a time.
        let bare_full = steps::run("bare-full", [&image_name, &text(&out)])?;
        let source = steps::run("bare-source", [&text(&out)])?;
        let bare_stored = fs::metadata(&out)?.len();
        let target_file = self.path("target.raw");
        if !small {
            fs::remove_file(&out)?;
        }
        let target = steps::run("bare-target", [&image_name, &text(&target_file)])?;
        fs::remove_file(&target_file)?;

        let file = self.path("file");
        steps::run("create", [&text(&file)])?;
        let file_full = steps::run("file-full", [&image_name, &text(&file)])?;
        let file_stored = size_of(&file)?;
        let restore = steps::run("restore", [&text(&file), &text(&target_file)])?;
        same(&image, &target_file)?;
        fs::remove_file(&target_file)?;
        if !small {
            fs::remove_dir_all(&file)?;
        }

        let machine = self.path("machine");
        steps::run("create", [&text(&machine)])?;
        let mut tracked = Tracked::start(std::slice::from_ref(&image))?;
        let words: Vec<String> = std::iter::once(text(&machine)).chain(tracked.access.iter().cloned()).collect();
        let machine_full = steps::run("machine", &words)?;
        let machine_stored = size_of(&machine)?;
        if !small {
            fs::remove_dir_all(&machine)?;
        }

        let mut peers = Vec::new();
        for peer in Peer::ALL.into_iter().filter(|peer| small || *peer == Peer::Restic) {
            let Some(version) = peer.version() else { continue };
            println!("{version}");
            let repository = self.path(peer.name());
            peer.create(&repository)?;
            let cost = peer.back_up(&repository, &image, "first")?;
            let full = Step { cost, peak: 0, changed: 0, read: self.size };
            peers.push((peer, Contender { full, incremental: None, stored: size_of(&repository)? }));
            if !small {
                fs::remove_dir_all(&repository)?;
            }
        }
        let mut bare = Contender { full: bare_full, incremental: None, stored: bare_stored };
        let mut file_all = Contender { full: file_full, incremental: None, stored: file_stored };
        let mut machine_all = Contender { full: machine_full, incremental: None, stored: machine_stored };
        if small {
            image::change(&image, self.size, round)?;
            tracked.change(round)?;
            bare.incremental = Some(steps::run("bare-incremental", [&image_name, &text(&out), &round_name])?);
            file_all.incremental = Some(steps::run("file-incremental", [&image_name, &text(&file), &round_name])?);
            machine_all.incremental = Some(steps::run("machine", &words)?);
            for (peer, contender) in &mut peers {
                let cost = peer.back_up(&self.path(peer.name()), &image, "second")?;
                contender.incremental = Some(Step { cost, peak: 0, changed: 0, read: self.size });
            }
            steps::run("restore", [&text(&machine), &text(&target_file)])?;
            same(&image, &target_file)?;
        }
        drop(tracked);
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        let ours = vec![("file", file_all), ("nbdssl", machine_all)];
        Ok(Round { size: self.size, data, bare, ours, peers, source, target, restore })
    }

    /// Eight disks that differ, at once, over nbdssl: how much memory?
    fn eight_disks(&self) -> Result<(), Box<dyn Error>> {
        let images: Vec<PathBuf> = (1..=8).map(|number| self.path(&format!("disk-{number}.raw"))).collect();
        for (seed, image) in (1..).zip(&images) {
            image::make(image, 512 * MIB, seed)?;
        }
        let machine = self.path("eight");
        steps::run("create", [&machine])?;
        let tracked = Tracked::start(&images)?;
        let words = std::iter::once(machine.to_string_lossy().into_owned()).chain(tracked.access.iter().cloned());
        let step = steps::run("machine", words)?;
        println!(
            "figure: backup eight disks of 512 MiB at once over nbdssl {:.2} s, {:.2} CPU s, peak {} MiB (below 512: {})",
            step.cost.wall.as_secs_f64(),
            step.cost.cpu.as_secs_f64(),
            step.peak / MIB,
            verdict(step.peak < 512 * MIB)
        );
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Round {
    fn print(&self) {
        println!("figure: backup image {} MiB, {} MiB of it data", self.size / MIB, self.data / MIB);
        line("bare", "full", self.bare.full.cost, self.data);
        for (name, ours) in &self.ours {
            line(name, "full", ours.full.cost, self.data);
            against("full", name, ours.full.cost, self.bare.full.cost);
            println!(
                "figure: backup {name} full peak {} MiB (below 256: {})",
                ours.full.peak / MIB,
                verdict(ours.full.peak < 256 * MIB)
            );
            let (Some(step), Some(bare)) = (ours.incremental, self.bare.incremental) else { continue };
            line(name, "incremental", step.cost, step.changed);
            against("incremental", name, step.cost, bare.cost);
            let each = ratio(step.read, step.changed);
            println!(
                "figure: backup {name} incremental read {each:.2} bytes for each changed (below 5: {})",
                verdict(each < 5.0)
            );
        }
        if let Some(bare) = self.bare.incremental {
            line("bare", "incremental", bare.cost, bare.read);
        }
        for (peer, theirs) in &self.peers {
            let name = peer.name();
            line(name, "first", theirs.full.cost, self.data);
            for (transport, ours) in &self.ours {
                let times = seconds(theirs.full.cost.wall) / seconds(ours.full.cost.wall);
                println!(
                    "figure: backup {transport} full {times:.1} times as fast as {name} (2.7 for restic: {})",
                    verdict(times >= 2.7)
                );
                let (Some(ours), Some(theirs)) = (ours.incremental, theirs.incremental) else { continue };
                let times = seconds(theirs.cost.wall) / seconds(ours.cost.wall);
                println!(
                    "figure: backup {transport} incremental {times:.1} times as fast as {name} (18 for restic: {})",
                    verdict(times >= 18.0)
                );
            }
            if let Some(second) = theirs.incremental {
                line(name, "second", second.cost, self.data);
            }
            let more = ratio(self.ours[0].1.stored, theirs.stored);
            println!(
                "figure: backup stored {} MiB, {name} {} MiB: {more:.3} (1.05 for restic: {})",
                self.ours[0].1.stored / MIB,
                theirs.stored / MIB,
                verdict(more <= 1.05)
            );
        }
        println!("figure: backup stored bare {} MiB", self.bare.stored / MIB);
        let limit = self.source.cost.wall.max(self.target.cost.wall);
        let share = seconds(limit) / seconds(self.restore.cost.wall);
        println!(
            "figure: backup restore {:.2} s, {:.2} CPU s, peak {} MiB; source alone {:.2} s, target alone {:.2} s: {share:.2} of the slower (0.7: {})",
            seconds(self.restore.cost.wall),
            seconds(self.restore.cost.cpu),
            self.restore.peak / MIB,
            seconds(self.source.cost.wall),
            seconds(self.target.cost.wall),
            verdict(share >= 0.7)
        );
    }
}

fn line(who: &str, what: &str, cost: Cost, data: u64) {
    println!(
        "figure: backup {who} {what} {:.2} s, {:.2} CPU s, {:.0} MB/s",
        seconds(cost.wall),
        seconds(cost.cpu),
        megabytes_per_second(data, cost.wall)
    );
}

fn against(what: &str, name: &str, ours: Cost, bare: Cost) {
    let (wall, cpu) = (seconds(ours.wall) / seconds(bare.wall), seconds(ours.cpu) / seconds(bare.cpu));
    println!(
        "figure: backup {name} {what} {wall:.2} of the bare work's time, {cpu:.2} of its processor time (1.5: {}, {})",
        verdict(wall <= 1.5),
        verdict(cpu <= 1.5)
    );
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with two digits")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other.max(1) as f64
}

/// The number behind an argument.
fn option(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

/// All bytes in the files of a folder.
fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// Refuses figures of a restore that is wrong.
fn same(image: &Path, restored: &Path) -> Result<(), Box<dyn Error>> {
    let equal = std::process::Command::new("cmp").arg("-s").args([image, restored]).status()?.success();
    if equal { Ok(()) } else { Err("the restored disk differs from the image".into()) }
}
