//! Keeps a second repository: checks a part of the first, repairs what can be repaired once somebody agreed, copies the
//! points that the second does not have, and says what they take.
//!
//! ```sh
//! copy_repository --repository DIR --to DIR [--share 0.1] [--cursor FILE] [--repair]
//! copy_repository --simulate
//! ```
//! With `--share` each run checks another part, ten of which are all with 0.1; the cursor file tells where to go on. Without
//! `--repair` the plan is only shown.

use std::error::Error;
use std::path::Path;

use examples::args::Args;
use examples::show::bytes;
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::CancelToken;
use vsphere_backup::repository::{
    CheckCursor, CheckOptions, CopyOptions, CopyOutcome, CreateOptions, Repository, VerifyLevel,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let own = ["repository=", "to=", "share=", "cursor=", "repair"];
    let args = Args::read(&[&WORLD_ARGS[..], &own].concat())?;
    let scratch = tempfile::tempdir()?;
    let (repository, to) = if args.has("simulate") {
        let world = World::open(&args).await?;
        let repository = world.back_up_once(scratch.path()).await?;
        world.close().await?;
        (repository, scratch.path().join("second"))
    } else {
        (Repository::open_local(args.need("repository")?).await?, args.need("to")?.into())
    };
    let cancel = CancelToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopping after what is done now");
            interrupted.cancel_gracefully();
        }
    });

    check(&repository, &args, &cancel).await?;
    let plan = repository.plan_repair(VerifyLevel::Structure, &cancel).await?;
    if !plan.is_empty() {
        println!("{plan}");
        if args.has("repair") {
            println!("{:?}", repository.repair(&plan, &cancel).await?);
        }
    }

    let second = second(&to, &repository).await?;
    let report = repository.copy_to(&second, &CopyOptions::new().cancel(&cancel)).await?;
    for point in &report.points {
        match &point.outcome {
            CopyOutcome::Copied { copy, read, stored } => {
                println!("{} copied as {copy}: read {}, stored {}", point.original, bytes(*read), bytes(*stored));
            }
            CopyOutcome::There(copy) => println!("{} is there as {copy}", point.original),
            CopyOutcome::Failed(error) => eprintln!("{} is not copied: {error}", point.original),
            other => println!("{}: {other:?}", point.original),
        }
    }

    let statistics = second.statistics(&cancel).await?;
    for (vm, volume) in &statistics.vms {
        println!(
            "{vm}: {} of data in {}, {:.1} times by sharing, {:.1} times by compression",
            bytes(volume.data),
            bytes(volume.stored),
            volume.deduplication(),
            volume.compression()
        );
    }
    if report.is_complete() { Ok(()) } else { Err("not all points were copied".into()) }
}

/// Checks a share of the repository, from where the last run ended, and marks damage for the next backup to heal.
async fn check(repository: &Repository, args: &Args, cancel: &CancelToken) -> Result<(), Box<dyn Error>> {
    let kept = args.get("cursor").and_then(|file| std::fs::read_to_string(file).ok());
    let from: CheckCursor = kept.map_or(Ok(CheckCursor::default()), |text| text.trim().parse())?;
    let share = args.get("share").map_or(Ok(1.0), str::parse)?;
    let options = CheckOptions::new(VerifyLevel::Full).share(share).from(from).mark(true).cancel(cancel);
    let report = repository.check_with(&options).await?;
    println!("checked {} packs of {} and {} points", report.packs, bytes(report.bytes), report.points.len());
    let of_points = report.points.iter().flat_map(|point| &point.damage);
    for damage in report.damage.iter().chain(of_points) {
        eprintln!("{damage}");
    }
    if let Some(file) = args.get("cursor") {
        std::fs::write(file, report.next.to_string())?;
    }
    Ok(())
}

/// Opens the second repository; it is made when it is not there.
async fn second(to: &Path, first: &Repository) -> vsphere_backup::Result<Repository> {
    match Repository::open_local(to).await {
        Err(vsphere_backup::Error::NotARepository { .. }) => {
            Repository::create_local(to, CreateOptions::default().chunk_size(first.chunk_size())).await
        }
        other => other,
    }
}
