//! Hives that Windows had not written back: their logs have the rest. The logs are made by hand from the differences of
//! two hives, and regipy says what it reads in them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use vixmntapi::{os::OsInfo, set::DiskSet};

use super::{
    MIB,
    registry::{Setting, hive},
    windows,
};
use crate::peers::{missing, peer, run};

#[test]
fn what_is_in_the_logs_of_a_hive_is_told_as_if_it_were_in_the_hive() {
    let Some(folder) = windows("AMD64", &[]) else { return };
    let config = folder.path().join("WINDOWS/system32/config");
    let software = config.join("SOFTWARE");
    let Some([before, after]) = versions(&software) else { return };
    let pages = differences(&before, &after);
    assert!(pages.len() > 1, "{pages:?}");
    fs::write(&software, dirty(&before)).unwrap();
    let (name, old) = (|system: &OsInfo| system.name.clone(), "Windows Server 2019 Standard");
    let system = told(folder.path());
    assert_eq!((name(&system).as_str(), system.may_be_stale), (old, true));
    // Two logs of the new kind, of which the second goes on from the first.
    let (first, rest) = pages.split_at(pages.len() / 2);
    let logs = [("LOG2", 8, &[&first[..1], &first[1..]][..]), ("LOG1", 10, &[rest])];
    for (end, sequence, entries) in logs {
        fs::write(software.with_extension(end), entries_log(&after, sequence, entries)).unwrap();
    }
    let system = told(folder.path());
    assert_eq!((name(&system).as_str(), system.may_be_stale), ("Windows Server 2022 Datacenter", false));
    restored(&software, &[software.with_extension("LOG1"), software.with_extension("LOG2")], &after);
    // One of the old kind.
    fs::remove_file(software.with_extension("LOG2")).unwrap();
    fs::write(software.with_extension("LOG1"), dirty_pages_log(&after, &pages)).unwrap();
    let system = told(folder.path());
    assert_eq!((name(&system).as_str(), system.may_be_stale), ("Windows Server 2022 Datacenter", false));
    restored(&software, &[software.with_extension("LOG1")], &after);
    // One that is damaged is as good as none.
    let mut log = entries_log(&after, 8, &[&pages]);
    log[700] ^= 1;
    fs::write(software.with_extension("LOG1"), log).unwrap();
    let system = told(folder.path());
    assert_eq!((name(&system).as_str(), system.may_be_stale), (old, true));
}

/// What is found when a folder with a Windows in it is a disk.
fn told(folder: &Path) -> OsInfo {
    let image = folder.join("fat.img");
    drop(fs::remove_file(&image));
    File::create(&image).unwrap().set_len(40 * MIB).unwrap();
    run(peer("mkfs.fat").unwrap(), &[&"-F", &"32", &image]);
    run(peer("mcopy").unwrap(), &[&"-s", &"-i", &image, &folder.join("WINDOWS"), &"::"]);
    let report = DiskSet::builder().raw(&image).unwrap().open().unwrap().os_info();
    assert!(report.problems.is_empty(), "{report:?}");
    report.systems.into_iter().next().unwrap()
}

/// A hive before a change and after it, of one length.
fn versions(path: &Path) -> Option<[Vec<u8>; 2]> {
    peer("mkfs.fat").and(peer("mcopy"))?;
    let mut both = ["2019 Standard", "2022 Datacenter"].map(|name| {
        let values: Vec<_> = (0..30)
            .map(|number| (format!("value {number}"), Setting::Text(format!("{name} {number}"))))
            .chain([("ProductName".into(), Setting::Text(format!("Windows Server {name}")))])
            .collect();
        hive(path, &[(r"Microsoft\Windows NT\CurrentVersion", &values)])?;
        fs::read(path).ok()
    });
    let len = both.iter().flatten().map(Vec::len).max()?;
    both.iter_mut().flatten().for_each(|hive| hive.resize(len, 0));
    let [Some(before), Some(after)] = both else { return None };
    Some([before, after])
}

/// The pages of 512 bytes that are other, by their places from the first cell on.
fn differences(before: &[u8], after: &[u8]) -> Vec<usize> {
    let pairs = before[4096..].chunks(512).zip(after[4096..].chunks(512)).enumerate();
    pairs.filter(|(_, (before, after))| before != after).map(|(page, _)| page * 512).collect()
}

