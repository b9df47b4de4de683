//! Files out of disks: how fast file systems are opened, listed and read, beside the kernel's or a Debian tool's own
//! reader and Python's dissect, and what that costs over a line with a round trip of 10 ms.

mod far;
mod image;
mod peers;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vixmntapi::device::{CacheOptions, CachedDisk, Device, PageCache};
use vixmntapi::fs::{FileName, FileSystem, NodeId, open};
use vmdk::{Access, Disk, Image};

use self::far::Far;
use self::image::{BIG, BIG_SIZE, FILES, Kind, MANY};
use crate::{megabytes_per_second, verdict};

/// `files` measures all kinds, `files ext4 ntfs` these.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let chosen: Vec<String> = std::env::args().skip(2).collect();
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    image::source(&source)?;
    for kind in Kind::ALL.into_iter().filter(|kind| chosen.is_empty() || chosen.iter().any(|name| name == kind.name()))
    {
        let path = folder.path().join(kind.name());
        let measured = kind
            .make(&source, &path)
            .map_err(|error| format!("its image cannot be made here: {error}").into())
            .and_then(|()| near(kind, &path))
            .and_then(|()| far(kind, &path));
        if let Err(error) = measured {
            println!("figure: files {} not measured: {error}", kind.name());
        }
        let _ = std::fs::remove_file(&path);
    }
    Ok(())
}

/// The image is in the page cache of this computer.
fn near(kind: Kind, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut ours = Times::MAX;
    for _ in 0..3 {
        let disk: Arc<dyn Image> = Arc::new(Disk::open_raw(path, Access::ReadOnly)?);
        ours = ours.best(Times::of(disk)?);
    }
    let name = kind.name();
    let (met, milliseconds) = (verdict(ours.open < Duration::from_millis(20)), ours.open.as_secs_f64() * 1e3);
    println!("figure: files {name} open {milliseconds:.2} ms (20 ms: {met})");
    let listed = ours.list.as_secs_f64();
    println!("figure: files {name} list {FILES} files with what there is to know of each {listed:.3} s");
    match peers::dissect(kind, path)? {
        Some(time) => {
            let times = time.as_secs_f64() / listed;
            println!(
                "figure: files {name} list {times:.0} times as fast as dissect, {:.2} s (20: {})",
                time.as_secs_f64(),
                verdict(times >= 20.0)
            );
        }
        None => println!("figure: files {name} dissect does not read it or is not installed: no comparison"),
    }
    let speed = megabytes_per_second(BIG_SIZE, ours.read);
    println!("figure: files {name} read {speed:.0} MB/s");
    match peers::native(kind, path)? {
        Some((peer, time)) => {
            let (theirs, share) = (megabytes_per_second(BIG_SIZE, time), time.as_secs_f64() / ours.read.as_secs_f64());
            println!(
                "figure: files {name} read {share:.2} of {peer}, {theirs:.0} MB/s (0.7: {})",
                verdict(share >= 0.7)
            );
        }
        None => println!("figure: files {name} its native reader is not installed or not permitted: no comparison"),
    }
    Ok(())
}

/// Each read of the disk takes a round trip.
fn far(kind: Kind, path: &Path) -> Result<(), Box<dyn Error>> {
    let far = Arc::new(Far::new(Disk::open_raw(path, Access::ReadOnly)?, Duration::from_millis(10)));
    let files = mount(far.clone())?;
    let many = find(&files, MANY)?;
    far.reset();
    let begun = Instant::now();
    list(&files, many)?;
    let ((reads, bytes), name) = (far.reset(), kind.name());
    println!(
        "figure: files {name} far list {:.2} s, {reads} round trips, {} KiB",
        begun.elapsed().as_secs_f64(),
        bytes >> 10
    );
    let content = files.clone().open(find(&files, BIG)?, None)?;
    far.reset();
    let mut piece = vec![0; 64 << 10];
    for at in (0..FAR_SIZE).step_by(piece.len()) {
        content.read_at(at, &mut piece)?;
    }
    let (reads, bytes) = far.reset();
    #[expect(clippy::cast_precision_loss, reason = "figures are shown with two digits")]
    let (more, per_trip) = (bytes as f64 / FAR_SIZE as f64, FAR_SIZE as f64 / 1024.0 / reads as f64);
    println!(
        "figure: files {name} far read of 64 MiB in 64 KiB: {more:.2} bytes for each needed (1.5: {}), {per_trip:.0} KiB in each round trip (256: {})",
        verdict(more < 1.5),
        verdict(per_trip >= 256.0)
    );
    Ok(())
}

/// What is measured of ours.
struct Times {
    open: Duration,
    list: Duration,
    read: Duration,
}

impl Times {
    const MAX: Self = Self { open: Duration::MAX, list: Duration::MAX, read: Duration::MAX };

    fn of(disk: Arc<dyn Image>) -> Result<Self, Box<dyn Error>> {
        let begun = Instant::now();
        let files = mount(disk)?;
        let open = begun.elapsed();
        let begun = Instant::now();
        let many = find(&files, MANY)?;
        let listed = list(&files, many)?;
        let list = begun.elapsed();
        if listed != FILES {
            return Err(format!("{listed} of {FILES} files were listed").into());
        }
        let begun = Instant::now();
        let content = files.clone().open(find(&files, BIG)?, None)?;
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while let len @ 1.. = content.read_at(at, &mut piece)? {
            at += len as u64;
        }
        if at != BIG_SIZE {
            return Err(format!("{at} of {BIG_SIZE} bytes were read").into());
        }
        Ok(Self { open, list, read: begun.elapsed() })
    }

    fn best(self, other: Self) -> Self {
        Self { open: self.open.min(other.open), list: self.list.min(other.list), read: self.read.min(other.read) }
    }
}

fn mount(disk: Arc<dyn Image>) -> Result<Arc<dyn FileSystem>, Box<dyn Error>> {
    let cache = PageCache::new(CacheOptions::default());
    let disk: Arc<dyn Device> = Arc::new(CachedDisk::new(disk, &cache, "disk 0"));
    open(&disk)?.ok_or_else(|| "the file system is not recognised".into())
}

fn find(files: &Arc<dyn FileSystem>, name: &str) -> Result<NodeId, Box<dyn Error>> {
    files.lookup(files.root(), &FileName::from(name))?.ok_or_else(|| format!("{name} is not found").into())
}

/// Lists a directory and asks for the metadata of everything in it; how many there are.
fn list(files: &Arc<dyn FileSystem>, directory: NodeId) -> Result<u64, Box<dyn Error>> {
    let mut count = 0;
    for entry in files.clone().read_dir(directory)? {
        std::hint::black_box(files.metadata(entry?.node)?);
        count += 1;
    }
    Ok(count)
}

/// How much of the large file is read over the slow line.
const FAR_SIZE: u64 = 64 << 20;
