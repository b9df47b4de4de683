//! Volumes in use: what was synced since the last commit, as the kernel sees it when it mounts a copy of the volume.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, XattrFlags};
use vixmntapi::fs::{Consistency, Timestamp};

use super::{Image, opened, text};
use crate::{
    compare::{Compare, assert_same, walk},
    peers::{Mount, peer, run},
    tree::{Manifest, Names, Tree, noise},
};

#[test]
fn files_that_were_synced_are_read_with_all_that_was_synced_of_them() {
    for options in ["compress=no", "compress-force=zstd", "compress-force=lzo"] {
        let before = |at: &dyn Fn(&str) -> PathBuf| {
            for name in ["overwritten", "longer", "shorter", "cut", "holes", "aside", "attributes", "moved", "linked"] {
                fs::write(at(name), noise(300_000)).unwrap();
            }
            fs::write(at("short"), "short").unwrap();
            for (name, value) in [("user.stays", "1"), ("user.goes", "2"), ("user.changes", "3")] {
                xattr(&at("attributes"), name, value.as_bytes());
            }
            fs::create_dir(at("folder")).unwrap();
        };
        let after = |at: &dyn Fn(&str) -> PathBuf| {
            fs::write(at("new"), noise(200_000)).unwrap();
            text(&at("folder"));
            fs::write(at("tiny"), "tiny").unwrap();
            open(&at("overwritten")).write_all_at(&noise(70_000), 100_001).unwrap();
            open(&at("longer")).write_all_at(&noise(50_000), 300_000).unwrap();
            open(&at("shorter")).set_len(123_457).unwrap();
            open(&at("cut")).set_len(0).unwrap();
            open(&at("short")).write_all_at(&noise(9000), 3).unwrap();
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(open(&at("holes")), punch, 65_536, 100_000).unwrap();
            open(&at("holes")).write_all_at(b"far away", 9_000_000).unwrap();
            rustix::fs::fallocate(open(&at("aside")), FallocateFlags::empty(), 290_000, 2 << 20).unwrap();
            open(&at("aside")).write_all_at(b"in the midst", 1 << 20).unwrap();
            let beyond = File::create(at("set aside beyond its end")).unwrap();
            rustix::fs::fallocate(&beyond, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
            beyond.write_all_at(&noise(5000), 0).unwrap();
            xattr(&at("attributes"), "user.changes", &noise(2000));
            xattr(&at("attributes"), "user.new", b"");
            rustix::fs::removexattr(at("attributes"), "user.goes").unwrap();
            fs::rename(at("moved"), at("folder/moved here")).unwrap();
            for number in 0..300 {
                fs::hard_link(at("linked"), at(&format!("linked as {number} and a longer name"))).unwrap();
            }
            std::os::unix::fs::symlink("new", at("folder/link")).unwrap();
            sync(&at(""));
        };
        assert!(replayed(options, before, after) > 300);
    }
}

#[test]
fn names_that_went_before_a_directory_was_synced_are_gone() {
    let before = |at: &dyn Fn(&str) -> PathBuf| {
        for folder in ["one", "one/below", "two"] {
            fs::create_dir(at(folder)).unwrap();
            for number in 0..400 {
                fs::write(at(&format!("{folder}/{number}")), format!("{folder} {number}")).unwrap();
            }
        }
    };
    let after = |at: &dyn Fn(&str) -> PathBuf| {
        for number in (0..400).step_by(3) {
            fs::remove_file(at(&format!("one/{number}"))).unwrap();
        }
        fs::create_dir(at("one/new")).unwrap();
        fs::write(at("one/new/file"), noise(10_000)).unwrap();
        File::open(at("one")).unwrap().sync_all().unwrap();
        fs::write(at("one/not synced"), "x").unwrap();
        fs::rename(at("two/7"), at("two/8")).unwrap();
        open(&at("two/9")).set_len(1).unwrap();
        open(&at("two/9")).sync_all().unwrap();
    };
    replayed("", before, after);
}

#[test]
fn each_subvolume_has_a_log_of_its_own() {
    let Some(btrfs) = peer("btrfs") else { return };
    let before = |at: &dyn Fn(&str) -> PathBuf| {
        for name in ["home", "home/below", "other"] {
            run(&btrfs, &[&"subvolume", &"create", &at(name)]);
            fs::write(at(&format!("{name}/file")), "before").unwrap();
        }
    };
    let after = |at: &dyn Fn(&str) -> PathBuf| {
        for name in ["home", "home/below", "."] {
            fs::write(at(&format!("{name}/new")), name).unwrap();
            fs::write(at(&format!("{name}/file")), "after").unwrap();
            sync(&at(name));
        }
    };
    replayed("", before, after);
}

#[test]
fn a_tree_of_all_kinds_of_files_that_was_synced_reads_as_the_kernel_reads_it() {
    let before = |_: &dyn Fn(&str) -> PathBuf| {};
    let after = |at: &dyn Fn(&str) -> PathBuf| {
        let tree = Tree::new().many(300).deep(10).sizes().names(Names::Bytes).links().xattrs().modes().times();
        run("cp", &[&"-a", &tree.path().join("."), &at("")]);
        sync(&at(""));
    };
    assert!(replayed("", before, after) > 300);
}

#[test]
fn whatever_was_done_between_commits_the_kernel_and_this_see_the_same() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, rounds) = (number("SEED").unwrap_or(1), number("ROUNDS").unwrap_or(12));
    let (mut in_logs, mut tried) = (0, 0);
    for seed in first..first + rounds {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut again = Random(random.next());
        let before = |at: &dyn Fn(&str) -> PathBuf| random.act(at, 60, false);
        let after = |at: &dyn Fn(&str) -> PathBuf| {
            again.act(at, 40, true);
            open(&at("last")).sync_all().unwrap();
        };
        let Some(image) = image() else { return };
        let Some(consistency) = image.compare("", before, after) else { return };
        in_logs += u64::from(consistency == Consistency::ReplayedInMemory);
        tried += 1;
    }
    assert!(in_logs * 2 > tried, "only {in_logs} of {tried} had a log");
}

