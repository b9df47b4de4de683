//! A vendor's own store: it passes the suite that any store has to pass, then takes a machine's backup, and with the
//! next one what changed since.
//!
//! ```sh
//! own_store --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. \
//!           --vm dc1/vm/web --store DIR --journal DIR
//! own_store --simulate
//! ```
//! The store itself is `folder.rs`.

#[rustfmt::skip] // Dense, to be seen at a glance.
mod folder;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use examples::args::Args;
use examples::show::{bytes, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::store::{Sink, conformance::Conformance};
use vsphere_backup::{Backup, ChangeTracking, SinkReport};

use folder::Folder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["store=", "journal="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let world = World::open(&args).await?;
    let (place, journal) = match args.has("simulate") {
        true => (scratch.path().join("store"), scratch.path().join("journal")),
        false => (PathBuf::from(args.need("store")?), PathBuf::from(args.need("journal")?)),
    };
    std::fs::create_dir_all(&place)?;

    // Before anything is entrusted to it; in a folder of its own, as what the suite stores stays.
    let suite = Folder(tempfile::tempdir()?.keep());
    let again = suite.clone();
    let conformance = Conformance::new("5029c440-0000-0000-0000-000000000001").reopen(move || {
        let again: Arc<dyn Sink> = Arc::new(again.clone());
        async move { Ok(again) }
    });
    let kept = conformance.run(Arc::new(suite.clone())).await?.kept;
    println!("the store keeps {} of {0} rules: {kept:?}\n", kept.len());
    std::fs::remove_dir_all(suite.0)?;

    let store = Arc::new(Folder(place));
    let backup = || {
        let backup = Backup::of(&world.vim, world.vm.moref.clone()).journal(&journal);
        backup.change_tracking(ChangeTracking::Enable)
    };
    show(&backup().run_into(store.clone()).await?);
    if let Some(simulator) = &world.simulator {
        // A guest at work.
        simulator.guest("web")?.disk(2000)?.write_at(40 << 20, b"what changed")?;
        let report = backup().run_into(store.clone()).await?;
        show(&report);
        let disk = store.open(&report.point.disks[0].disk).await?;
        println!("read back: {}", String::from_utf8_lossy(&disk.read_at(40 << 20, 512).await?[..12]));
    }
    world.close().await
}

fn show(report: &SinkReport) {
    println!("{}", report.point.name);
    let rows = report.disks.iter().map(|disk| vec![disk.label.clone(), bytes(disk.bytes.read), disk.reason.clone()]);
    table(&["disk", "read", "why"], &rows.collect::<Vec<_>>());
}
