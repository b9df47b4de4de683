//! LVM2: volumes of a group that LVM2's own tools made and checked.
//!
//! `lvm/a.head.gz` and `lvm/b.head.gz` are the first MiB of two physical volumes of 64 MiB, by LVM 2.03.16: `pvcreate`,
//! `vgcreate -s 1M vg0`, `lvcreate` of what it makes without device-mapper (linear, striped, raid0, cached), and
//! `vgcfgrestore` of the rest. Where their extents are is what `lvs --segments -o +seg_pe_ranges` says.

use std::{io::Read, sync::Arc};

use proptest::prelude::*;
use vixmntapi::{
    Error,
    device::DeviceExt,
    set::{DiskSet, Volume, VolumeKind},
};

use crate::{
    disks::{Partitions, set, touch},
    guest::{Guest, SIZE},
    md,
    peers::{peer, run},
    tree::noise,
};

const MIB: usize = 1 << 20;
/// Bytes of a physical volume.
const PV: usize = 64 * MIB;

/// The two physical volumes, with the guest's file system in every volume of 12 MiB.
pub(crate) fn disks(guest: &Guest) -> [Vec<u8>; 2] {
    let heads: [&[u8]; 2] = [include_bytes!("lvm/a.head.gz"), include_bytes!("lvm/b.head.gz")];
    let mut disks = heads.map(|head| {
        let mut disk = vec![0; PV];
        flate2::read::GzDecoder::new(head).read_exact(&mut disk[..MIB]).unwrap();
        disk
    });
    let files = &guest.bytes;
    linear(&mut disks, files, &[(0, 0, 5), (1, 12, 7)]);
    striped(&mut disks, files, 64 << 10, [5, 0]);
    striped(&mut disks, files, 16 << 10, [11, 6]);
    for [on_a, on_b] in [[31, 26], [44, 39]] {
        linear(&mut disks, files, &[(0, on_a, 12)]);
        linear(&mut disks, files, &[(1, on_b, 12)]);
    }
    disks
}

/// Puts bytes into extents: disk, first extent, how many.
fn linear(disks: &mut [Vec<u8>; 2], mut bytes: &[u8], runs: &[(usize, usize, usize)]) {
    for (disk, extent, count) in runs {
        let (now, rest) = bytes.split_at(count * MIB);
        disks[*disk][(extent + 1) * MIB..][..now.len()].copy_from_slice(now);
        bytes = rest;
    }
}

/// Puts bytes in turns on both disks, from these extents on.
fn striped(disks: &mut [Vec<u8>; 2], bytes: &[u8], chunk: usize, extents: [usize; 2]) {
    for (number, chunk) in bytes.chunks(chunk).enumerate() {
        let at = (extents[number % 2] + 1) * MIB + number / 2 * chunk.len();
        disks[number % 2][at..][..chunk.len()].copy_from_slice(chunk);
    }
}

fn volume(set: &DiskSet, name: &str) -> Volume {
    set.volume(&format!("lvm/vg0/{name}")).unwrap()
}

const WHOLE: [&str; 5] = ["linear", "striped", "raid0", "raid1", "mirror"];

#[test]
fn every_kind_of_volume_that_is_read_has_the_files() {
    let Some(guest) = Guest::get() else { return };
    let set = set(disks(guest));
    for name in WHOLE {
        let volume = volume(&set, name);
        assert_eq!((volume.size(), volume.degraded()), (SIZE as u64, None), "{name}");
        assert_eq!(volume.kind(), &VolumeKind::Lvm { group: "vg0".into(), name: name.into() });
        guest.assert_is(&volume);
    }
    let names: Vec<_> = set.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect();
    let all = ["linear", "striped", "raid0", "cached", "raid1", "mirror", "store", "pool", "thin"];
    assert_eq!(names, all.map(|name| format!("lvm/vg0/{name}")));
}

#[test]
fn what_is_not_read_is_listed_with_its_size_and_named() {
    let Some(guest) = Guest::get() else { return };
    let set = set(disks(guest));
    let names = [
        ("thin", 10, "a thin volume"),
        ("pool", 4, "the pool of thin volumes"),
        ("cached", 2, "the cache may have newer bytes"),
        ("store", 2, "a snapshot of striped"),
    ];
    for (name, size, words) in names {
        let volume = volume(&set, name);
        assert_eq!(volume.size(), size * MIB as u64);
        for error in [volume.contents().unwrap_err(), volume.mount().unwrap_err(), volume.device().unwrap_err()] {
            assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(words), "{error}");
        }
    }
}

