//! Backs up one virtual machine: full the first time, only what changed afterwards.
//!
//! ```sh
//! backup --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. \
//!        --vm dc1/vm/web --repository DIR --journal DIR [--enable-cbt]
//! backup --simulate
//! ```
//! Ctrl-C cancels: snapshot and lock are undone before the program ends.

use std::error::Error;

use examples::args::Args;
use examples::show::{bytes, peak_memory, seconds, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_backup::{Backup, CancelToken, Event};
use vsphere_cbt::EnableOptions;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["repository=", "journal=", "enable-cbt"]].concat())?;
    let scratch = tempfile::tempdir()?;
    let folder = |name| -> Result<std::path::PathBuf, String> {
        if args.has("simulate") { Ok(scratch.path().join(name)) } else { args.need(name).map(Into::into) }
    };
    let (repository, journal) = (folder("repository")?, folder("journal")?);
    let world = World::open(&args).await?;
    let repository = match Repository::open_local(&repository).await {
        Ok(repository) => repository,
        Err(vsphere_backup::Error::NotARepository { .. }) => {
            Repository::create_local(&repository, CreateOptions::default()).await?
        }
        Err(error) => return Err(error.into()),
    };

    let cancel = CancelToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("cancelling: undoing what was begun on the server");
            interrupted.cancel();
        }
    });

    // What a run that was killed left behind goes first: tracking cannot be enabled under a snapshot.
    let job = Backup::of(&world.vim, world.vm.moref.clone()).journal(journal).cancel(&cancel);
    if let Some(left) = job.clean_up().await? {
        println!("undone, left by an earlier run: {left:?}");
    }
    if args.has("enable-cbt") || args.has("simulate") {
        vsphere_cbt::enable(&world.vim, &world.vm.moref, EnableOptions::default()).await?;
    }
    let report = job
        .on_event(|event| match event {
            Event::DiskProgress { .. } | Event::StepBegun { .. } => {}
            other => println!("{other:?}"),
        })
        .run(&repository)
        .await?;

    let rows = report.disks.iter().map(|disk| {
        let sizes = [disk.capacity, disk.bytes.changed, disk.bytes.read, disk.bytes.stored].map(bytes);
        [disk.label.clone(), format!("{:?}", disk.mode)]
            .into_iter()
            .chain(sizes)
            .chain([seconds(disk.elapsed)])
            .collect()
    });
    table(&["disk", "mode", "capacity", "changed", "read", "stored", "time"], &rows.collect::<Vec<_>>());
    println!("recovery point {}", report.point.id());
    if let Some(peak) = peak_memory() {
        println!("peak memory: {peak} bytes");
    }
    world.close().await
}
