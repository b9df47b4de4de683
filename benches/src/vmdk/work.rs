//! What is measured of ours, each in a process of its own.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmdk::stream::{self, StreamReader, StreamSpec};
use vmdk::{Access, CopyOptions, CreateKind, CreateSpec, Disk, Format, OpenOptions, copy, create};

use super::image::Random;
use super::unsynced::Unsynced;
use super::{Bench, huge};
use crate::process::{self, Cost};

/// A piece of work and the files that it is done on.
pub(super) struct Work {
    kind: Kind,
    from: PathBuf,
    to: PathBuf,
}

/// What a process of ours reports.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) cost: Cost,
    /// The most memory it had, in bytes.
    pub(super) peak: u64,
    /// What it measured itself, in the order in which it did.
    pub(super) steps: Vec<(String, Duration)>,
}

impl Work {
    pub(super) fn new(kind: Kind, bench: &Bench<'_>, from: &str, to: &str) -> Self {
        Self { kind, from: bench.path(from), to: bench.path(to) }
    }

    /// The work that this process was started for, if it was started to be measured.
    pub(super) fn asked() -> Option<Result<Self, Box<dyn Error>>> {
        let mut arguments = std::env::args_os().skip(2);
        arguments.next().filter(|first| first == CHILD)?;
        let kind = arguments.next().and_then(|name| Kind::from_name(name.to_str()?));
        let work = kind.zip(arguments.next()).zip(arguments.next());
        let work = work.map(|((kind, from), to)| Self { kind, from: from.into(), to: to.into() });
        Some(work.ok_or_else(|| "no such work".into()))
    }

    /// Does the work in a process of its own.
    pub(super) fn run(&self) -> Result<Report, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["vmdk", CHILD, self.kind.name()]).args([&self.from, &self.to]);
        let (printed, cost) = process::run(&mut command)?;
        let mut report = Report { cost, peak: 0, steps: Vec::new() };
        for (name, value) in printed.lines().filter_map(|line| line.split_once('=')) {
            match name {
                PEAK => report.peak = value.parse()?,
                step => report.steps.push((step.to_owned(), Duration::from_nanos(value.parse()?))),
            }
        }
        Ok(report)
    }

    /// In the process of its own: does the work and prints what a [`Report`] is made of.
    pub(super) fn measured(&self) -> Result<(), Box<dyn Error>> {
        let (from, to) = (self.from.as_path(), self.to.as_path());
        match self.kind {
            Kind::Export => export(&Disk::open_raw(from, Access::ReadOnly)?, to)?,
            Kind::Import => import(from, to)?,
            Kind::ToSparse => convert(&Disk::open_raw(from, Access::ReadOnly)?, to, CreateKind::MonolithicSparse)?,
            Kind::ToRaw => convert(&Disk::open(from, &OpenOptions::new())?, to, CreateKind::Raw)?,
            Kind::Read(threads) => read(from, threads)?,
            Kind::Map => map(from)?,
            Kind::Huge => huge::work(from, to)?,
        }
        println!("{PEAK}={}", process::high_water().ok_or("this system has no /proc/self/status")?);
        Ok(())
    }
}

/// Prints how long a step of the work took.
pub(super) fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    println!("{name}={}", begun.elapsed().as_nanos());
    done
}

pub(super) fn export(disk: &Disk, to: &Path) -> Result<(), Box<dyn Error>> {
    let sink = BufWriter::with_capacity(1 << 20, File::create_new(to)?);
    let mut sink = stream::export(disk, sink, &StreamSpec::new(disk.capacity()))?;
    Ok(sink.flush()?)
}

fn import(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let mut reader = StreamReader::open(File::open(from)?, from.display().to_string())?;
    let target = target(reader.capacity(), to, CreateKind::Raw)?;
    stream::import(&mut reader, &target)?;
    Ok(target.close()?)
}

fn convert(source: &Disk, to: &Path, kind: CreateKind) -> Result<(), Box<dyn Error>> {
    let target = target(source.capacity(), to, kind)?;
    copy(source, &target, &CopyOptions::new())?;
    Ok(target.close()?)
}

/// A new disk that is left to the page cache, as the peer's is.
fn target(capacity: u64, path: &Path, kind: CreateKind) -> Result<Disk, Box<dyn Error>> {
    create(path, &CreateSpec::new(capacity, kind))?.close()?;
    let format = if kind == CreateKind::Raw { Format::Raw } else { Format::Sparse };
    Ok(Disk::open(path, &OpenOptions::new().writable().format(format).resolver(Arc::new(Unsynced)))?)
}

/// Random reads from all threads at once; printed is the time of all.
fn read(from: &Path, threads: u64) -> Result<(), Box<dyn Error>> {
    let disk = Disk::open(from, &OpenOptions::new())?;
    let blocks = disk.capacity() / BLOCK;
    let work = |thread: u64| -> vmdk::Result<()> {
        let mut random = Random::new(0x1234_5678_9abc_def0 ^ (thread << 32));
        let mut buf = [0; BLOCK as usize];
        for _ in 0..READS / threads {
            disk.read_at(random.below(blocks) * BLOCK, &mut buf)?;
        }
        Ok(())
    };
    step("reads", || {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })?;
    Ok(())
}

/// Opens and maps, so that no table is known in advance.
fn map(from: &Path) -> Result<(), Box<dyn Error>> {
    step("map", || -> vmdk::Result<()> {
        let disk = Disk::open(from, &OpenOptions::new())?;
        for entry in disk.map(0..disk.capacity()) {
            std::hint::black_box(entry?);
        }
        Ok(())
    })?;
    Ok(())
}

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Raw to `streamOptimized`.
    Export,
    /// `streamOptimized` to raw, read forward.
    Import,
    /// Raw to `monolithicSparse`.
    ToSparse,
    /// Any disk to raw, read by position.
    ToRaw,
    /// Random reads on so many threads.
    Read(u64),
    /// The whole allocation map.
    Map,
    /// All about a disk of 62 TB.
    Huge,
}

impl Kind {
    const ALL: [(&'static str, Self); 8] = [
        ("export", Self::Export),
        ("import", Self::Import),
        ("to-sparse", Self::ToSparse),
        ("to-raw", Self::ToRaw),
        ("read-on-one", Self::Read(1)),
        ("read-on-two", Self::Read(2)),
        ("map", Self::Map),
        ("huge", Self::Huge),
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// The argument that makes this program a measured process.
const CHILD: &str = "--child";
/// The line with the peak of memory.
const PEAK: &str = "peak";

/// Bytes of a random read, and how many are made.
pub(super) const BLOCK: u64 = 4096;
pub(super) const READS: u64 = 200_000;
