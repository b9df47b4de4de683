//! What does each transport cost the client? The same disk from front to back over all of them.
//!
//! The simulator runs in a process of its own on the same processors, and is part of the speed, not of the processor
//! time. No bar: one transport is told from the other.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use vixdisklib::lease::LeaseSource;
use vixdisklib::{Access, Connection, Disk};
use vsphere_vim::lease::LeaseOptions;
use vsphere_vim::{MoRef, Vim, mo};

use crate::world::World;
use crate::{megabytes_per_second, process};

/// Of the disk, half of it holes.
const BYTES: u64 = 2 << 30;
/// A call, and how many are under way.
const PIECE: usize = 1 << 20;
const DEPTH: usize = 8;

/// Asks all.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.raw");
    crate::backup::image::make(&image, BYTES, 0)?;
    let world = World::start(&image)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(all(&world, &image))
}

async fn all(world: &World, image: &Path) -> Result<(), Box<dyn Error>> {
    let vim = world.connect().await?;
    let vm = MoRef::new(&world.vm);
    let path = vim.disks(&vm).await?.remove(0).backing.file_name.ok_or("the disk has no file")?;
    for transport in ["nbdssl", "nbd", "https"] {
        let connection = Connection::connect(&vim, &vm, Access::ReadOnly, transport).await?;
        measure(transport, whole(connection.open(&path).await?)).await?;
    }
    let file = image.to_str().ok_or("the folder's name is not text")?;
    measure("file", whole(Connection::local(Access::ReadOnly).open(file).await?)).await?;
    measure("lease", leased(&vim, &vm)).await?;
    vim.logout().await?;
    Ok(())
}

async fn measure(name: &str, work: impl Future<Output = Result<u64, Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    let (begun, before) = (Instant::now(), process::own_time()?);
    let bytes = work.await?;
    let (took, cpu) = (begun.elapsed(), process::own_time()?.saturating_sub(before));
    #[expect(clippy::cast_precision_loss, reason = "figures are shown with two digits")]
    let each = cpu.as_secs_f64() / (bytes as f64 / f64::from(1 << 30));
    println!(
        "figure: transports {name} {:.0} MB/s, {each:.2} CPU s/GiB of the client ({bytes} bytes)",
        megabytes_per_second(bytes, took)
    );
    Ok(())
}

/// Reads a disk from front to back, many calls at a time.
async fn whole(disk: Disk) -> Result<u64, Box<dyn Error>> {
    let offsets = stream::iter((0..BYTES).step_by(PIECE));
    let read = offsets.map(|at| disk.read_at(at, PIECE)).buffered(DEPTH);
    let bytes = read.try_fold(0, async |sum, piece| Ok(sum + piece.len() as u64)).await?;
    disk.close().await?;
    Ok(bytes)
}

/// Streams the disk; holes are not sent, but count.
async fn leased(vim: &Vim, vm: &MoRef<mo::VirtualMachine>) -> Result<u64, Box<dyn Error>> {
    let source = LeaseSource::of_vm(vim, vm, LeaseOptions::default()).await?;
    let device = source.disks().next().cloned().ok_or("the lease has no disk")?;
    let mut disk = source.read(&device).await?;
    let mut bytes = 0;
    while let Some(piece) = disk.next().await? {
        bytes += piece.range().end - piece.range().start;
    }
    source.complete().await?;
    Ok(bytes)
}
