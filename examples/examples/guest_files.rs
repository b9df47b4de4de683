//! Files out of a machine's disks: from a snapshot over the network, or with `--repository` from the newest recovery point.
//!
//! ```sh
//! guest_files --url https://vc.example/sdk --user svc-backup --password-file secret --thumbprint 0A:1B:.. --vm dc1/vm/web \
//!     --find 'etc/**/*.conf' --to /srv/restored
//! guest_files --simulate
//! ```
//! Names the volumes and the operating systems on them; then finds files, or copies out what `--find` matches.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use examples::args::Args;
use examples::world::{WORLD_ARGS, World};
use vixdisklib::{Access, Connection, ConnectionOptions, Disk};
use vixmntapi::copy::CopyOut;
use vixmntapi::find::{Find, Pattern};
use vixmntapi::set::DiskSet;
use vmdk::Image;
use vsphere_backup::instant::InstantOptions;
use vsphere_backup::repository::{Repository, VmId};
use vsphere_vim::{CreateSnapshotOptions, RemoveSnapshotOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["repository=", "find=", "to="]].concat())?;
    let world = World::open(&args).await?;
    let wanted = Wanted {
        pattern: Pattern::new(args.get("find").unwrap_or("**/*1.dat"))?,
        folder: args.get("to").map(PathBuf::from),
    };

    let done = if let Some(path) = args.get("repository") {
        of_point(&world, Repository::open_local(path).await?, &wanted).await
    } else {
        of_snapshot(&world, &wanted).await
    };
    if args.has("simulate") && args.get("repository").is_none() {
        let folder = tempfile::tempdir()?;
        let again = of_point(&world, world.back_up_once(folder.path()).await?, &wanted).await?;
        if done.as_ref().is_ok_and(|found| *found != again) {
            return Err("the recovery point holds other files than the snapshot".into());
        }
    }
    world.close().await?;
    done.map(drop)
}

/// What is looked for, and where it goes.
#[derive(Clone)]
struct Wanted {
    pattern: Pattern,
    folder: Option<PathBuf>,
}

/// Takes a snapshot, reads its disks where they are, and removes it, whatever came of it.
async fn of_snapshot(world: &World, wanted: &Wanted) -> Result<Vec<String>, Box<dyn Error>> {
    let snapshot = world.vim.create_snapshot(&world.vm.moref, CreateSnapshotOptions::new("files")).await?;
    let read = async {
        let options = ConnectionOptions::new().snapshot(snapshot.clone());
        let connection =
            Connection::connect_with(&world.vim, &world.vm.moref, Access::ReadOnly, "nbdssl", options).await?;
        let mut disks = Vec::new();
        for found in connection.disks().await? {
            disks.push(connection.open(&found.path).await?);
        }
        let found = look(disks.iter().map(Disk::image).collect(), wanted.clone()).await;
        for disk in disks {
            disk.close().await?;
        }
        found
    }
    .await;
    world.vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await?;
    read
}

/// Reads the disks of the newest recovery point.
async fn of_point(world: &World, repository: Repository, wanted: &Wanted) -> Result<Vec<String>, Box<dyn Error>> {
    let uuid = world.vm.instance_uuid.as_deref().ok_or("the machine has no instance UUID")?;
    let point = repository.latest(&VmId::parse(uuid)?).await?.ok_or("there is no recovery point of this machine")?;
    let mut disks = Vec::new();
    for disk in point.disks() {
        disks.push(point.open_disk(disk.key, InstantOptions::read_only()).await?);
    }
    let found = look(disks.iter().map(|disk| disk.disk().image()).collect(), wanted.clone()).await?;
    for disk in disks {
        disk.close().await?;
    }
    Ok(found)
}

/// Reading files blocks: a thread of its own does it.
async fn look(disks: Vec<Arc<dyn Image>>, wanted: Wanted) -> Result<Vec<String>, Box<dyn Error>> {
    let work = move || read(disks, &wanted).map_err(|error| error.to_string());
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn read(disks: Vec<Arc<dyn Image>>, wanted: &Wanted) -> Result<Vec<String>, Box<dyn Error>> {
    let set = disks.into_iter().fold(DiskSet::builder(), |set, disk| set.disk(disk)).open()?;
    let mut paths = Vec::new();
    for system in set.os_info().systems {
        println!("operating system: {system:?}");
    }
    for volume in set.volumes()? {
        println!("volume {}: {} bytes, {:?}", volume.id(), volume.size(), volume.contents()?);
        let Ok(mounted) = volume.mount() else { continue };
        let files = mounted.file_system();
        for found in Find::new(files, wanted.pattern.clone()) {
            let found = found?;
            paths.push(format!("{}: {}", volume.id(), found.path));
            if let Some(folder) = &wanted.folder {
                CopyOut::of(files, found.node).run(folder)?;
            }
        }
    }
    println!("{} files match; the first: {:?}", paths.len(), paths.first());
    let figures = set.cache_figures();
    println!("{} reads of the disks, {} bytes", figures.reads, figures.read);
    Ok(paths)
}
