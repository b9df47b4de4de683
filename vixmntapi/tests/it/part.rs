//! Partition tables, compared with what `sfdisk` and `sgdisk` say of the same disks, and damaged ones.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use proptest::prelude::*;
use vixmntapi::{
    Error, Result,
    device::Device,
    part::{PartitionKind, Role, Scheme, partitions, partitions_until_damage},
};

use crate::{
    disks::Memory,
    peers::{peer, run},
};

const MIB: u64 = 1 << 20;

/// A disk in memory, to be damaged.
#[derive(Clone)]
struct TestDisk {
    bytes: Vec<u8>,
    sector_size: u32,
}

impl TestDisk {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, sector_size: 512 }
    }

    fn device(self) -> Arc<dyn Device> {
        Arc::new(Sectors(Memory(self.bytes), self.sector_size))
    }
}

/// Bytes in memory with sectors.
#[derive(Debug)]
struct Sectors(Memory, u32);

impl Device for Sectors {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// Partitions a new disk of `size` bytes with `sfdisk`; what it then reads back comes along.
fn sfdisk(size: u64, script: &str) -> Option<(TestDisk, String)> {
    let sfdisk = peer("sfdisk")?;
    // A name that ends with a letter: after a digit sfdisk puts a `p` before the partition's number.
    let image = tempfile::Builder::new().suffix(".img").tempfile().unwrap();
    image.as_file().set_len(size).unwrap();
    let mut child = Command::new(&sfdisk).arg("-q").arg(image.path()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let dump = run(&sfdisk, &[&"--dump", &image.path()]).replace(image.path().to_str().unwrap(), "");
    Some((TestDisk::new(std::fs::read(image.path()).unwrap()), dump))
}

/// A table in the words of `sfdisk --dump`, without its head. Extended partitions are not told, nor GPT attributes.
fn told(disk: &Arc<dyn Device>) -> Vec<String> {
    let table = partitions(disk).unwrap();
    let sector = u64::from(table.sector_size);
    let lines = table.partitions.iter().map(|partition| {
        let (start, len) = (partition.range.start / sector, (partition.range.end - partition.range.start) / sector);
        let mut line = format!("{} : start={start:12}, size={len:12}, type=", partition.number);
        match partition.kind {
            PartitionKind::Gpt(kind) => {
                line += &kind.to_string().to_uppercase();
                line += &format!(", uuid={}", partition.id.as_ref().unwrap().to_uppercase());
                if let Some(name) = &partition.name {
                    line += &format!(", name=\"{name}\"");
                }
            }
            kind => line += &kind.to_string(),
        }
        if partition.bootable && table.scheme == Scheme::Mbr {
            line += ", bootable";
        }
        line
    });
    lines.collect()
}

/// The lines of partitions in a dump, without extended ones.
fn dumped(dump: &str) -> Vec<String> {
    let lines =
        dump.lines().filter(|line| line.contains("start=") && !line.ends_with("type=5") && !line.ends_with("type=f"));
    lines.map(|line| line.replace(", attrs=\"LegacyBIOSBootable\"", "").replace("\\x20", " ")).collect()
}

#[test]
fn primary_and_logical_partitions_are_those_of_sfdisk() {
    for extended in ["5", "f"] {
        let script = format!(
            "label: dos\nlabel-id: 0x1234abcd\nsize=4M,type=83,bootable\nsize=8M,type=7\nsize=30M,type={extended}\n\
             type=8e\nsize=5M,type=83\nsize=6M,type=fd\nsize=3M,type=82\nsize=1M,type=42\n"
        );
        let Some((disk, dump)) = sfdisk(64 * MIB, &script) else { return };
        let disk = disk.device();
        assert_eq!(told(&disk), dumped(&dump));
        let table = partitions(&disk).unwrap();
        assert_eq!((table.scheme, table.id.as_deref()), (Scheme::Mbr, Some("1234abcd")));
        let numbers: Vec<u32> = table.partitions.iter().map(|partition| partition.number).collect();
        assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8]);
        let roles: Vec<Role> = table.partitions.iter().map(|partition| partition.kind.role()).collect();
        assert_eq!(roles, [Role::Linux, Role::Windows, Role::Lvm, Role::Linux, Role::Raid, Role::Swap, Role::LdmData]);
        assert_eq!(table.partitions[4].id.as_deref(), Some("1234abcd-06"));
        let slice = table.partitions[0].slice(&disk).unwrap();
        assert_eq!((slice.range(), slice.name().as_str()), (MIB..5 * MIB, "partition 1 of memory"));
    }
}

