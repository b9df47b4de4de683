//! Exports the disks of a machine as `streamOptimized` VMDKs over HTTPS: no disk library, no port 902.
//!
//! The machine is snapshotted, so it may run. Slower than `backup` and always whole disks; good for a copy to keep.
//!
//! ```sh
//! export --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web --to FOLDER
//! export --simulate
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use examples::args::Args;
use examples::show::bytes;
use examples::world::{WORLD_ARGS, World};
use vmdk::stream::StreamReader;
use vsphere_vim::lease::{DeviceStream, LeaseOptions};
use vsphere_vim::{CreateSnapshotOptions, MoRef, RemoveSnapshotOptions, Vim, mo};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &["to="]].concat())?;
    let world = World::open(&args).await?;
    let scratch = tempfile::tempdir()?;
    let folder = match args.get("to") {
        Some(folder) => PathBuf::from(folder),
        None if args.has("simulate") => scratch.path().to_owned(),
        None => return Err("--to is needed".into()),
    };

    let vim = &world.vim;
    let snapshot = vim.create_snapshot(&world.vm.moref, CreateSnapshotOptions::new("export")).await?;
    let exported = export(vim, &snapshot, &folder).await;
    // Whatever came of it: the snapshot goes.
    vim.remove_snapshot(&snapshot, RemoveSnapshotOptions::default()).await?;
    for file in exported? {
        let mut disk = StreamReader::open(BufReader::new(File::open(&file)?), file.display().to_string())?;
        let mut data = 0;
        while let Some(grain) = disk.next_grain()? {
            data += grain.data.len() as u64;
        }
        println!("{}: disk of {}, {} in use", file.display(), bytes(disk.capacity()), bytes(data));
    }
    world.close().await
}

async fn export(
    vim: &Vim,
    snapshot: &MoRef<mo::VirtualMachineSnapshot>,
    folder: &Path,
) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let lease = vim.export_snapshot(snapshot, LeaseOptions::default()).await?;
    let mut files = Vec::new();
    for (number, device) in lease.devices().iter().filter(|device| device.is_disk).enumerate() {
        let file = folder.join(format!("disk-{number}.vmdk"));
        save(lease.download(device).await?, &file).await?;
        files.push(file);
    }
    let report = lease.complete().await?;
    println!("{} files, {} of them checked against the server's manifest", report.files.len(), report.checked());
    Ok(files)
}

async fn save(mut disk: DeviceStream, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = File::create(file)?;
    while let Some(piece) = disk.try_next().await? {
        out.write_all(&piece)?;
    }
    out.sync_all()?;
    Ok(())
}
