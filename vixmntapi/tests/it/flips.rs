//! A thousand damaged copies of images for every reader: errors or files, and an end within a bounded time and memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use vixmntapi::{
    device::Device,
    fs::{ExtentKind, FileSystem, NodeId, open},
    set::DiskSet,
};

use crate::{
    btrfs,
    disks::{Flipped, Memory, Partitions, touch},
    exfat, ext, fat,
    guest::Guest,
    hostile::walk_hostile,
    iso, ldm, lvm, md, ntfs,
    tree::{Names, Tree, noise},
    xfs,
};

#[test]
fn sixty_damaged_copies_of_each_file_system_give_errors_or_files_and_end() {
    for case in file_systems() {
        case.damage_and_read(60);
    }
}

#[test]
fn sixty_damaged_copies_of_disks_with_each_kind_of_volumes_give_errors_or_files_and_end() {
    for case in volumes() {
        case.damage_and_read(60);
    }
}

#[test]
#[ignore = "minutes: cargo test -p vixmntapi --test it -- --ignored --nocapture --test-threads=1 flips"]
fn a_thousand_damaged_copies_of_each_image_give_errors_or_files_and_end() {
    println!(
        "{:28} {:>6} {:>8} {:>8} {:>10} {:>9} {:>11}",
        "", "copies", "refused", "wrong", "reads", "slowest", "memory"
    );
    for case in file_systems().into_iter().chain(volumes()) {
        let before = resident("VmRSS:");
        // From here on the peak is counted anew.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let told = case.damage_and_read(1000);
        let memory = resident("VmHWM:").saturating_sub(before);
        let Told { refused, wrong, fine, slowest } = told;
        println!("{:28} {:6} {refused:8} {wrong:8} {fine:10} {slowest:9.2?} {memory:7} KiB", case.name, 1000);
        assert!(memory < MOST_MEMORY_KIB, "{}: {memory} KiB", case.name);
    }
}

/// What damaged copies came to.
#[derive(Default)]
struct Told {
    /// Copies of which nothing could be opened.
    refused: usize,
    /// Files that were read without an error and differ, though checksums are to tell of that.
    wrong: usize,
    /// What was read without an error: names, metadata, pieces of files.
    fine: usize,
    slowest: Duration,
}

/// What has checksums: a file that is read without an error is as it was, whatever of that is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vouched {
    Nothing,
    Structures,
    All,
}

/// Disks that are damaged.
struct Case {
    name: &'static str,
    disks: Vec<Arc<Memory>>,
    /// By disk: bytes of sectors that are in use, and of those which hold structures.
    used: Vec<Vec<usize>>,
    structures: Vec<Vec<usize>>,
    /// What is in them is volumes.
    is_set: bool,
    vouched: Vouched,
    /// What files hold, where anything vouches for it.
    truth: BTreeMap<Vec<u8>, u64>,
}

impl Case {
    /// A file system, whose structures are all that is in use besides the contents of files.
    fn of_files(name: &'static str, bytes: Vec<u8>, vouched: Vouched) -> Self {
        let disk = Arc::new(Memory(bytes));
        let files = open(&(disk.clone() as _)).unwrap().unwrap();
        let used = in_use(&disk.0);
        let contents = contents(&files);
        let structures = used.iter().copied().filter(|at| !contents.contains(&(at / SECTOR))).collect();
        let truth = if vouched == Vouched::Nothing { BTreeMap::new() } else { answers(&files) };
        Self { name, disks: vec![disk], used: vec![used], structures: vec![structures], is_set: false, vouched, truth }
    }

    /// Disks with volumes, whose structures lie at either end.
    fn of_volumes(name: &'static str, disks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let disks: Vec<_> = disks.into_iter().map(|bytes| Arc::new(Memory(bytes))).collect();
        let used: Vec<_> = disks.iter().map(|disk| in_use(&disk.0)).collect();
        let structures = used.iter().zip(&disks).map(|(used, disk)| {
            let at_an_end = |at: &usize| *at < 1 << 20 || *at + (1 << 20) >= disk.0.len();
            used.iter().copied().filter(at_an_end).collect()
        });
        let (vouched, truth) = (Vouched::Nothing, BTreeMap::new());
        Self { name, structures: structures.collect(), disks, used, is_set: true, vouched, truth }
    }