#[test]
fn sixty_logical_partitions_are_all_found() {
    let script = "label: dos\ntype=5\n".to_owned() + &"size=512K,type=83\n".repeat(56);
    let Some((disk, dump)) = sfdisk(128 * MIB, &script) else { return };
    let disk = disk.device();
    assert_eq!(told(&disk), dumped(&dump));
    assert_eq!(partitions(&disk).unwrap().partitions.len(), 56);
}

const GPT: &str = "label: gpt\nlabel-id: 11223344-5566-4778-899A-ABBCCDDEEFF0\nsize=4M,type=U,name=\"EFI system\"\n\
    size=8M,name=\"Größe 😀\",attrs=\"LegacyBIOSBootable\"\nsize=3M,type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n\
    start=40960,size=5M,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n";

#[test]
fn a_gpt_with_names_is_that_of_sfdisk() {
    let Some((disk, dump)) = sfdisk(32 * MIB, GPT) else { return };
    let disk = disk.device();
    assert_eq!(told(&disk), dumped(&dump));
    let table = partitions(&disk).unwrap();
    assert_eq!((table.scheme, table.legacy.len()), (Scheme::Gpt, 0));
    assert_eq!(table.id.as_deref(), Some("11223344-5566-4778-899a-abbccddeeff0"));
    let roles: Vec<Role> = table.partitions.iter().map(|partition| partition.kind.role()).collect();
    assert_eq!(roles, [Role::EfiSystem, Role::Linux, Role::Lvm, Role::Windows]);
    assert!(!table.partitions[0].bootable && table.partitions[1].bootable);
}

#[test]
fn a_damaged_gpt_is_read_from_its_backup_also_after_the_disk_has_grown() {
    let Some((whole, dump)) = sfdisk(32 * MIB, GPT) else { return };
    for damage in [512 + 17, 512 + 60, 1024 + 40] {
        for grown in [0, 8 * MIB as usize] {
            let mut disk = whole.clone();
            disk.bytes[damage] ^= 0x10;
            disk.bytes.resize(whole.bytes.len() + grown, 0);
            let disk = disk.device();
            assert_eq!(told(&disk), dumped(&dump));
            assert_eq!(partitions(&disk).unwrap().scheme, Scheme::GptBackup);
        }
    }
}

