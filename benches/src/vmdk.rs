//! How fast are virtual disks converted, read and mapped, and how much memory does that take?
//!
//! The peer is qemu-img, on the same files in the same run, taking turns. Every piece of our work runs in a process
//! of its own, as qemu-img's does, so that start, opening and closing count for both and the kernel knows the peak of
//! memory of each. Results stay in the page cache for both (`-t unsafe` for qemu-img, nothing is synced of ours); the
//! first ones are compared with the source by `qemu-img compare`. qemu-img gets what makes it fastest: `-m 16 -W`
//! where it allows that, which is not where it compresses.

mod conversions;
mod huge;
mod image;
mod lookups;
mod table;
mod unsynced;
mod work;

use std::error::Error;
use std::path::{Path, PathBuf};

use self::table::Table;
use self::work::Work;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    if let Some(work) = Work::asked() {
        return work?.measured();
    }
    let options = Options::parse(std::env::args().skip(2))?;
    let folder = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let bench = Bench { folder: folder.path(), size: options.size, rounds: options.rounds };
    println!("needs up to {} MiB in {}", (options.size * 2) >> 20, bench.folder.display());
    let mut table = Table::default();
    let wanted = |part| options.only.as_deref().is_none_or(|only| only == part);
    // The lookups need what the conversions make.
    if wanted("conversions") || wanted("lookups") {
        let data = image::make(&bench.path(RAW), bench.size)?;
        println!("a disk of {} bytes with {data} bytes of data, best of {} rounds", bench.size, bench.rounds);
        conversions::run(&bench, &mut table)?;
    }
    if wanted("lookups") {
        lookups::run(&bench, &mut table)?;
    }
    if wanted("huge") {
        huge::run(&bench, &mut table)?;
    }
    table.print();
    Ok(())
}

/// Where and how often is measured.
struct Bench<'a> {
    folder: &'a Path,
    /// Of the disk, in bytes.
    size: u64,
    rounds: u32,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What the command line says after the question's name.
struct Options {
    size: u64,
    rounds: u32,
    folder: Option<PathBuf>,
    /// One of the parts alone.
    only: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self { size: 4 << 30, rounds: 3, folder: None, only: None };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--mib" => options.size = value.parse::<u64>()? << 20,
                "--rounds" => options.rounds = value.parse::<u32>()?.max(1),
                "--folder" => options.folder = Some(value.into()),
                "--only" if PARTS.contains(&value.as_str()) => options.only = Some(value),
                _ => {
                    let flags = "--mib N, --rounds N, --folder DIR, --only PART";
                    return Err(format!("{flag} {value}: flags are {flags}; parts are {}", PARTS.join(", ")).into());
                }
            }
        }
        Ok(options)
    }
}

/// What can be asked for alone.
const PARTS: [&str; 3] = ["conversions", "lookups", "huge"];

/// The files of a run.
const RAW: &str = "raw.img";
const STREAM: &str = "stream.vmdk";
const SPARSE: &str = "sparse.vmdk";

const QEMU: &str = "qemu-img";
/// Of every piece of our work on the disk.
const BAR_OF_MEMORY: u64 = 64 << 20;
