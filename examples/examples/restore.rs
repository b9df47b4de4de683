//! Restores a recovery point: in place into its machine, which has to be off, or one disk into a file.
//!
//! ```sh
//! restore --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web --repository DIR [--point ID] [--full]
//! restore .. --repository DIR --disk 2000 --file web.vmdk
//! restore --simulate
//! ```

use std::error::Error;

use examples::args::Args;
use examples::show::{bytes, seconds};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::repository::{PointId, RecoveryPoint, Repository, VmId};
use vsphere_backup::{FileFormat, Restore, RestoreMode};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["repository=", "point=", "full", "disk=", "file="]].concat())?;
    let scratch = tempfile::tempdir()?;
    let world = World::open(&args).await?;
    let repository = if args.has("simulate") {
        world.back_up_once(scratch.path()).await?
    } else {
        Repository::open_local(args.need("repository")?).await?
    };

    let point = choose(&args, &repository, &world).await?;
    println!("recovery point {}", point.id());
    let mode = if args.has("full") { RestoreMode::Full } else { RestoreMode::OnlyDifferences };
    let report = if let Some(file) = args.get("file") {
        Restore::of(&point).to_file(args.need("disk")?.parse()?, file, FileFormat::VmdkSparse).await?
    } else {
        if let Some(simulator) = &world.simulator {
            let vm = simulator.vm("web")?;
            vm.guest().disk(2000)?.write_at(1 << 20, b"a change to be undone")?;
            vm.set_power(vsphere_sim::Power::Off)?;
        }
        Restore::of(&point).mode(mode).to_vm(&world.vim, world.vm.moref.clone()).await?
    };
    for disk in &report.disks {
        println!(
            "disk {}: {} written, {} zeroed, {} right already, in {}, {}",
            disk.key,
            bytes(disk.bytes.written),
            bytes(disk.bytes.zeroed),
            bytes(disk.bytes.unchanged),
            seconds(disk.elapsed),
            if disk.verified { "verified" } else { "not verified" }
        );
    }
    world.close().await
}

/// The point that was named, or the machine's newest.
async fn choose(args: &Args, repository: &Repository, world: &World) -> Result<RecoveryPoint, Box<dyn Error>> {
    if let Some(id) = args.get("point") {
        return Ok(repository.point(&PointId::parse(id)?).await?);
    }
    let uuid = world.vm.instance_uuid.as_deref().ok_or("the machine has no instanceUuid: name a --point")?;
    let newest = repository.latest(&VmId::parse(uuid)?).await?;
    newest.ok_or_else(|| "the repository has no point of this machine".into())
}
