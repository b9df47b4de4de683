//! How long does a full backup over nbdssl take, against the bare work on the same bytes?
//!
//! The limit: two threads that test for zeros, hash with BLAKE3 and compress with zstd level 1, and write one file
//! that is synced; no server, no protocol, no TLS, no index. Server and client share the machine here, so the ratio
//! also holds the simulator's own work and two ends of TLS.

use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vsphere_backup::Backup;
use vsphere_backup::repository::{CreateOptions, Repository};
use vsphere_sim::{DiskSpec, Simulator, VmSpec};
use vsphere_vim::{Credentials, MoRef, Vim};

use crate::megabytes_per_second;

const DISK: u64 = 4 << 30;
const CHUNK: usize = 256 * 1024;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    let data = make_image(&image)?;
    let limit = bare(&image, &folder.path().join("bare.out"))?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (time, stored) = runtime.block_on(full(&image, folder.path()))?;
    println!(
        "figure: backup full of {DISK} bytes ({data} data) over nbdssl {:.2} s, {:.0} MB/s of data",
        time.as_secs_f64(),
        megabytes_per_second(data, time)
    );
    println!("figure: backup bare work on the same bytes {:.2} s", limit.0.as_secs_f64());
    println!("figure: backup ratio {:.2} of the bare work's time", time.as_secs_f64() / limit.0.as_secs_f64());
    println!("figure: backup stored {stored} bytes, bare {} bytes", limit.1);
    Ok(())
}

/// Half holes, a third of the rest incompressible.
fn make_image(path: &Path) -> std::io::Result<u64> {
    make_image_of(path, DISK)
}

/// The same of `size` bytes; how many of them are data.
pub(crate) fn make_image_of(path: &Path, size: u64) -> std::io::Result<u64> {
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(size)?;
    let mut state = 88_172_645_463_325_252u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut written = 0;
    let mut block = vec![0u8; 1 << 20];
    for at in (0..size).step_by(2 << 20) {
        let random = (at >> 21).is_multiple_of(3);
        for word in block.chunks_exact_mut(8) {
            let number = next();
            // Text-like: few different values, so that zstd halves it or better.
            word.copy_from_slice(
                &if random { number } else { number & 0x0f0f_0303_0101_0f0f | 0x2020_2020_2020_2020 }.to_le_bytes(),
            );
        }
        file.write_all_at(&block, at)?;
        written += block.len() as u64;
    }
    file.sync_all()?;
    Ok(written)
}

/// The bare work; its time and how much it stored.
fn bare(image: &Path, out: &Path) -> std::io::Result<(Duration, u64)> {
    let (input, output) = (std::fs::File::open(image)?, std::fs::File::create(out)?);
    let (at, end) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let work = || -> std::io::Result<()> {
        let mut chunk = vec![0u8; CHUNK];
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        loop {
            let offset = at.fetch_add(CHUNK as u64, Ordering::Relaxed);
            if offset >= DISK {
                return Ok(());
            }
            input.read_exact_at(&mut chunk, offset)?;
            if chunk.iter().all(|byte| *byte == 0) {
                continue;
            }
            std::hint::black_box(blake3::hash(&chunk));
            let packed = compressor.compress(&chunk)?;
            let packed = if packed.len() < chunk.len() { &packed } else { &chunk };
            let place = end.fetch_add(packed.len() as u64, Ordering::Relaxed);
            output.write_all_at(packed, place)?;
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work().and(other.join().map_err(|_| std::io::Error::other("a thread failed"))?)
    })?;
    (&output).flush()?;
    output.sync_all()?;
    Ok((begun.elapsed(), end.into_inner()))
}

async fn full(image: &Path, folder: &Path) -> Result<(Duration, u64), Box<dyn Error>> {
    let machine = VmSpec::new("bench").disk(DiskSpec::raw_file(image));
    let simulator = Simulator::builder().vm(machine).start().await?;
    let vim = Vim::builder(simulator.url())
        .credentials(Credentials::password(simulator.username(), simulator.password()))
        .thumbprint(simulator.thumbprint_sha256().parse()?)
        .connect()
        .await?;
    let vm = MoRef::new(simulator.vm("bench")?.id());
    let repository = Repository::create_local(folder.join("repository"), CreateOptions::default()).await?;
    let report = Backup::of(&vim, vm).journal(folder.join("journal")).run(&repository).await?;
    vim.logout().await?;
    simulator.shutdown().await;
    Ok((report.elapsed, report.bytes().stored))
}
