//! Says of machines what a backup would do, what not, and why, without changing anything.
//!
//! ```sh
//! preflight --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. \
//!           --vm dc1/vm/web [--select 'dc1/vm/production/**'] --repository DIR --journal DIR
//! preflight --simulate
//! ```
//! Ends with an error when a machine could not be backed up.

use std::error::Error;
use std::path::PathBuf;

use examples::args::Args;
use examples::show::{bytes, table};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::job::Selection;
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_backup::{Backup, EstimateBasis, Preflight};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["select=", "repository=", "journal="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let world = World::open(&args).await?;
    let (repository, journal): (_, PathBuf) = if args.has("simulate") {
        let folder = scratch.path().join("repository");
        (Repository::create_local(folder, CreateOptions::default()).await?, scratch.path().join("journal"))
    } else {
        (Repository::open_local(args.need("repository")?).await?, args.need("journal")?.into())
    };
    let machines = match args.get("select") {
        Some(pattern) => Selection::path(pattern),
        None => Selection::vm(world.vm.moref.clone()),
    };
    let mut refused = 0;
    for machine in machines.resolve(&world.vim).await?.machines {
        let backup = Backup::of(&world.vim, machine.vm.clone()).journal(&journal).quiesce(true);
        let found = backup.preflight(&repository).await?;
        show(&found);
        refused += usize::from(!found.is_possible());
    }
    world.close().await?;
    if refused == 0 { Ok(()) } else { Err(format!("{refused} machines would not be backed up").into()) }
}

fn show(found: &Preflight) {
    let verdict = if found.is_possible() { "can be backed up" } else { "cannot be backed up" };
    println!("{} on {}: {verdict}, quiescing by {:?}", found.name, found.server, found.quiesce);
    let rows = found.disks.iter().map(|disk| {
        let estimate = disk.estimate.map_or("?".into(), |estimate| match estimate.basis {
            EstimateBasis::Files => format!("at most {}", bytes(estimate.bytes)),
            EstimateBasis::LastIncremental => format!("about {}, as before", bytes(estimate.bytes)),
            _ => format!("up to {}", bytes(estimate.bytes)),
        });
        vec![disk.label.clone(), bytes(disk.capacity), format!("{:?}: {}", disk.mode, disk.reason), estimate]
    });
    table(&["disk", "capacity", "how", "to be read"], &rows.collect::<Vec<_>>());
    for disk in &found.left_out {
        println!("left out: {}: {}", disk.label, disk.reason);
    }
    for finding in &found.findings {
        println!("{:?}: {finding}", finding.severity);
    }
}
