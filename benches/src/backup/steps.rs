//! Steps that run in a process of their own, so that time, processor time and memory are theirs.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use super::{bare, ours, stopwatch};
use crate::process::{self, Cost};

/// The argument that makes this program one step; its name and arguments follow.
pub(crate) const STEP: &str = "--backup-step";

/// What a step took and did.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) cost: Cost,
    /// Most memory, in bytes.
    pub(super) peak: u64,
    pub(super) changed: u64,
    pub(super) read: u64,
}

impl Step {
    /// The better of both, figure by figure; the most memory.
    pub(super) fn best(self, other: Self) -> Self {
        Self { cost: self.cost.min(other.cost), peak: self.peak.max(other.peak), ..other }
    }
}

/// Runs a step to its end.
pub(super) fn run<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Result<Step, Box<dyn Error>> {
    // What earlier steps wrote must not be written back on this one's time.
    process::run(&mut Command::new("sync"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([STEP, name]).args(arguments);
    let (printed, cost) = process::run(&mut command)?;
    if std::env::args().any(|argument| argument == "--steps") {
        printed.lines().filter(|line| line.starts_with(stopwatch::LINE)).for_each(|line| println!("{line}"));
    }
    let line = printed.lines().find_map(|line| line.strip_prefix("done: ")).ok_or("the step said nothing")?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [changed, read, peak] = numbers[..] else { return Err("the step said something else".into()) };
    Ok(Step { cost, peak, changed, read })
}

/// Is the step, in the other process.
pub(crate) fn be(arguments: &[OsString]) -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = arguments.iter().filter_map(|word| word.to_str().map(str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let of_bare = |(read, _stored)| ours::Done { changed: 0, read };
    let done = match words[..] {
        ["bare-full", image, out] => of_bare(bare::full(image.as_ref(), out.as_ref())?),
        ["bare-incremental", image, out, round] => {
            of_bare(bare::incremental(image.as_ref(), out.as_ref(), round.parse()?)?)
        }
        ["bare-source", out] => of_bare((bare::read_back(out.as_ref())?, 0)),
        ["bare-target", image, target] => of_bare((bare::write_out(image.as_ref(), target.as_ref())?, 0)),
        ["create", folder] => {
            runtime.block_on(ours::create(folder.as_ref()))?;
            ours::Done::default()
        }
        ["file-full", image, folder] => runtime.block_on(ours::of_file(image.as_ref(), folder.as_ref(), None))?,
        ["file-incremental", image, folder, round] => {
            runtime.block_on(ours::of_file(image.as_ref(), folder.as_ref(), Some(round.parse()?)))?
        }
        ["machine", folder, ref access @ ..] => {
            let access: Vec<String> = access.iter().map(|&word| word.to_owned()).collect();
            runtime.block_on(ours::of_machine(&access, folder.as_ref()))?
        }
        ["restore", folder, target] => runtime.block_on(ours::restore(folder.as_ref(), Path::new(target)))?,
        _ => return Err(format!("no such step: {words:?}").into()),
    };
    println!("done: {} {} {}", done.changed, done.read, process::high_water().unwrap_or_default());
    Ok(())
}