/// A hive to which more was to be written: its sequence numbers are 9 and 8.
fn dirty(hive: &[u8]) -> Vec<u8> {
    let mut hive = hive.to_vec();
    put(&mut hive, 4, 9);
    put(&mut hive, 8, 8);
    sum(&mut hive);
    hive
}

/// What a log begins with.
fn base(after: &[u8], kind: u32, sequence: u32) -> Vec<u8> {
    let mut log = after[..512].to_vec();
    for (at, number) in [(4, sequence), (8, sequence), (28, kind)] {
        put(&mut log, at, number);
    }
    sum(&mut log);
    log
}

fn entries_log(after: &[u8], sequence: u32, entries: &[&[usize]]) -> Vec<u8> {
    let mut log = base(after, 6, sequence);
    for (number, pages) in entries.iter().enumerate() {
        let mut entry = b"HvLE".to_vec();
        entry.resize(40, 0);
        for page in *pages {
            entry.extend((*page as u32).to_le_bytes());
            entry.extend(512_u32.to_le_bytes());
        }
        pages.iter().for_each(|page| entry.extend(&after[4096 + page..][..512]));
        entry.resize(entry.len().next_multiple_of(512), 0);
        let len = entry.len() as u32;
        for (at, value) in
            [(4, len), (12, sequence + number as u32), (16, (after.len() - 4096) as u32), (20, pages.len() as u32)]
        {
            put(&mut entry, at, value);
        }
        let hash = marvin32(&entry[40..]);
        entry[24..32].copy_from_slice(&hash);
        let hash = marvin32(&entry[..32]);
        entry[32..40].copy_from_slice(&hash);
        log.extend(entry);
    }
    log
}

fn dirty_pages_log(after: &[u8], pages: &[usize]) -> Vec<u8> {
    let mut log = base(after, 1, 9);
    log.extend(b"DIRT");
    let mut bits = vec![0_u8; (after.len() - 4096).div_ceil(512 * 8)];
    pages.iter().for_each(|page| bits[page / 4096] |= 1 << (page / 512 % 8));
    log.extend(bits);
    log.resize(1024, 0);
    pages.iter().for_each(|page| log.extend(&after[4096 + page..][..512]));
    log
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Makes the checksum of a header right.
fn sum(bytes: &mut [u8]) {
    let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    put(bytes, 508, sum);
}

/// The hash of entries, as .NET has it.
fn marvin32(bytes: &[u8]) -> [u8; 8] {
    let (mut p0, mut p1) = (0x884d_ef82_u32, 0xc555_4e7a_u32);
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(4) + 4, 0);
    for word in padded.as_chunks::<4>().0 {
        p0 = p0.wrapping_add(u32::from_le_bytes(*word));
        p1 ^= p0;
        p0 = p0.rotate_left(20).wrapping_add(p1);
        p1 = p1.rotate_left(9) ^ p0;
        p0 = p0.rotate_left(27).wrapping_add(p1);
        p1 = p1.rotate_left(19);
    }
    (u64::from(p1) << 32 | u64::from(p0)).to_le_bytes()
}

/// Compares with what regipy makes of a hive and its logs.
fn restored(hive: &Path, logs: &[PathBuf], after: &[u8]) {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/venv/bin/python");
    let has_it = |python: &&str| {
        Command::new(python).args(["-c", "import regipy"]).output().is_ok_and(|output| output.status.success())
    };
    let Some(python) = [installed, "python3"].into_iter().find(has_it) else { return missing("regipy") };
    let script = "import sys; from regipy.recovery import apply_transaction_logs as apply
hive, out, first, *second = sys.argv[1:]
apply(hive, first, second[0] if second else None, out)";
    let out = hive.with_extension("restored");
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-c", &script, &hive, &out];
    arguments.extend(logs.iter().map(|log| log as &dyn AsRef<std::ffi::OsStr>));
    run(python, &arguments);
    assert!(fs::read(&out).unwrap()[4096..] == after[4096..]);
    fs::remove_file(out).unwrap();
}