#[test]
fn a_gpt_without_a_whole_copy_is_an_error_and_no_empty_disk() {
    let Some((mut disk, _)) = sfdisk(32 * MIB, GPT) else { return };
    disk.bytes[512 + 17] ^= 1;
    let end = disk.bytes.len();
    disk.bytes[end - 512 + 20] ^= 1;
    let error = partitions(&disk.device()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn a_gpt_whose_mbr_was_overwritten_is_found_and_a_stale_one_behind_an_mbr_is_not() {
    let Some((gpt, dump)) = sfdisk(32 * MIB, GPT) else { return };
    let mut wiped = gpt.clone();
    wiped.bytes[..512].fill(0);
    assert_eq!(told(&wiped.device()), dumped(&dump));
    let Some((mbr, dump)) = sfdisk(32 * MIB, "label: dos\nsize=4M,type=83\n") else { return };
    let mut stale = gpt.clone();
    stale.bytes[..512].copy_from_slice(&mbr.bytes[..512]);
    assert_eq!(told(&stale.device()), dumped(&dump));
}

#[test]
fn a_hybrid_is_a_gpt_and_tells_of_its_mbr() {
    let (Some((disk, dump)), Some(sgdisk)) = (sfdisk(32 * MIB, GPT), peer("sgdisk")) else { return };
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), &disk.bytes).unwrap();
    run(sgdisk, &[&"--hybrid", &"2:4", &image.path()]);
    let disk = TestDisk::new(std::fs::read(image.path()).unwrap()).device();
    assert_eq!(told(&disk), dumped(&dump));
    let table = partitions(&disk).unwrap();
    assert_eq!(table.scheme, Scheme::Gpt);
    let of = |number: u32| table.partitions.iter().find(|partition| partition.number == number).unwrap().range.clone();
    let legacy: Vec<_> = table.legacy.iter().map(|partition| partition.range.clone()).collect();
    assert_eq!(legacy, [of(2), of(4)]);
}