    /// Reads so many copies, each damaged in another way.
    fn damage_and_read(&self, copies: usize) -> Told {
        let mut told = Told::default();
        for number in 0..copies {
            let (sender, receiver) = mpsc::channel();
            let devices = self.damaged(number);
            let is_vouched = match self.vouched {
                Vouched::Nothing => false,
                Vouched::Structures => number % 4 < 2,
                Vouched::All => true,
            };
            let (is_set, truth) = (self.is_set, is_vouched.then(|| self.truth.clone()));
            let start = Instant::now();
            let reader = thread::spawn(move || {
                let read = if is_set { read_set(devices) } else { read_files(&devices[0], truth.as_ref()) };
                sender.send(read).unwrap();
            });
            match receiver.recv_timeout(LONGEST) {
                Ok(read) => {
                    told.refused += usize::from(read.is_none());
                    let (fine, wrong) = read.unwrap_or_default();
                    told.fine += fine;
                    told.wrong += wrong;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("{}: copy {number} is read without end", self.name),
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{}: copy {number} is a panic", self.name),
            }
            told.slowest = told.slowest.max(start.elapsed());
            reader.join().unwrap();
        }
        assert_eq!(told.wrong, 0, "{}: files that are not as they were, and no error", self.name);
        told
    }

    /// A copy: with one wrong bit of the structures, with up to 32, with a thousand of what is in use, with up to 32
    /// anywhere.
    fn damaged(&self, number: usize) -> Vec<Arc<dyn Device>> {
        let random = noise(16 * 1001 + number);
        let mut random = random.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()) as usize);
        let mut next = |below: usize| random.next().unwrap() % below.max(1);
        let few = 1 + next(32);
        let count = match number % 4 {
            0 => 1,
            2 => 1000,
            _ => few,
        };
        let mut bits = vec![Vec::new(); self.disks.len()];
        for _ in 0..count {
            let disk = next(self.disks.len());
            let place = next(usize::MAX);
            let from = match number % 4 {
                0 | 1 => &self.structures[disk],
                2 => &self.used[disk],
                _ => &Vec::new(),
            };
            let at = from.get(place / SECTOR % from.len().max(1)).map(|sector| sector + place % SECTOR);
            let at = at.unwrap_or(place % self.disks[disk].0.len());
            bits[disk].push((at, (place >> 40 & 7) as u8));
        }
        let disks = self.disks.iter().zip(bits);
        disks.map(|(disk, bits)| Arc::new(Flipped::new(disk, bits)) as Arc<dyn Device>).collect()
    }
}

/// Reads all that can be read: how much, and how many files differ from the truth.
fn read_files(device: &Arc<dyn Device>, truth: Option<&BTreeMap<Vec<u8>, u64>>) -> Option<(usize, usize)> {
    let files = open(device).ok()??;
    let fine = walk_hostile(&files);
    drop(files.subvolumes());
    let wrong = truth.map_or(0, |truth| {
        let now = answers(&files);
        now.iter().filter(|(path, digest)| truth.get(*path).is_some_and(|truth| truth != *digest)).count()
    });
    Some((fine, wrong))
}

/// The same with volumes, and with the files of the first that has any.
fn read_set(devices: Vec<Arc<dyn Device>>) -> Option<(usize, usize)> {
    let set = devices.into_iter().fold(DiskSet::builder(), |set, disk| set.device(disk)).open().ok()?;
    touch(&set);
    let volumes = set.volumes_until_damage();
    let mounted = volumes.iter().find_map(|volume| volume.mount().ok());
    let fine = mounted.map_or(0, |mounted| walk_hostile(mounted.file_system()));
    Some((volumes.len() + fine, 0)).filter(|(fine, _)| *fine > 0)
}

/// The digest of every file that is read whole without an error, by its path.
fn answers(files: &Arc<dyn FileSystem>) -> BTreeMap<Vec<u8>, u64> {
    let mut answers = BTreeMap::new();
    for (path, node) in paths(files) {
        let Ok(content) = files.clone().open(node, None) else { continue };
        if content.size() > 16 << 20 {
            continue;
        }
        let mut bytes = vec![0; content.size() as usize];
        if content.read_at(0, &mut bytes).is_ok() {
            let mut digest = DefaultHasher::new();
            digest.write(&bytes);
            answers.insert(path, digest.finish());
        }
    }
    answers
}

/// Sectors in which contents of files lie.
fn contents(files: &Arc<dyn FileSystem>) -> BTreeSet<usize> {
    let mut sectors = BTreeSet::new();
    for (_, node) in paths(files) {
        let Ok(content) = files.clone().open(node, None) else { continue };
        for extent in content.extents(0..content.size()).unwrap() {
            if let ExtentKind::Stored(at) = extent.kind {
                let end = at + extent.range.end - extent.range.start;
                sectors.extend(at as usize / SECTOR..(end as usize).div_ceil(SECTOR));
            }
        }
    }
    sectors
}

