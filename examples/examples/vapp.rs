//! Backs up the machines of a vApp as one consistent set, twice, and shows what is in the repository: all snapshots are
//! made before anything is read, and the set is seen all or nothing.
//!
//! ```sh
//! vapp --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web --vapp shop --repository DIR --journal DIR
//! vapp --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::bytes;
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_backup::{Backup, BackupSet, ChangeTracking, SetReport};
use vsphere_vim::types::methods::CreateVApp;
use vsphere_vim::vm::Relocation;
use vsphere_vim::{MoRef, PropertyPath, mo};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let known: Vec<_> = WORLD_ARGS.into_iter().chain(["vapp=", "repository=", "journal="]).collect();
    let args = Args::read(&known)?;
    let world = World::open(&args).await?;
    let scratch = tempfile::tempdir()?;
    let (vapp, repository, journal) = match &world.simulator {
        Some(_) => {
            let repository = Repository::create_local(scratch.path().join("repository"), CreateOptions::default());
            (made(&world).await?, repository.await?, scratch.path().join("journal"))
        }
        None => {
            let repository = Repository::open_local(args.need("repository")?).await?;
            (named(&world, args.need("vapp")?).await?, repository, args.need("journal")?.into())
        }
    };

    for round in ["first", "second"] {
        // Each member can be told apart here: by its name, its disks, how its guest is quiesced.
        let prepare = |vm: MoRef<mo::VirtualMachine>| {
            Backup::of(&world.vim, vm).journal(&journal).change_tracking(ChangeTracking::Enable)
        };
        let set = BackupSet::of_vapp(&world.vim, &vapp, prepare).await?;
        let report = set.all_or_nothing(true).run(&repository).await?;
        println!("{round}: {:?} {:?}, snapshots within {:?}", report.name, report.outcome, report.spread);
        show(&report);
    }

    // Any point of a set leads to all others: what a restore of the whole begins with.
    for vm in repository.vms().await? {
        let Some(point) = repository.latest(&vm).await? else { continue };
        let names: Vec<_> = point.points_of_set().await?.iter().map(|one| one.manifest().vm.name.clone()).collect();
        println!("{}: {}, together with {names:?}", point.id(), point.manifest().vm.name);
    }
    world.close().await
}

fn show(report: &SetReport) {
    for member in &report.members {
        match &member.outcome {
            Ok(done) => println!("  {}: {} read, {} new", member.vm, bytes(done.bytes().read), bytes(done.bytes().new)),
            Err(error) => println!("  {}: {error}", member.vm),
        }
    }
}

/// Finds a vApp by its name.
async fn named(world: &World, name: &str) -> Result<MoRef<mo::VirtualApp>, Box<dyn Error>> {
    let found = world.vim.vapps().await?.into_iter().find(|vapp| vapp.name == name);
    Ok(found.ok_or_else(|| format!("there is no vApp {name:?}"))?.moref)
}

/// Makes a vApp and puts the simulated machine into it.
async fn made(world: &World) -> Result<MoRef<mo::VirtualApp>, Box<dyn Error>> {
    let (vim, vm) = (&world.vim, &world.vm.moref);
    let pool: MoRef<mo::ResourcePool> = vim.get(vm, PropertyPath::new("resourcePool")).await?;
    let folder: MoRef<mo::Folder> = vim.get(vm, PropertyPath::new("parent")).await?;
    let vapp = CreateVApp { name: "shop".into(), vm_folder: Some(folder), ..Default::default() };
    let vapp = vim.invoke(&pool, vapp).await?;
    vim.relocate(vm, Relocation::new().pool(&vapp.clone().cast())).await?;
    Ok(vapp)
}
