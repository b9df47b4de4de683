//! What holds on a real vCenter or ESXi: ten minutes that close questions no document answers.
//!
//! Walks the doubtful facts of NFC over port 902, the rules of changed block tracking and the transports against one
//! machine, prints what holds, and with `--report` writes a scrubbed report and traces that the project can play again.
//! Please send such a report: see README. It reads only; with `--snapshot` it takes a snapshot of the machine and
//! removes it again, which shows much more.
//!
//! ```sh
//! live_check --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web [--snapshot] [--report FOLDER]
//! live_check --simulate
//! ```

mod allocation;
mod cbt;
mod nfc;
mod refusals;
mod report;
mod subject;
mod transports;

use std::error::Error;
use std::path::PathBuf;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};

use self::report::Report;
use self::subject::Subject;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["snapshot", "report="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let folder = match args.get("report") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => args.has("simulate").then(|| scratch.path().join("report")),
    };
    let soap = folder.is_some().then(report::Memory::default);
    let world = World::open_recorded(&args, soap.clone()).await?;
    let mut report = Report::default();
    let snapshot = args.has("snapshot") || args.has("simulate");
    let mut subject = Subject::find(&world.vim, &world.vm, &mut report).await?;
    if snapshot {
        subject.take_snapshot(&mut report).await?;
    }
    let checked = check(&subject, &mut report).await;
    // Whatever came of it: the snapshot goes.
    subject.remove_snapshot(&mut report).await?;
    checked?;
    report.print();
    if let (Some(folder), Some(soap)) = (folder, soap) {
        report.write(&folder, &subject, &soap)?;
        println!("\nreport and traces: {}", folder.display());
    }
    world.close().await
}

async fn check(subject: &Subject, report: &mut Report) -> Result<(), Box<dyn Error>> {
    refusals::run(subject, report).await?;
    if subject.path.is_some() {
        nfc::run(subject, report).await?;
        allocation::run(subject, report).await?;
    }
    cbt::run(subject, report).await?;
    transports::run(subject, report).await
}