/// Compares with the kernel what it makes of a volume that was copied while in use; how many paths there were.
fn replayed(
    options: &str,
    before: impl Fn(&dyn Fn(&str) -> PathBuf),
    after: impl Fn(&dyn Fn(&str) -> PathBuf),
) -> usize {
    // Whatever else runs here may have everything committed.
    for _ in 0..5 {
        let Some(image) = image() else { return usize::MAX };
        let Some(consistency) = image.compare(options, &before, &after) else { return usize::MAX };
        if consistency == Consistency::ReplayedInMemory {
            return walk(&opened(&image.path.with_extension("dirty")).0).len();
        }
    }
    panic!("there was no log");
}

fn image() -> Option<Image> {
    Image::new(&[], &Tree::new())
}

impl Image {
    /// Does what is done before the last commit and after it, and compares what is read then with what the kernel says.
    /// `None` where this system cannot mount.
    fn compare(
        &self,
        options: &str,
        before: impl FnOnce(&dyn Fn(&str) -> PathBuf),
        after: impl FnOnce(&dyn Fn(&str) -> PathBuf),
    ) -> Option<Consistency> {
        let comma = if options.is_empty() { "" } else { "," };
        let mount = Mount::new(&self.path, &format!("commit=300{comma}{options}"))?;
        let at = |path: &str| mount.path().join(path);
        before(&at);
        run("sync", &[&"-f", &mount.path()]);
        after(&at);
        let [dirty, mounted] = ["dirty", "mounted"].map(|name| self.path.with_extension(name));
        // A commit while it is copied makes of the copy what no disk ever had.
        let mut superblock = [0; 4096];
        loop {
            let before = superblock;
            File::open(&self.path).unwrap().read_exact_at(&mut superblock, 64 << 10).unwrap();
            if before == superblock {
                break;
            }
            run("cp", &[&"--sparse=always", &self.path, &dirty]);
        }
        drop(mount);
        run("cp", &[&"--sparse=always", &dirty, &mounted]);
        let (fs, device) = opened(&dirty);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = Timestamp::new(now.as_secs() as i64, now.subsec_nanos());
        let mount = Mount::new(&mounted, "")?;
        let truth = Manifest::of(mount.path());
        drop(mount);
        let found = walk(&fs);
        let truth = truth.map(|path, node| {
            // Replay by the kernel is a change of some directories.
            if let Some(found) = found.get(path).filter(|_| node.modified >= now) {
                node.modified = fs.metadata(*found).unwrap().times.modified;
            }
        });
        assert_same(&fs, &device, &truth, Compare::ALL);
        Some(fs.info().consistency)
    }
}