#[test]
fn physical_volumes_in_partitions_of_one_disk_or_two_and_in_any_order_make_the_same_volumes() {
    let Some(guest) = Guest::get() else { return };
    let [a, b] = disks(guest);
    let Some(one) = Partitions::gpt(&[&b, &a]) else { return };
    let two = [Partitions::mbr(&[&noise(MIB), &b]).unwrap(), a.clone()];
    for (set, others) in [(set([one]), 0), (set(two), 1), (set([b, a]), 0)] {
        for name in WHOLE {
            guest.assert_bytes(&volume(&set, name));
        }
        assert_eq!(set.volumes().unwrap().len(), 9 + others);
    }
}

#[test]
fn physical_volumes_on_mirrors_of_md_are_there_once() {
    let Some(guest) = Guest::get() else { return };
    let [a, b] = disks(guest);
    for version in md::VERSIONS {
        // With the superblock at the end, each member looks like the physical volume itself.
        let [first, second] = md::mirror(version, &a);
        let set = set([first, second, b.clone()]);
        guest.assert_bytes(&volume(&set, "striped"));
        assert_eq!(set.volumes().unwrap().len(), 9, "version {version}");
    }
}

#[test]
fn volumes_over_two_disks_are_the_same_as_vmdks() {
    let Some(guest) = Guest::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = disks(guest);
    let path = |name: &str| folder.path().join(name);
    let mut set = DiskSet::builder();
    let raw = vmdk::Disk::from_source("a", vmdk::Handle::ReadOnly(Arc::new(vmdk::MemSource::new(a)))).unwrap();
    let spec = vmdk::CreateSpec::new(PV as u64, vmdk::CreateKind::TwoGbMaxExtentSparse);
    drop(vmdk::convert(&raw, path("a.vmdk"), &spec, &vmdk::CopyOptions::default()).unwrap());
    set = set.vmdk(path("a.vmdk")).unwrap();
    std::fs::write(path("b"), b).unwrap();
    if let Some(program) = peer("qemu-img") {
        run(program, &[&"convert", &"-O", &"vmdk", &path("b"), &path("b.vmdk")]);
        set = set.vmdk(path("b.vmdk")).unwrap();
    } else {
        set = set.raw(path("b")).unwrap();
    }
    guest.assert_is(&volume(&set.open().unwrap(), "striped"));
}

#[test]
fn without_a_disk_copies_are_read_and_the_rest_says_what_is_missing() {
    let Some(guest) = Guest::get() else { return };
    let disks = disks(guest);
    for (number, (there, other)) in [("pv0", "pv1"), ("pv1", "pv0")].into_iter().enumerate() {
        let set = set([disks[number].clone()]);
        for name in ["raid1", "mirror"] {
            let volume = volume(&set, name);
            assert!(volume.degraded().unwrap().contains(&format!("volume {other} (")), "{there}: {volume:?}");
            guest.assert_bytes(&volume);
        }
        for name in ["linear", "striped", "raid0"] {
            let volume = volume(&set, name);
            let what = volume.degraded().unwrap().to_owned();
            assert!(what.contains(other) && what.ends_with("is missing"), "{what}");
            let device = volume.device().unwrap();
            assert_eq!(device.size(), SIZE as u64);
            let (first, second) = (device.read_vec(0, 512), device.read_vec(device.size() - 512, 512));
            let (here, away, at) = if number == 0 { (first, second, 0) } else { (second, first, SIZE - 512) };
            assert!(here.unwrap() == guest.bytes[at..at + 512]);
            let Error::Read { source, .. } = away.unwrap_err() else { panic!("{name}") };
            assert_eq!(source.to_string(), what);
        }
    }
}

