//! Storage that dies, loses what was not flushed, or fails to flush: what must stay, stays.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use vmdk::{
    Access, ChildSpec, CreateKind, CreateSpec, Disk, Error, Handle, MemSource, OpenOptions, ReadAt, Resolver, WriteAt,
    create, create_child, layout::SparseHeader,
};

use crate::support::{Random, content, holey};

const GRAIN: usize = 65536;

/// A file whose changes since the last sync can be lost, and that can stop taking any.
#[derive(Debug)]
struct Frail {
    file: MemSource,
    /// Changes since the last sync, as the sectors they leave behind.
    unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
    synced: Mutex<Vec<u8>>,
    left: AtomicUsize,
    sync_fails: AtomicBool,
}

impl Frail {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            synced: Mutex::new(bytes.clone()),
            file: MemSource::new(bytes),
            unsynced: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
            sync_fails: AtomicBool::new(false),
        })
    }

    fn step(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            usize::MAX => Some(left),
            left => left.checked_sub(1),
        });
        spent.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn changed(&self, range: Range<u64>) -> io::Result<()> {
        let start = range.start / 512 * 512;
        let end = range.end.next_multiple_of(512).min(self.file.len()?);
        let mut sectors = vec![0; (end - start) as usize];
        self.file.read_exact_at(&mut sectors, start)?;
        self.unsynced.lock().unwrap().push((start, sectors));
        Ok(())
    }

    /// What is in the file after a power failure: of all sectors written since the last sync, any.
    fn after_power_failure(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.lock().unwrap().clone();
        for (start, sectors) in &*self.unsynced.lock().unwrap() {
            for (index, sector) in sectors.chunks(512).enumerate() {
                if random.below(2) == 0 {
                    let at = *start as usize + index * 512;
                    bytes.resize(bytes.len().max(at + sector.len()), 0);
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        bytes
    }
}

impl ReadAt for Frail {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl WriteAt for Frail {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.step()?;
        self.file.write_all_at(data, offset)?;
        self.changed(offset..offset + data.len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        self.file.set_len(len)
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.step()?;
        self.file.punch(range.clone())?;
        self.changed(range)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *self.synced.lock().unwrap() = self.file.to_vec();
        self.unsynced.lock().unwrap().clear();
        Ok(())
    }
}

/// A parent and a child; the parent only gives.
struct Files {
    parent: Vec<u8>,
    child: Arc<Frail>,
}

impl Resolver for Files {
    fn open(&self, path: &Path, _: Access) -> io::Result<Handle> {
        if path == Path::new("parent.vmdk") {
            return Ok(Handle::ReadOnly(Arc::new(MemSource::new(self.parent.clone()))));
        }
        Ok(Handle::ReadWrite(Arc::clone(&self.child) as Arc<dyn WriteAt>))
    }
    fn identity(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// A child with some grains of its own over a parent full of data: both images, and what they read as.
fn chain(capacity: usize, zeroed: bool) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut model = holey(capacity, 41);
    let parent = create(at("parent.vmdk"), &CreateSpec::new(capacity as u64, CreateKind::MonolithicSparse)).unwrap();
    parent.write_at(0, &model).unwrap();
    parent.close().unwrap();
    let spec = ChildSpec::new().zeroed_grains(zeroed);
    let child = create_child(at("parent.vmdk"), at("child.vmdk"), &spec).unwrap();
    let mut random = Random::new(42);
    for start in [0, 3 * GRAIN + 1000, 20 * GRAIN] {
        model[start..start + 100_000].copy_from_slice(&random.bytes(100_000));
        child.write_at(start as u64, &model[start..start + 100_000]).unwrap();
    }
    child.close().unwrap();
    (std::fs::read(at("parent.vmdk")).unwrap(), std::fs::read(at("child.vmdk")).unwrap(), model)
}

fn open(parent: &[u8], child: &Arc<Frail>) -> Disk {
    let files = Files { parent: parent.to_vec(), child: Arc::clone(child) };
    Disk::open("child.vmdk", &OpenOptions::new().writable().resolver(Arc::new(files))).unwrap()
}

#[test]
fn a_child_whose_storage_dies_at_any_write_shows_old_or_new_bytes() {
    const CAPACITY: usize = 2 * 1024 * 1024 + 512;
    // A write, or zeros: over stored and absent grains, whole ones and parts, to the end of the disk.
    let changes = [
        (50_000, 300_000, Some(0xcc_u8)),
        (10 * GRAIN, 3 * GRAIN, None),
        (15 * GRAIN + 7, 2 * GRAIN, None),
        (CAPACITY - 1300, 1300, Some(0xcc)),
        (20 * GRAIN - 5, GRAIN, None),
    ];
    for zeroed in [false, true] {
        let (parent, image, old) = chain(CAPACITY, zeroed);
        let mut runs = 0;
        for budget in 0.. {
            let file = Frail::new(image.clone());
            file.left.store(budget, Ordering::SeqCst);
            let disk = open(&parent, &file);
            let (mut expected, mut doubtful) = (old.clone(), 0..0);
            for (at, len, fill) in changes {
                let done = match fill {
                    Some(fill) => disk.write_at(at as u64, &vec![fill; len]),
                    None => disk.zero_at(at as u64..(at + len) as u64),
                };
                if done.is_err() {
                    doubtful = at..at + len;
                    break;
                }
                expected[at..at + len].fill(fill.unwrap_or(0));
            }
            drop(disk);
            file.left.store(usize::MAX, Ordering::SeqCst);
            let again = open(&parent, &file);
            for (index, (&is, &was)) in content(&again).iter().zip(&expected).enumerate() {
                let new = doubtful.contains(&index) && matches!(is, 0xcc | 0);
                assert!(is == was || new, "byte {index} after {budget} writes");
            }
            again.write_at(12 * GRAIN as u64, &[0xdd; GRAIN]).unwrap();
            again.close().unwrap();
            runs = budget;
            if doubtful.is_empty() {
                break;
            }
        }
        assert!(runs > 15, "{runs}");
    }
}

#[test]
fn what_was_flushed_survives_a_power_failure() {
    const CAPACITY: usize = 2 * 1024 * 1024;
    let (parent, image, model) = chain(CAPACITY, true);
    let mut random = Random::new(43);
    for round in 0..60 {
        let file = Frail::new(image.clone());
        let disk = open(&parent, &file);
        let mut flushed = model.clone();
        let mut touched = [false; CAPACITY / GRAIN];
        for phase in 0..2 {
            for _ in 0..8 {
                let at = random.below(CAPACITY as u64) as usize;
                let len = random.below(150_000).min((CAPACITY - at) as u64) as usize;
                if phase == 0 {
                    flushed[at..at + len].copy_from_slice(&random.bytes(len));
                    disk.write_at(at as u64, &flushed[at..at + len]).unwrap();
                } else if len > 0 {
                    touched[at / GRAIN..=(at + len - 1) / GRAIN].fill(true);
                    match random.below(2) {
                        0 => disk.zero_at(at as u64..(at + len) as u64).unwrap(),
                        _ => disk.write_at(at as u64, &random.bytes(len)).unwrap(),
                    }
                }
            }
            if phase == 0 {
                disk.flush().unwrap();
            }
        }
        let after = Frail::new(file.after_power_failure(&mut random));
        std::mem::forget(disk);
        let disk = open(&parent, &after);
        for (grain, touched) in touched.iter().enumerate() {
            let mut bytes = vec![0; GRAIN];
            // A grain that was written again may be whole, old, garbage, or behind the end of the file.
            let read = disk.read_at((grain * GRAIN) as u64, &mut bytes);
            assert!(*touched || read.is_ok(), "grain {grain} in round {round}");
            assert!(*touched || bytes == flushed[grain * GRAIN..][..GRAIN], "grain {grain} in round {round}");
        }
    }
}

#[test]
fn no_changed_byte_survives_a_power_failure_without_its_content_id_and_the_flag() {
    let (parent, image, model) = chain(1 << 21, true);
    let cid = |disk: &Disk| disk.descriptor().unwrap().cid().unwrap();
    let mut random = Random::new(44);
    let old = cid(&open(&parent, &Frail::new(image.clone())));
    let mut changed = 0;
    for _ in 0..40 {
        let file = Frail::new(image.clone());
        let disk = open(&parent, &file);
        disk.write_at(100, &[0xcc; 512]).unwrap();
        let after = Frail::new(file.after_power_failure(&mut random));
        std::mem::forget(disk);
        let disk = open(&parent, &after);
        if content(&disk) != model {
            changed += 1;
            assert_ne!(cid(&disk), old);
            let bytes = after.file.to_vec();
            assert!(SparseHeader::parse(bytes[..512].try_into().unwrap(), "child").unwrap().unclean_shutdown);
        }
    }
    assert!(changed > 10, "{changed}");
}

#[test]
fn a_flush_that_failed_is_not_forgotten() {
    let (parent, image, _) = chain(1 << 21, false);
    let file = Frail::new(image);
    let disk = open(&parent, &file);
    disk.write_at(0, b"data").unwrap();
    file.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(disk.flush(), Err(Error::Io { operation: "flush", .. })));
    // The system may have dropped what it could not write, and would now say that all is well.
    file.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(disk.flush(), Err(Error::Io { operation: "flush", .. })));
    assert!(disk.close().is_err());
    let bytes = file.file.to_vec();
    assert!(SparseHeader::parse(bytes[..512].try_into().unwrap(), "child").unwrap().unclean_shutdown);
}

#[test]
fn threads_that_share_grains_lose_nothing_of_each_other_or_of_the_parent() {
    const CAPACITY: usize = 2 * 1024 * 1024;
    let (parent, image, mut expected) = chain(CAPACITY, true);
    let file = Frail::new(image);
    let disk = open(&parent, &file);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let disk = &disk;
            scope.spawn(move || {
                let mut order: Vec<_> = (0..CAPACITY / 4096).filter(|block| block % 5 == thread).collect();
                let mut random = Random::new(thread as u64);
                for index in (1..order.len()).rev() {
                    order.swap(index, random.below(index as u64 + 1) as usize);
                }
                for block in order {
                    let at = (block * 4096) as u64;
                    if block % 3 == 0 {
                        disk.zero_at(at..at + 4096).unwrap();
                    } else {
                        disk.write_at(at, &[block as u8; 4096]).unwrap();
                    }
                }
            });
        }
    });
    // One block of five keeps what the chain had.
    for block in (0..CAPACITY / 4096).filter(|block| block % 5 != 4) {
        expected[block * 4096..][..4096].fill(if block % 3 == 0 { 0 } else { block as u8 });
    }
    assert!(content(&disk) == expected);
    disk.close().unwrap();
    assert!(content(&open(&parent, &file)) == expected);
}
