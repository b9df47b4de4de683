//! What holds on a real vCenter or ESXi: ten minutes that close questions no document answers.
//!
//! Walks the doubtful facts of NFC over port 902, the rules of changed block tracking and the transports against one
//! machine, prints what holds, and with `--report` writes a scrubbed report and traces that the project can play again.
//! Please send such a report: see README. It reads only; with `--snapshot` it takes a snapshot of the machine and
//! removes it again, which shows much more. With `--idle SECONDS` it also waits so long with an open session, to see
//! whether the host drops it; without, it does not.
//!
//! What breaks off on the way does not keep the rest from being asked, nor the report from being written: a host that
//! is not as expected is what the report is for.
//!
//! ```sh
//! live_check --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web [--snapshot] [--idle SECONDS] [--report FOLDER]
//! live_check --simulate
//! ```

mod allocation;
mod cbt;
mod idle;
mod nfc;
mod refusals;
mod report;
mod subject;
mod transports;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};

use self::report::Report;
use self::subject::Subject;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["snapshot", "idle=", "report="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let folder = match args.get("report") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => args.has("simulate").then(|| scratch.path().join("report")),
    };
    let soap = folder.is_some().then(report::Memory::default);
    let world = World::open_recorded(&args, soap.clone()).await?;
    let mut report = Report::default();
    let snapshot = args.has("snapshot") || args.has("simulate");
    let idle = args.get("idle").map(str::parse).transpose()?.map(Duration::from_secs);
    let mut subject = Subject::find(&world.vim, &world.vm, &mut report).await?;
    subject.hide(args.get("user"));
    let checked = tokio::select! {
        () = check(&mut subject, &mut report, snapshot, idle) => Ok(()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    report.ended(MAIN, checked);
    // Whatever came of it: the snapshot goes, and what was found is told.
    let removed = subject.remove_snapshot(&mut report).await;
    report.ended(MAIN, removed);
    report.print();
    if let (Some(folder), Some(soap)) = (folder, soap) {
        report.write(&folder, &subject, &soap)?;
        println!("\nreport and traces: {}", folder.display());
    }
    world.close().await?;
    if report.broke_off() { Err("not all of it could be asked: see what broke off".into()) } else { Ok(()) }
}

async fn check(subject: &mut Subject, report: &mut Report, snapshot: bool, idle: Option<Duration>) {
    if snapshot {
        let taken = subject.take_snapshot(report).await;
        report.ended(MAIN, taken);
    }
    let subject = &*subject;
    let done = refusals::run(subject, report).await;
    report.ended(refusals::TOPIC, done);
    if subject.path.is_some() {
        let done = nfc::run(subject, report).await;
        report.ended(nfc::TOPIC, done);
        let done = allocation::run(subject, report).await;
        report.ended(allocation::TOPIC, done);
    }
    let done = cbt::run(subject, report).await;
    report.ended(cbt::TOPIC, done);
    let done = transports::run(subject, report).await;
    report.ended(transports::TOPIC, done);
    if subject.path.is_some() {
        // Last, as it takes as long as it was told to.
        let done = idle::run(subject, report, idle).await;
        report.ended(idle::TOPIC, done);
    }
}

/// What is about all of it.
const MAIN: &str = "The check itself";
