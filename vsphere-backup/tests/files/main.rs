//! Restores into files that end early and are run again: no server, no simulator.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.
#![allow(clippy::single_range_in_vec_init)] // A list of one area is what is meant.

#[allow(dead_code)] // Shared with the other tests.
#[path = "../it/world.rs"]
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tokio::sync::Notify;
use vsphere_backup::{
    Error, FileFormat, Restore, Result,
    engine::MemoryDisk,
    repository::{
        RecoveryPoint,
        storage::{BoxFuture, Fault, Faulty, MemoryStorage},
    },
    step::{Step, StepCall, StepHook},
};

use crate::world::{CHUNK, MIB, back_up, noise, open, repository};

const FORMATS: [(FileFormat, &str); 3] =
    [(FileFormat::Raw, "disk.img"), (FileFormat::VmdkFlat, "disk.vmdk"), (FileFormat::VmdkSparse, "disk.vmdk")];
const WRITES: usize = 12;

struct World {
    storage: Arc<MemoryStorage>,
    point: RecoveryPoint,
    bytes: Vec<u8>,
    folder: TempDir,
}

impl World {
    /// A point of a disk that is written in so many pieces, with holes between and an odd end.
    async fn new() -> Self {
        let mut bytes = vec![0; WRITES * 2 * CHUNK as usize + 512];
        for at in 0..WRITES as u64 {
            let from = (at * 2 * CHUNK) as usize;
            bytes[from..from + CHUNK as usize].copy_from_slice(&noise(at, CHUNK));
        }
        let end = bytes.len() - 512;
        bytes[end..].copy_from_slice(&noise(99, 512));
        Self::of(bytes).await
    }

    async fn of(bytes: Vec<u8>) -> Self {
        let (storage, repository) = repository().await;
        let len = bytes.len() as u64;
        let (point, _) = back_up(&repository, &MemoryDisk::new(bytes.clone()), &[0..len], None).await.unwrap();
        Self { storage, point, bytes, folder: tempfile::tempdir().unwrap() }
    }

    /// Another point of a disk of the same size.
    async fn other(&self) -> (RecoveryPoint, Vec<u8>) {
        let bytes: Vec<u8> = self.bytes.iter().rev().copied().collect();
        let repository = open(self.storage.clone()).await.unwrap();
        let all = [0..bytes.len() as u64];
        (back_up(&repository, &MemoryDisk::new(bytes.clone()), &all, None).await.unwrap().0, bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Lets a restore fail at a write.
    async fn cut(&self, at: usize, path: &Path, format: FileFormat) {
        let hook = Arc::new(FailsAt { write: at, seen: AtomicUsize::new(0) });
        let cut = Restore::of(&self.point).step_hook(hook).to_file(2000, path, format).await;
        assert!(matches!(cut, Err(Error::Disk { .. })), "write {at}: {cut:?}");
    }

    fn assert_is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

struct FailsAt {
    write: usize,
    seen: AtomicUsize,
}

impl StepHook for FailsAt {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        let fails = call.step == Step::WriteDisk && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.write;
        let injected = || Error::Refused { vm: "a write".into(), reason: "injected".into(), hint: None };
        Box::pin(std::future::ready(if fails { Err(injected()) } else { Ok(()) }))
    }
}

/// Hangs at a write, the first being 1.
struct HangAt {
    write: usize,
    seen: AtomicUsize,
    hangs: Notify,
    /// Lets it go on.
    go: Notify,
}

impl HangAt {
    fn new(write: usize) -> Arc<Self> {
        Arc::new(Self { write, seen: AtomicUsize::new(0), hangs: Notify::new(), go: Notify::new() })
    }
}

impl StepHook for HangAt {
    fn before<'a>(&'a self, call: &'a StepCall) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if call.step == Step::WriteDisk && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.write {
                self.hangs.notify_one();
                self.go.notified().await;
            }
            Ok(())
        })
    }
}

fn read(path: &Path, format: FileFormat) -> Vec<u8> {
    let image = match format {
        FileFormat::Raw => vmdk::Disk::open_raw(path, vmdk::Access::ReadOnly),
        _ => vmdk::Disk::open(path, &vmdk::OpenOptions::new()),
    };
    let image = image.unwrap();
    let mut bytes = vec![0; image.capacity() as usize];
    image.read_at(0, &mut bytes).unwrap();
    let report = vmdk::check::check(path, &vmdk::check::CheckOptions::new());
    assert!(format == FileFormat::Raw || report.unwrap().is_clean(), "{}", path.display());
    bytes
}