/// The metadata of `dm-raid` for one of two copies.
fn raid_metadata(number: u32, events: u64, failed: u64, recovered: u64) -> Vec<u8> {
    let head = [u32::from_le_bytes(*b"DmRd"), 0, 2, number];
    let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend([events, failed, recovered, u64::MAX].iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

#[test]
fn a_mirror_is_read_from_the_copy_that_is_in_step() {
    let Some(guest) = Guest::get() else { return };
    let whole = disks(guest);
    // Which copy's bytes are old, and the metadata of both that says so.
    let cases = [
        (0, [(5, 0, u64::MAX), (6, 0, u64::MAX)]),
        (0, [(5, 0, u64::MAX), (5, 1, u64::MAX)]),
        (1, [(7, 0, u64::MAX), (6, 0, u64::MAX)]),
        (1, [(6, 0, u64::MAX), (6, 0, 2048)]),
        (1, [(6, 2, u64::MAX), (6, 0, u64::MAX)]),
    ];
    for (old, states) in cases {
        let mut disks = whole.clone();
        for (number, (events, failed, recovered)) in states.into_iter().enumerate() {
            let metadata = raid_metadata(number as u32, events, failed, recovered);
            disks[number][([43, 38][number] + 1) * MIB..][..metadata.len()].copy_from_slice(&metadata);
        }
        disks[old][([31, 26][old] + 1) * MIB..][..SIZE].fill(0xee);
        let volume = volume(&set(disks.clone()), "raid1");
        assert!(volume.degraded().unwrap().contains(&format!("raid1_rimage_{old} is not in step")), "{volume:?}");
        guest.assert_bytes(&volume);
        // A copy that is being built is not passed off for the volume when the other is away.
        if states[old].2 != u64::MAX {
            let alone = self::volume(&set([std::mem::take(&mut disks[old])]), "raid1");
            let error = alone.device().unwrap_err();
            assert!(error.to_string().contains("no copy can be relied on"), "{error}");
        }
    }
}

/// LVM2's checksum, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 != 0 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// Where the text lies in the metadata area of a physical volume, which begins at 4096.
fn place(disk: &[u8]) -> (usize, usize) {
    let number = |at: usize| u64::from_le_bytes(disk[at..at + 8].try_into().unwrap()) as usize;
    (number(4096 + 40), number(4096 + 48))
}

fn text(disk: &[u8]) -> String {
    let (offset, size) = place(disk);
    String::from_utf8(disk[4096 + offset..][..size].to_vec()).unwrap()
}

/// Writes a text `offset` bytes behind the start of the area, around its end if it is so long, with right checksums.
fn write_text(disk: &mut [u8], text: &[u8], offset: usize) {
    let len = MIB - 4096;
    disk[4096 + 32..4096 + 40].copy_from_slice(&(len as u64).to_le_bytes());
    for (number, byte) in text.iter().enumerate() {
        let at = offset + number;
        disk[4096 + if at < len { at } else { at - len + 512 }] = *byte;
    }
    disk[4096 + 40..4096 + 48].copy_from_slice(&(offset as u64).to_le_bytes());
    disk[4096 + 48..4096 + 56].copy_from_slice(&(text.len() as u64).to_le_bytes());
    disk[4096 + 56..4096 + 60].copy_from_slice(&checksum(text).to_le_bytes());
    seal(disk);
}

/// The first MiB of each physical volume of a group `vg0` with one volume, `linear`, that takes all of them; they hold so
/// many MiB each. Their labels and headers are LVM2's own, for other sizes.
pub(crate) fn linear_group(sizes: &[usize]) -> Vec<Vec<u8>> {
    let heads: [&[u8]; 2] = [include_bytes!("lvm/a.head.gz"), include_bytes!("lvm/b.head.gz")];
    let mut heads: Vec<Vec<u8>> = heads[..sizes.len()]
        .iter()
        .map(|head| {
            let mut bytes = vec![0; MIB];
            flate2::read::GzDecoder::new(*head).read_exact(&mut bytes).unwrap();
            bytes
        })
        .collect();
    let (mut volumes, mut segments, mut start) = (String::new(), String::new(), 0);
    for (number, (head, size)) in heads.iter().zip(sizes).enumerate() {
        let id = String::from_utf8(head[544..576].to_vec()).unwrap();
        let cuts = [0, 6, 10, 14, 18, 22, 26, 32];
        let id = cuts.windows(2).map(|cut| &id[cut[0]..cut[1]]).collect::<Vec<_>>().join("-");
        let sectors = (size + 1) * 2048;
        volumes += &format!(
            "pv{number} {{\nid = \"{id}\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\n\
             dev_size = {sectors}\npe_start = 2048\npe_count = {size}\n}}\n"
        );
        segments += &format!(
            "segment{} {{\nstart_extent = {start}\nextent_count = {size}\ntype = \"striped\"\nstripe_count = 1\n\
             stripes = [\n\"pv{number}\", 0\n]\n}}\n",
            number + 1
        );
        start += size;
    }
    let flags = "status = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []";
    let text = format!(
        "vg0 {{\nid = \"kZbI1a-xwQO-C12v-TMqR-MgYz-bmCX-0LBeze\"\nseqno = 11\nformat = \"lvm2\"\n\
         status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 2048\nmax_lv = 0\nmax_pv = 0\n\
         metadata_copies = 0\nphysical_volumes {{\n{volumes}}}\nlogical_volumes {{\nlinear {{\n\
         id = \"12goQU-0Dzy-dKQx-inz9-2gnl-eoAK-DRJIer\"\n{flags}\nsegment_count = {}\n{segments}}}\n}}\n}}\n\
         contents = \"Text Format Volume Group\"\nversion = 1\n\0",
        sizes.len()
    );
    for (head, size) in heads.iter_mut().zip(sizes) {
        write_text(head, text.as_bytes(), 512);
        head[576..584].copy_from_slice(&(((size + 1) * MIB) as u64).to_le_bytes());
        let sum = checksum(&head[532..1024]);
        head[528..532].copy_from_slice(&sum.to_le_bytes());
    }
    heads
}

/// Corrects the checksum of the header of the metadata area.
fn seal(disk: &mut [u8]) {
    let sum = checksum(&disk[4100..4096 + 512]);
    disk[4096..4100].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn stripes_over_copies_are_read_from_those_in_step() {
    let Some(guest) = Guest::get() else { return };
    let mut disks = disks(guest);
    // Two groups of two copies: each group on both disks, where the mirror and RAID 1 were.
    let part = |name: &str, pv: usize, extent: usize, count: usize| {
        format!(
            "{name} {{\nstatus = [\"READ\", \"WRITE\"]\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
             extent_count = {count}\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv{pv}\", {extent}]\n}}\n}}\n"
        )
    };
    let places = [(0, 31), (1, 26), (0, 44), (1, 39)];
    let mut volumes = String::new();
    for (number, (pv, extent)) in places.iter().enumerate() {
        volumes += &part(&format!("i{number}"), *pv, *extent, 6);
        volumes += &part(&format!("m{number}"), *pv, extent + 6, 1);
    }
    volumes += "ten {\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {\nstart_extent = 0\n\
                extent_count = 12\ntype = \"raid10\"\ndevice_count = 4\nstripe_size = 128\n\
                raids = [\"m0\", \"i0\", \"m1\", \"i1\", \"m2\", \"i2\", \"m3\", \"i3\"]\n}\n}\n";
    let text = text(&disks[0]).replacen("logical_volumes {\n", &format!("logical_volumes {{\n{volumes}"), 1);
    for (number, (disk, extent)) in places.into_iter().enumerate() {
        let dealt: Vec<u8> = guest.bytes.chunks(64 << 10).skip(number / 2).step_by(2).flatten().copied().collect();
        disks[disk][(extent + 1) * MIB..][..SIZE / 2].copy_from_slice(&dealt);
        // Copy 0 failed, and its bytes are old.
        let metadata = raid_metadata(number as u32, if number == 0 { 4 } else { 5 }, u64::from(number != 0), u64::MAX);
        disks[disk][(extent + 7) * MIB..][..metadata.len()].copy_from_slice(&metadata);
    }
    disks[0][32 * MIB..38 * MIB].fill(0xee);
    disks.iter_mut().for_each(|disk| write_text(disk, text.as_bytes(), 512));
    let set = set(disks);
    let volume = volume(&set, "ten");
    assert_eq!(volume.degraded(), Some("i0 is not in step with the other copies"));
    guest.assert_bytes(&volume);
}

#[test]
fn a_text_that_goes_around_the_end_of_its_area_is_read() {
    let Some(guest) = Guest::get() else { return };
    let mut disks = disks(guest);
    assert_eq!(checksum(text(&disks[0]).as_bytes()).to_le_bytes(), disks[0][4096 + 56..4096 + 60]);
    for disk in &mut disks {
        let text = text(disk);
        disk[4096 + 512..MIB].fill(b'?');
        write_text(disk, text.as_bytes(), MIB - 4096 - 1000);
    }
    guest.assert_bytes(&volume(&set(disks), "striped"));
}

#[test]
fn the_newest_metadata_is_in_force_wherever_it_is() {
    let Some(guest) = Guest::get() else { return };
    let whole = disks(guest);
    let seqno = text(&whole[0]).split_once("seqno = ").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let number: u64 = seqno.parse().unwrap();
    for newer in 0..2 {
        let mut disks = whole.clone();
        let renamed = text(&disks[newer]).replace("\nlinear {", "\nnew_name {");
        let renamed = renamed.replace(&format!("seqno = {seqno}"), &format!("seqno = {}", number + 1));
        write_text(&mut disks[newer], renamed.as_bytes(), 512);
        // The other has none that counts: a damaged one, or none at all.
        for other in 0..3 {
            let mut disks = disks.clone();
            match other {
                1 => disks[1 - newer][4096 + 600..5000].fill(0),
                2 => {
                    disks[1 - newer][4096 + 40..4096 + 64].fill(0);
                    seal(&mut disks[1 - newer]);
                }
                _ => {}
            }
            let set = set(disks);
            guest.assert_bytes(&volume(&set, "new_name"));
            assert!(set.volume("lvm/vg0/linear").is_err());
            assert!(set.volumes().is_ok());
        }
    }
}

#[test]
fn a_physical_volume_that_was_away_while_the_group_changed_is_not_read() {
    let Some(guest) = Guest::get() else { return };
    let mut disks = disks(guest);
    let (before, after) = text(&disks[0]).split_once("pv1 {").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let marked = format!("{before}pv1 {{{}", after.replacen("flags = []", "flags = [\"MISSING\"]", 1));
    write_text(&mut disks[0], marked.replace("seqno = ", "seqno = 1").as_bytes(), 512);
    disks[1][2 * MIB..].fill(0xee);
    let set = set(disks);
    for name in ["raid1", "mirror"] {
        guest.assert_bytes(&volume(&set, name));
    }
    let what = volume(&set, "linear").degraded().unwrap().to_owned();
    assert!(what.ends_with("was away while the group was changed"), "{what}");
}

#[test]
fn a_physical_volume_that_is_there_twice_is_an_error_and_no_guess() {
    let Some(guest) = Guest::get() else { return };
    let [a, b] = disks(guest);
    let set = set([a.clone(), b, a]);
    for name in WHOLE {
        let error = volume(&set, name).device().unwrap_err();
        assert!(error.to_string().contains("is there twice"), "{error}");
    }
}

#[test]
fn metadata_that_nobody_understands_hides_no_volumes_in_silence() {
    let Some(guest) = Guest::get() else { return };
    for (at, words) in [(4096 + 8, "none"), (4096 + 30, "checksum of its header"), (0, "checksum of its text")] {
        let mut disks = disks(guest);
        for disk in &mut disks {
            let at = if at == 0 { 4096 + place(disk).0 + 10 } else { at };
            disk[at] ^= 1;
        }
        let set = set(disks);
        assert_eq!((set.problems().len(), set.volumes_until_damage().len()), (2, 0));
        let error = set.volumes().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains(words), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn hostile_metadata_gives_volumes_or_errors_and_ends(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..8), 1..6),
        flips in prop::collection::vec((0_usize..8192, 0_u8..8), 0..3),
    ) {
        let heads: [&[u8]; 2] = [include_bytes!("lvm/a.head.gz"), include_bytes!("lvm/b.head.gz")];
        let mut disks = heads.map(|head| {
            let mut disk = vec![0; 4 * MIB];
            flate2::read::GzDecoder::new(head).read_exact(&mut disk[..MIB]).unwrap();
            disk
        });
        // Words of the text in other places than LVM2 has them, with checksums that are right.
        let text = text(&disks[0]);
        let mut words: Vec<&str> = text.split_inclusive([' ', '\n', '\t', ',']).collect();
        for (place, kind) in changes {
            let place = place.index(words.len());
            let other = words[(place * 7 + kind) % words.len()];
            match kind {
                0 => words[place] = "18446744073709551615 ",
                1 => words[place] = "9223372036854775807 ",
                2 => words[place] = "0 ",
                3 => words[place] = "\"raid1\" ",
                4 => words[place] = "\"linear\", ",
                5 => drop(words.remove(place)),
                6 => words.insert(place, other),
                _ => words[place] = other,
            }
        }
        for disk in &mut disks {
            write_text(disk, words.concat().as_bytes(), 512);
            for (at, bit) in &flips {
                disk[*at] ^= 1 << bit;
            }
        }
        touch(&set(disks));
    }
}