/// Makes a GPT that counts in sectors of 4096 bytes: no tool does that to a file.
fn four_kn(sectors: u64, entries: &[(u64, u64)]) -> Vec<u8> {
    let mut disk = vec![0; sectors as usize * 4096];
    let mut table = vec![0; 128 * 128];
    for (number, ((first, last), entry)) in entries.iter().zip(table.chunks_exact_mut(128)).enumerate() {
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
        ]);
        entry[16] = number as u8 + 1;
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    for (this, other, at) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 5)] {
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (place, number) in [(24, this), (32, other), (40, 6), (48, sectors - 6), (72, at)] {
            header[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        header[88..].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        let checksum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        disk[this as usize * 4096..][..92].copy_from_slice(&header);
        disk[at as usize * 4096..][..table.len()].copy_from_slice(&table);
    }
    disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn sectors_of_4096_bytes_count_in_a_gpt_whatever_the_disk_says_and_in_an_mbr() {
    let bytes = four_kn(1024, &[(6, 100), (101, 1000)]);
    for sector_size in [512, 4096] {
        for damage in [false, true] {
            let mut disk = TestDisk { bytes: bytes.clone(), sector_size };
            disk.bytes[4096 + 40] ^= u8::from(damage);
            let table = partitions(&disk.device()).unwrap();
            assert_eq!(table.sector_size, 4096);
            assert_eq!(table.scheme, if damage { Scheme::GptBackup } else { Scheme::Gpt });
            let ranges: Vec<_> = table.partitions.iter().map(|partition| partition.range.clone()).collect();
            assert_eq!(ranges, [6 * 4096..101 * 4096, 101 * 4096..1001 * 4096]);
        }
    }
    let mut mbr = TestDisk { bytes: vec![0; 4 << 20], sector_size: 4096 };
    mbr.bytes[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 16, 0, 0, 0, 32, 0, 0, 0]);
    mbr.bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(partitions(&mbr.device()).unwrap().partitions[0].range, 16 * 4096..48 * 4096);
}

/// Where the boot records of logical partitions are: that of the extended partition first.
fn chain(disk: &TestDisk) -> Vec<usize> {
    let number = |at: usize| u32::from_le_bytes(disk.bytes[at..at + 4].try_into().unwrap()) as usize * 512;
    let base = number(446 + 8);
    let mut records = vec![base];
    while number(records.last().unwrap() + 462 + 12) != 0 {
        records.push(base + number(records.last().unwrap() + 462 + 8));
    }
    records
}

#[test]
fn a_chain_that_comes_back_or_leaves_the_disk_is_an_error_that_keeps_what_came_before() {
    let script =
        "label: dos\nsize=20M,type=5\n".to_owned() + &"size=1M,type=83\n".repeat(3) + &"size=5M,type=83\n".repeat(3);
    let Some((whole, _)) = sfdisk(32 * MIB, &script) else { return };
    let records = chain(&whole);
    assert_eq!(records.len(), 3);
    let table = partitions(&whole.clone().device()).unwrap();
    let numbers: Vec<u32> = table.partitions.iter().map(|partition| partition.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
    let link = records[1] + 462 + 8;
    for (target, words) in [(0_u32, "comes back"), (u32::MAX, "has only"), (3, "55 AA")] {
        let mut disk = whole.clone();
        disk.bytes[link..link + 4].copy_from_slice(&target.to_le_bytes());
        let disk = disk.device();
        let error = partitions(&disk).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        let (table, damage) = partitions_until_damage(&disk).unwrap();
        let numbers: Vec<u32> = table.partitions.iter().map(|partition| partition.number).collect();
        assert_eq!((numbers, damage.is_some()), (vec![2, 3, 4, 5, 6], true));
    }
}

#[test]
fn a_partition_behind_the_end_of_its_disk_is_told_and_not_cut() {
    let Some((mut disk, dump)) = sfdisk(32 * MIB, GPT) else { return };
    disk.bytes.truncate(22 << 20);
    let disk = disk.device();
    assert_eq!(told(&disk), dumped(&dump));
    let table = partitions(&disk).unwrap();
    assert!(table.partitions[0].slice(&disk).is_ok());
    let error = table.partitions[3].slice(&disk).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_disk_without_a_table_has_none() {
    for size in [0, 100, 512, 1 << 20] {
        let table = partitions(&TestDisk::new(vec![0; size]).device()).unwrap();
        assert_eq!((table.scheme, table.partitions.len(), table.id), (Scheme::None, 0, None));
    }
    // Boot sectors of file systems have the signature of boot records.
    for (program_name, options) in [("mkfs.fat", "-I"), ("mkfs.exfat", "--pack-bitmap"), ("mkfs.ntfs", "-FQ")] {
        let Some(mkfs) = peer(program_name) else { continue };
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(16 << 20).unwrap();
        run(mkfs, &[&options, &image.path()]);
        let disk = TestDisk::new(std::fs::read(image.path()).unwrap());
        assert_eq!(disk.bytes[510..512], [0x55, 0xaa]);
        assert_eq!(partitions(&disk.device()).unwrap().scheme, Scheme::None, "{program_name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_tables_give_partitions_or_errors(
        flips in prop::collection::vec((0_usize..3, 0_usize..512, 0_u8..8), 1..40),
        gpt: bool,
    ) {
        let mut bytes = four_kn(64, &[(6, 20), (21, 40)]);
        let mut sector_size = 4096;
        let mut places = [0, 4096, 8192];
        if !gpt {
            bytes.fill(0);
            sector_size = 512;
            places = [0, 8 * 512, 16 * 512];
            for (at, start, link) in [(0, 1, 8), (8, 1, 8), (16, 1, 0)] {
                let record = &mut bytes[at * 512..][..512];
                record[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, start, 0, 0, 0, 4, 0, 0, 0]);
                if link != 0 {
                    record[462..478].copy_from_slice(&[0, 0, 0, 0, 5, 0, 0, 0, link, 0, 0, 0, 64, 0, 0, 0]);
                }
                record[510..].copy_from_slice(&[0x55, 0xaa]);
            }
        }
        let whole = TestDisk { bytes: bytes.clone(), sector_size }.device();
        prop_assert_eq!(partitions(&whole).unwrap().partitions.len(), if gpt { 2 } else { 3 });
        for (place, at, bit) in flips {
            bytes[places[place] + at] ^= 1 << bit;
        }
        let disk = TestDisk { bytes, sector_size }.device();
        if let Ok(table) = partitions(&disk) {
            for partition in table.partitions {
                prop_assert!(partition.range.start < partition.range.end);
                let _ = partition.slice(&disk);
            }
        }
    }
}
