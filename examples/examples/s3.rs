//! Backs up one virtual machine into a bucket of S3, or of what speaks its protocol, and restores it from there.
//!
//! ```sh
//! s3 --url .. --user .. --password-file .. --thumbprint .. --vm dc1/vm/web --journal DIR \
//!    --bucket backups [--endpoint https://minio.example:9000] [--region eu-central-1] [--prefix site-a] \
//!    [--key-id ID --secret-file FILE] [--restore]
//! s3 --simulate
//! ```
//! Without keys the computer's own identity is used, by the metadata service of its cloud. With `--restore` nothing is
//! backed up: the newest point goes back into the machine, which has to be off; only what differs is written.
//! `--simulate` needs an S3 server, which `scripts/install-peers` installs.

use std::error::Error;
use std::sync::Arc;

use examples::args::Args;
use examples::show::{bytes, seconds};
use examples::world::{WORLD_ARGS, World};
use vsphere_backup::repository::storage::ObjectStorage;
use vsphere_backup::repository::storage::cloud::{HttpOptions, S3Builder, S3Credentials};
use vsphere_backup::repository::{CreateOptions, RecoveryPoint, Repository, VmId};
use vsphere_backup::{Backup, ChangeTracking, Restore, RestoreMode};
use vsphere_vim::Secret;

// The server that the tests use, too.
#[path = "../../vsphere-backup/tests/s3/server.rs"]
mod server;
use server::{BUCKET, Server};

const OWN_ARGS: [&str; 8] =
    ["journal=", "bucket=", "endpoint=", "region=", "prefix=", "key-id=", "secret-file=", "restore"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read(&[&WORLD_ARGS[..], &OWN_ARGS].concat())?;
    if args.has("simulate") {
        // Without the server there is nothing to show; it has said so.
        let Some(server) = Server::start()? else { return Ok(()) };
        return simulate(&args, &server).await;
    }
    let repository = open(bucket(&args)?).await?;
    let world = World::open(&args).await?;
    if args.has("restore") {
        let uuid = world.vm.instance_uuid.as_deref().ok_or("the machine has no instanceUuid")?;
        let newest = repository.latest(&VmId::parse(uuid)?).await?;
        restore(&world, &newest.ok_or("the bucket has no point of this machine")?).await?;
    } else {
        let job = Backup::of(&world.vim, world.vm.moref.clone()).journal(args.need("journal")?);
        back_up(job, &repository).await?;
    }
    world.close().await
}

/// The bucket that the arguments name.
fn bucket(args: &Args) -> Result<S3Builder, Box<dyn Error>> {
    let credentials = match args.get("key-id") {
        Some(id) => {
            let secret = std::fs::read_to_string(args.need("secret-file")?)?;
            S3Credentials::keys(id, Secret::new(secret.trim_end()))
        }
        None => S3Credentials::Instance,
    };
    let mut bucket = ObjectStorage::s3(args.need("bucket")?).credentials(credentials);
    if let Some(endpoint) = args.get("endpoint") {
        bucket = bucket.endpoint(endpoint);
    }
    if let Some(region) = args.get("region") {
        bucket = bucket.region(region);
    }
    Ok(bucket.prefix(args.get("prefix").unwrap_or_default()))
}

/// Opens the repository in a bucket, and makes it the first time.
async fn open(bucket: S3Builder) -> Result<Repository, vsphere_backup::Error> {
    let storage = Arc::new(bucket.build()?);
    match Repository::open(storage.clone()).await {
        Err(vsphere_backup::Error::NotARepository { .. }) => {
            Repository::create(storage, CreateOptions::default()).await
        }
        opened => opened,
    }
}

async fn back_up(job: Backup, repository: &Repository) -> Result<RecoveryPoint, vsphere_backup::Error> {
    let report = job.run(repository).await?;
    let all = report.bytes();
    let (read, stored, elapsed) = (bytes(all.read), bytes(all.stored), seconds(report.elapsed));
    println!("recovery point {}: {read} read, {stored} stored, in {elapsed}", report.point.id());
    Ok(report.point)
}

async fn restore(world: &World, point: &RecoveryPoint) -> Result<(), vsphere_backup::Error> {
    let report =
        Restore::of(point).mode(RestoreMode::OnlyDifferences).to_vm(&world.vim, world.vm.moref.clone()).await?;
    for disk in &report.disks {
        let (written, unchanged) = (bytes(disk.bytes.written), bytes(disk.bytes.unchanged));
        println!("disk {}: {written} written, {unchanged} right already, in {}", disk.key, seconds(disk.elapsed));
    }
    Ok(())
}

/// Two backups, damage to the machine, and back to the first of them.
async fn simulate(args: &Args, server: &Server) -> Result<(), Box<dyn Error>> {
    let world = World::open(args).await?;
    let scratch = tempfile::tempdir()?;
    let bucket = ObjectStorage::s3(BUCKET)
        .endpoint(format!("http://127.0.0.1:{}", server.port))
        .credentials(S3Credentials::keys("anybody", Secret::new("anything")))
        // What a server elsewhere never should be allowed.
        .http(HttpOptions::default().plain(true));
    let repository = open(bucket).await?;
    let vm = world.simulator.as_ref().ok_or("there is no simulator")?.vm("web")?;
    let disk = vm.guest().disk(2000)?;
    let mut before = vec![0; disk.capacity() as usize];
    disk.read_at(0, &mut before)?;

    let job = Backup::of(&world.vim, world.vm.moref.clone()).journal(scratch.path());
    let job = job.change_tracking(ChangeTracking::Enable);
    let first = back_up(job.clone(), &repository).await?;
    disk.write_at(1 << 20, &[0xbd; 300 << 10])?;
    back_up(job, &repository).await?;

    vm.set_power(vsphere_sim::Power::Off)?;
    restore(&world, &first).await?;
    let mut after = vec![0; before.len()];
    disk.read_at(0, &mut after)?;
    if before != after {
        return Err("the restored disk is not what it was".into());
    }
    world.close().await
}
