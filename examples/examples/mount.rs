//! A machine's files as a folder of this computer, until SIGINT or SIGTERM: the disks of a VMDK, or of the newest
//! recovery point.
//!
//! ```sh
//! mount --vmdk web.vmdk --at /mnt/web
//! mount --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. --vm dc1/vm/web \
//!     --repository /srv/backups --at /mnt/web
//! mount --simulate
//! ```
//! Each volume is a folder in it. `--everyone` lets other users in, as far as the guest's permissions go.

use std::error::Error;
use std::path::PathBuf;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};
use tokio::signal::unix::{SignalKind, signal};
use vixmntapi::fuse::{Access, FuseMount};
use vixmntapi::set::{DiskSet, DiskSetBuilder};
use vsphere_backup::instant::InstantOptions;
use vsphere_backup::repository::{Repository, VmId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["vmdk=", "repository=", "at=", "everyone"]].concat())?;
    if let Some(vmdk) = args.get("vmdk") {
        return serve(DiskSet::builder().vmdk(vmdk)?, &args).await;
    }
    let world = World::open(&args).await?;
    let folder = tempfile::tempdir()?;
    let repository = match args.get("repository") {
        Some(path) => Repository::open_local(path).await?,
        None => world.back_up_once(folder.path()).await?,
    };
    let uuid = world.vm.instance_uuid.as_deref().ok_or("the machine has no instance UUID")?;
    let point = repository.latest(&VmId::parse(uuid)?).await?.ok_or("there is no recovery point of this machine")?;
    let mut disks = Vec::new();
    for disk in point.disks() {
        disks.push(point.open_disk(disk.key, InstantOptions::read_only()).await?);
    }
    let set = disks.iter().fold(DiskSet::builder(), |set, disk| set.disk(disk.disk().image()));
    let served = serve(set, &args).await;
    for disk in disks {
        disk.close().await?;
    }
    world.close().await?;
    served
}

/// Mounts the volumes of a set, and unmounts them when the process is asked to end.
async fn serve(set: DiskSetBuilder, args: &Args) -> Result<(), Box<dyn Error>> {
    // Asked for before the mount: no signal comes between.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let simulated = tempfile::tempdir()?;
    let folder = args.get("at").map_or_else(|| simulated.path().to_owned(), PathBuf::from);
    let access = if args.has("everyone") { Access::Everyone } else { Access::Owner };
    // Opening volumes reads disks, and that blocks.
    let mount = move || -> vixmntapi::Result<FuseMount> {
        FuseMount::of_volumes(set.open()?.volumes()?)?.access(access).at(folder)
    };
    let mut mount = tokio::task::spawn_blocking(mount).await??;
    println!("mounted on {}", mount.folder().display());
    if args.has("simulate") {
        let listed = tokio::process::Command::new("find").arg(mount.folder()).output().await?;
        println!("find sees {} names", listed.stdout.iter().filter(|byte| **byte == b'\n').count());
        // What another program would do.
        ask_to_end(std::process::id()).await?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Dropping would do as well; this tells when a program still uses it.
    tokio::task::spawn_blocking(move || {
        let done = mount.unmount();
        println!("unmounted: {}", !mount.is_mounted());
        done
    })
    .await??;
    Ok(())
}

/// Asks a process to end.
async fn ask_to_end(process: u32) -> Result<(), Box<dyn Error>> {
    let done = tokio::process::Command::new("kill").args(["-TERM", &process.to_string()]).status().await?;
    if done.success() { Ok(()) } else { Err("kill failed".into()) }
}