/// Numbers that are no more than random enough: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn name(&mut self) -> String {
        let folder = ["", "a/", "b/", "a/c/"][self.below(4) as usize];
        format!("{folder}file {}", self.below(7))
    }

    fn folder(&mut self) -> &'static str {
        ["", "a", "b", "a/c"][self.below(4) as usize]
    }

    /// Does this and that; what cannot be done is left out.
    fn act(&mut self, at: &dyn Fn(&str) -> PathBuf, times: usize, and_sync: bool) {
        drop(["a", "b", "a/c"].map(|folder| fs::create_dir(at(folder))));
        fs::write(at("last"), format!("{and_sync}")).unwrap();
        for _ in 0..times {
            let (one, other) = (at(&self.name()), at(&self.name()));
            let kinds = if and_sync { 22 } else { 15 };
            match self.below(kinds) {
                0..=2 => drop(fs::write(&one, noise(self.below(20_000) as usize))),
                3 | 4 => {
                    let (bytes, place) = (noise(self.below(9000) as usize), self.below(60_000));
                    drop(
                        File::options()
                            .write(true)
                            .create(true)
                            .truncate(false)
                            .open(&one)
                            .and_then(|file| file.write_all_at(&bytes, place)),
                    );
                }
                5 => drop(File::options().write(true).open(&one).and_then(|file| file.set_len(self.below(40_000)))),
                6 | 7 => drop(fs::rename(&one, &other)),
                8 | 9 => drop(fs::remove_file(&one)),
                10 | 11 => drop(fs::hard_link(&one, &other)),
                12 => {
                    let (name, value) = (format!("user.{}", self.below(4)), noise(self.below(300) as usize));
                    let _ = rustix::fs::setxattr(&one, name, &value, XattrFlags::empty());
                    let _ = rustix::fs::removexattr(&other, format!("user.{}", self.below(4)));
                }
                13 => {
                    let flags = [
                        FallocateFlags::empty(),
                        FallocateFlags::KEEP_SIZE,
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    ];
                    let (flags, from, len) =
                        (flags[self.below(3) as usize], self.below(50_000), 1 + self.below(50_000));
                    drop(
                        File::options()
                            .write(true)
                            .open(&one)
                            .map(|file| rustix::fs::fallocate(file, flags, from, len)),
                    );
                }
                14 => {
                    // A directory goes away with what is in it, or another moves.
                    let from = self.folder();
                    if self.below(2) == 0 {
                        drop(fs::rename(at("b"), at("a/b moved")));
                        drop(fs::rename(at("a/b moved"), at("b")));
                    } else if from == "a/c" {
                        drop(fs::remove_dir_all(at(from)));
                        drop(fs::create_dir(at(from)));
                    }
                }
                15..=19 => drop(File::open(&one).and_then(|file| file.sync_all())),
                _ => drop(File::open(at(self.folder())).and_then(|folder| folder.sync_all())),
            }
        }
    }
}

/// Brings everything into the log.
fn sync(folder: &Path) {
    crate::peers::sync(folder);
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}