/// All that is found from the root, each once.
fn paths(files: &Arc<dyn FileSystem>) -> Vec<(Vec<u8>, NodeId)> {
    let mut found = vec![(Vec::new(), files.root())];
    let mut seen = BTreeSet::from([files.root()]);
    let mut at = 0;
    while let Some((path, node)) = found.get(at).cloned() {
        at += 1;
        let Ok(entries) = files.clone().read_dir(node) else { continue };
        for entry in entries.take(10_000).map_while(Result::ok) {
            if found.len() < 10_000 && seen.insert(entry.node) {
                found.push(([&path, entry.name.as_bytes()].join(&b'/'), entry.node));
            }
        }
    }
    found
}

/// Where the sectors begin that are not empty.
fn in_use(bytes: &[u8]) -> Vec<usize> {
    let sectors = bytes.chunks(SECTOR).enumerate();
    sectors.filter(|(_, sector)| *sector != [0; SECTOR].as_slice()).map(|(number, _)| number * SECTOR).collect()
}

/// A figure of this process in KiB.
fn resident(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One image or more of every reader; none where a program that makes them is missing, which is said.
fn file_systems() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, bytes: Option<Vec<u8>>, vouched| {
        cases.extend(bytes.map(|bytes| Case::of_files(name, bytes, vouched)));
    };
    let nothing = Vouched::Nothing;
    for (name, bytes) in
        ["ext4, inline data", "ext3", "ext2"].into_iter().zip(ext::without_checksums().into_iter().flatten())
    {
        add(name, Some(bytes), nothing);
    }
    let tree = Tree::new().many(60).deep(4).names(Names::Bytes).links().xattrs();
    let checked = ["-t", "ext4", "-b", "1024", "-O", "metadata_csum", "-J", "size=1"];
    let made = ext::made_of(&tree, &checked, 4 << 20).map(|made| fs::read(made.path).unwrap());
    add("ext4 with checksums", made, Vouched::Structures);
    add("XFS without checksums", xfs::kept::without_checksums(), nothing);
    // Its last records may be torn, so nothing vouches for them: the log ends before one that is.
    add("XFS with a log", Some(xfs::kept::dirty()), nothing);
    add("XFS with checksums", xfs::kept::with_checksums(), Vouched::Structures);
    add("Btrfs", btrfs::without_checksums(), nothing);
    add("Btrfs with checksums", btrfs::with_checksums(), Vouched::All);
    add("NTFS", Some(ntfs::kept::image()), nothing);
    add("FAT12", fat::small(1440, &["-F", "12"]), nothing);
    add("FAT32", fat::small(40 << 10, &["-F", "32", "-s", "1"]), nothing);
    add("exFAT", exfat::written(true).map(|(volume, _)| volume.bytes), nothing);
    add("exFAT in fragments", exfat::written(false).map(|(volume, _)| volume.bytes), nothing);
    let plain = || Tree::new().many(30).deep(5);
    let rich = plain().names(Names::Portable).links();
    for (name, option, tree) in [("ISO 9660, Rock Ridge", "-R", rich), ("ISO 9660, Joliet", "-J", plain())] {
        let disc = iso::disc("genisoimage", &[option], &tree);
        add(name, disc.map(|(_folder, image)| fs::read(image).unwrap()), nothing);
    }
    cases
}

/// Disks for every reader of volumes, with the guest's file system in them.
fn volumes() -> Vec<Case> {
    let Some(guest) = Guest::get() else { return Vec::new() };
    let mut cases = vec![
        Case::of_volumes("LVM", lvm::disks(guest)),
        Case::of_volumes("md 1.2", md::mirror(2, &guest.bytes)),
        Case::of_volumes("md 0.90", md::mirror(90, &guest.bytes)),
        Case::of_volumes("LDM", ldm::disks(guest)),
    ];
    cases.extend(Partitions::gpt(&[&guest.bytes]).map(|disk| Case::of_volumes("GPT", [disk])));
    cases.extend(Partitions::mbr(&[&guest.bytes]).map(|disk| Case::of_volumes("MBR", [disk])));
    cases
}

const SECTOR: usize = 512;
/// For one copy, on a machine that does other things as well.
const LONGEST: Duration = Duration::from_secs(60);
/// The most that one copy may take besides its image.
const MOST_MEMORY_KIB: u64 = 256 << 10;
