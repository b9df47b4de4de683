//! Shows what retention would keep, applies it, and collects what nothing needs any more.
//!
//! ```sh
//! retention --repository DIR --daily 7 --weekly 4 --monthly 12 [--apply]
//! retention --simulate
//! ```
//! Without `--apply` nothing is changed. Collecting deletes nothing that was written or condemned within the last 24
//! hours: what one run condemns, a run of the next day deletes.

use std::error::Error;
use std::time::{Duration, SystemTime};

use examples::args::Args;
use examples::show::{bytes, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::repository::{GcOptions, Repository, Retention};
use vsphere_backup::{Backup, Clock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let own = ["repository=", "last=", "daily=", "weekly=", "monthly=", "yearly=", "apply"];
    let args = Args::read(&[&WORLD_ARGS[..], &own].concat())?;
    let scratch = tempfile::tempdir()?;
    if !args.has("simulate") {
        let count = |name| -> Result<u32, Box<dyn Error>> { Ok(args.get(name).unwrap_or("0").parse()?) };
        let retention = Retention::keep()
            .last(count("last")?)
            .daily(count("daily")?)
            .weekly(count("weekly")?)
            .monthly(count("monthly")?)
            .yearly(count("yearly")?);
        let repository = Repository::open_local(args.need("repository")?).await?;
        return run(&repository, &retention, args.has("apply"), &Clock::default()).await;
    }

    // Three points; the first of them holds data that the others do not.
    let world = World::open(&args).await?;
    let repository = world.back_up_once(scratch.path()).await?;
    if let Some(simulator) = &world.simulator {
        let disk = simulator.guest("web")?.disk(2000)?;
        disk.write_at(0, &vec![0; 32 << 20])?;
    }
    for _ in 0..2 {
        let backup = Backup::of(&world.vim, world.vm.moref.clone()).journal(scratch.path().join("journal"));
        let report = backup.run(&repository).await?;
        println!("{}", report.point.id());
    }
    world.close().await?;
    let retention = Retention::keep().last(1);
    run(&repository, &retention, false, &Clock::default()).await?;
    run(&repository, &retention, true, &Clock::default()).await?;
    // What nothing needs is condemned when it is a day old, and deleted a day after that.
    for days in [2, 4] {
        println!("\nin {days} days:");
        let clock = Clock::new(move || SystemTime::now() + Duration::from_secs(days * 86_400));
        run(&repository, &retention, true, &clock).await?;
    }
    Ok(())
}

async fn run(repository: &Repository, retention: &Retention, apply: bool, clock: &Clock) -> Result<(), Box<dyn Error>> {
    let pruned = repository.prune(None, retention, !apply).await?;
    let rows = pruned.points.iter().map(|one| vec![one.point.to_string(), one.fate.to_string()]);
    table(&["point", if apply { "what became of it" } else { "what would become of it" }], &rows.collect::<Vec<_>>());

    let options = GcOptions::default().dry_run(!apply).clock(clock.clone());
    let garbage = repository.collect_garbage(&options).await?;
    let of = [("condemned", &garbage.condemned), ("waiting", &garbage.waiting), ("deleted", &garbage.deleted)];
    let rows = of.iter().map(|(what, tally)| {
        vec![(*what).to_owned(), tally.packs.to_string(), tally.pages.to_string(), bytes(tally.bytes)]
    });
    table(&["garbage", "packs", "pages", "size"], &rows.collect::<Vec<_>>());
    for holder in &garbage.holders {
        println!("reckoned with: {holder}");
    }
    Ok(())
}