async fn restore(point: &RecoveryPoint, path: &Path, format: FileFormat) -> vsphere_backup::engine::RestoredDisk {
    Restore::of(point).to_file(2000, path, format).await.unwrap().disks.remove(0).bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_cut_at_any_write_goes_on_there() {
    let world = World::new().await;
    for (format, name) in FORMATS {
        let whole = (WRITES as u64) * CHUNK + 512;
        let mut spared = 0;
        // The last one is the flush.
        for at in 1..=WRITES + 2 {
            let path = world.path(name);
            world.cut(at, &path, format).await;
            assert!(!path.exists(), "{format:?}, write {at}");
            let done = restore(&world.point, &path, format).await;
            assert!(read(&path, format) == world.bytes, "{format:?}, write {at}");
            // Eight are in flight, and only those without a gap below them count.
            assert!(
                done.written <= whole && (at < WRITES + 2 || done.written == 0),
                "{format:?}, write {at}: {done:?}"
            );
            spared += usize::from(done.written < whole);
            assert!(!path.with_file_name(format!("{name}.restoring")).exists());
            fs::remove_file(&path).unwrap();
            let _ = fs::remove_file(world.path("disk-flat.vmdk"));
        }
        assert!(spared > WRITES / 2, "{format:?}: {spared}");
    }
    world.assert_is_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_dropped_at_any_write_is_made_whole_by_the_next() {
    let world = World::new().await;
    for (format, name) in FORMATS {
        for at in [1, WRITES / 2, WRITES + 2] {
            let (path, hook) = (world.path(name), HangAt::new(at));
            tokio::select! {
                done = Restore::of(&world.point).step_hook(hook.clone()).to_file(2000, &path, format) => panic!("{done:?}"),
                () = hook.hangs.notified() => {}
            }
            assert!(!path.exists());
            restore(&world.point, &path, format).await;
            assert!(read(&path, format) == world.bytes, "{format:?}, write {at}");
            fs::remove_file(&path).unwrap();
            let _ = fs::remove_file(world.path("disk-flat.vmdk"));
        }
    }
    world.assert_is_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_restore_that_is_dropped_has_noted_how_far_it_was() {
    let mut bytes = vec![0; 80 * MIB as usize];
    let piece = noise(1, MIB);
    bytes.chunks_mut(MIB as usize).for_each(|part| part.copy_from_slice(&piece));
    let world = World::of(bytes).await;
    let path = world.path("disk.img");
    let hook = HangAt::new(20);
    let record = world.path("disk.img.restoring/record.json");
    let noted = async {
        hook.hangs.notified().await;
        while fs::read_to_string(&record).unwrap().contains(r#""position":0,"#) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = Restore::of(&world.point).step_hook(hook.clone()).to_file(2000, &path, FileFormat::Raw) => panic!("{done:?}"),
        () = noted => {}
    }
    let done = restore(&world.point, &path, FileFormat::Raw).await;
    assert!(done.compared >= 64 * MIB && done.written <= 16 * MIB, "{done:?}");
    assert!(fs::read(&path).unwrap() == world.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_below_the_position_is_mended_and_zeros_above_it_are_zeros() {
    let world = World::new().await;
    for (format, name) in FORMATS {
        let path = world.path(name);
        world.cut(WRITES + 2, &path, format).await;
        let begun = path.with_file_name(format!("{name}.restoring"));
        // Somebody wrote to it: into data, and into a hole.
        let file = begun.join(name);
        let image = match format {
            FileFormat::Raw => vmdk::Disk::open_raw(&file, vmdk::Access::ReadWrite),
            _ => vmdk::Disk::open(&file, &vmdk::OpenOptions::new().writable()),
        };
        let image = image.unwrap();
        image.write_at(2 * CHUNK + 7, b"not this").unwrap();
        image.write_at(CHUNK + 7, b"nor this").unwrap();
        image.write_at(3 * CHUNK + 7, b"nor that").unwrap();
        image.close().unwrap();
        // The record says less than was written.
        let record = fs::read_to_string(begun.join("record.json")).unwrap();
        let (head, _) = record.split_once("\"position\":").unwrap();
        fs::write(begun.join("record.json"), format!("{head}\"position\":{},\"placing\":false}}", 2 * CHUNK)).unwrap();
        restore(&world.point, &path, format).await;
        assert!(read(&path, format) == world.bytes, "{format:?}");
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_other_work_or_without_its_files_is_not_believed() {
    let world = World::new().await;
    let (other, bytes) = world.other().await;
    let whole = (WRITES as u64) * CHUNK + 512;
    let (path, format) = (world.path("disk.img"), FileFormat::Raw);
    let file = world.path("disk.img.restoring/disk.img");
    world.cut(WRITES, &path, format).await;
    let done = restore(&other, &path, format).await;
    assert!(done.compared == 0 && read(&path, format) == bytes, "{done:?}");
    for (what, break_it) in [
        ("shorter", (|file: &Path| fs::write(file, b"short").unwrap()) as fn(&Path)),
        ("gone", |file| fs::remove_file(file).unwrap()),
        ("a link", |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/dev/null", file).unwrap();
        }),
        ("a torn record", |file| fs::write(file.with_file_name("record.json"), b"{\"repo").unwrap()),
    ] {
        fs::remove_file(&path).unwrap();
        world.cut(WRITES, &path, format).await;
        break_it(&file);
        let done = restore(&world.point, &path, format).await;
        assert_eq!((done.compared, done.written), (0, whole), "{what}");
        assert!(read(&path, format) == world.bytes, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_ended_between_two_files_is_ended_and_a_file_in_use_is_left_alone() {
    let world = World::new().await;
    let placing = |begun: &Path| {
        let record = fs::read_to_string(begun.join("record.json")).unwrap();
        fs::write(begun.join("record.json"), record.replace("\"placing\":false", "\"placing\":true")).unwrap();
    };
    let path = world.path("disk.vmdk");
    world.cut(WRITES + 2, &path, FileFormat::VmdkFlat).await;
    let begun = world.path("disk.vmdk.restoring");
    placing(&begun);
    fs::rename(begun.join("disk-flat.vmdk"), world.path("disk-flat.vmdk")).unwrap();
    let done = restore(&world.point, &path, FileFormat::VmdkFlat).await;
    assert!(done.written == 0 && read(&path, FileFormat::VmdkFlat) == world.bytes, "{done:?}");
    assert!(!begun.exists());

    // All were moved, only the folder stayed; since then the file is its owner's.
    let path = world.path("disk.img");
    world.cut(WRITES + 2, &path, FileFormat::Raw).await;
    let begun = world.path("disk.img.restoring");
    placing(&begun);
    fs::remove_file(begun.join("disk.img")).unwrap();
    fs::write(&path, b"in use").unwrap();
    let refused = Restore::of(&world.point).to_file(2000, &path, FileFormat::Raw).await;
    assert!(matches!(refused, Err(Error::File { .. })), "{refused:?}");
    assert!(fs::read(&path).unwrap() == b"in use" && !begun.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_file_stays_until_the_new_one_is_whole() {
    let world = World::new().await;
    let path = world.path("disk.img");
    fs::write(&path, b"old").unwrap();
    for format in [FileFormat::Raw, FileFormat::VmdkStreamOptimized] {
        // The operations before are those of opening; where it is cut does not matter.
        for at in (0..40).step_by(3) {
            let faulty = Arc::new(Faulty::new(world.storage.clone(), at, Fault::Error));
            let Ok(repository) = open(faulty).await else { continue };
            let Ok(point) = repository.point(world.point.id()).await else { continue };
            let done = Restore::of(&point).overwrite(true).to_file(2000, &path, format).await;
            if done.is_ok() {
                assert!(fs::read(&path).unwrap() != b"old");
                fs::write(&path, b"old").unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), b"old", "{format:?}, operation {at}: {done:?}");
        }
        let _ = fs::remove_dir_all(world.path("disk.img.restoring"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_restore_makes_a_file_and_it_gives_nobody_elses_name_away() {
    let world = World::new().await;
    let (path, hook) = (world.path("disk.img"), HangAt::new(5));
    let first = Restore::of(&world.point).step_hook(hook.clone()).to_file(2000, &path, FileFormat::Raw);
    let second = async {
        hook.hangs.notified().await;
        let second = Restore::of(&world.point).to_file(2000, &path, FileFormat::Raw).await;
        // Somebody else makes a file of that name meanwhile.
        fs::write(&path, b"another").unwrap();
        hook.go.notify_one();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(second, Err(Error::File { operation: "locking the folder of", .. })), "{second:?}");
    assert!(matches!(first, Err(Error::File { operation: "naming", .. })), "{first:?}");
    assert_eq!(fs::read(&path).unwrap(), b"another");
    fs::remove_file(&path).unwrap();
    // Nothing is lost by it.
    assert_eq!(restore(&world.point, &path, FileFormat::Raw).await.written, 0);
    assert!(fs::read(&path).unwrap() == world.bytes);
}
