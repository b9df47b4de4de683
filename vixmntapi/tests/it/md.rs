//! Arrays of Linux md. This kernel has no md, so the superblocks are written here as the kernel's `md_p.h` says, and
//! `mdadm --examine` confirms them.

mod member;

use proptest::prelude::*;
use vixmntapi::{Error, device::DeviceExt, set::VolumeKind};

use self::member::Member;
use crate::{
    disks::{Partitions, set, touch},
    guest::{Guest, SIZE},
    peers::{peer, run},
};

const MIB: usize = 1 << 20;
const ID: &str = "md/01234567:89abcdef:00112233:44556677";

/// The two members of a mirror with these bytes.
pub(crate) fn mirror(version: u32, data: &[u8]) -> [Vec<u8>; 2] {
    [0, 1].map(|slot| Member::new(version, 1, 2, slot, data.to_vec()).device())
}

/// Deals bytes out in chunks; `places` tells the members that get the how many-th chunk.
fn dealt(bytes: &[u8], chunk: usize, members: usize, places: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<u8>> {
    let mut dealt = vec![Vec::new(); members];
    for (number, chunk) in bytes.chunks(chunk).enumerate() {
        for member in places(number) {
            dealt[member].extend(chunk);
        }
    }
    dealt
}

fn members(version: u32, level: i32, data: Vec<Vec<u8>>) -> Vec<Member> {
    let slots = data.len() as u32;
    let data = data.into_iter().enumerate();
    data.map(|(slot, data)| Member::new(version, level, slots, slot as u32, data)).collect()
}

/// Superblocks at all places.
pub(crate) const VERSIONS: [u32; 4] = [90, 0, 1, 2];

#[test]
fn arrays_of_every_version_and_level_have_the_files() {
    let Some(guest) = Guest::get() else { return };
    let bytes = &guest.bytes;
    for version in VERSIONS {
        let halves = vec![bytes[..5 * MIB].to_vec(), bytes[5 * MIB..].to_vec()];
        let cases = [
            (1, vec![bytes.clone(), bytes.clone()]),
            (0, dealt(bytes, 64 << 10, 3, |number| vec![number % 3])),
            (-1, halves),
            (10, dealt(bytes, 64 << 10, 4, |number| [0, 1].map(|copy| number % 2 * 2 + copy).to_vec())),
        ];
        for (level, data) in cases {
            let members = members(version, level, data);
            // The order of the disks does not matter.
            let set = set(members.iter().rev().map(Member::device));
            let volume = set.volume(ID).unwrap();
            eprintln!("version {version}, level {level}");
            let name = if version == 90 { "" } else { "data" };
            assert_eq!(volume.kind(), &VolumeKind::Md { name: name.into(), uuid: ID[3..].into() });
            assert_eq!((volume.degraded(), set.volumes().unwrap().len()), (None, 1));
            if version == 2 {
                guest.assert_is(&volume);
            } else {
                guest.assert_bytes(&volume);
            }
            assert!(volume.size() >= SIZE as u64 && volume.size() < SIZE as u64 + 256 * 1024, "{}", volume.size());
        }
    }
}

#[test]
fn mdadm_reads_our_superblocks_as_we_mean_them() {
    let Some(mdadm) = peer("mdadm") else { return };
    for (version, shown) in [(90, "0.90.00"), (0, "1.0"), (1, "1.1"), (2, "1.2")] {
        for (level, name) in [(1, "raid1"), (0, "raid0"), (-1, "linear"), (10, "raid10")] {
            let mut member = Member::new(version, level, 4, 2, vec![0; 4 * MIB]);
            member.layout = if level == 0 && version != 90 { 1 } else { member.layout };
            member.active = vec![0, 2, 3];
            let image = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(image.path(), member.device()).unwrap();
            let told = run(&mdadm, &[&"--examine", &image.path()]);
            let value = |key: &str| {
                let line = told.lines().find(|line| line.trim_start().starts_with(key));
                line.and_then(|line| line.split_once(" : ")).unwrap_or_else(|| panic!("no {key}: {told}")).1.to_owned()
            };
            assert_eq!(value("Version"), shown);
            assert_eq!(value("Raid Level"), name);
            assert_eq!(value("Raid Devices"), "4");
            assert!(value("Checksum").ends_with("correct"), "{told}");
            let uuid = if version == 90 { value("UUID") } else { value("Array UUID") };
            assert!(uuid.starts_with(&ID[3..]), "{told}");
            if version == 90 {
                assert!(told.contains("this     2       8       32        2      active sync"), "{told}");
                assert!(value("Events").ends_with("20"), "{told}");
            } else {
                assert_eq!((value("Events"), value("Device Role")), ("20".into(), "Active device 2".into()));
                assert!(value("Array State").starts_with("A.AA"), "{told}");
                assert!(value("Name").starts_with("host:data"), "{told}");
            }
        }
    }
}

#[test]
fn a_mirror_without_a_member_is_read_from_the_other() {
    let Some(guest) = Guest::get() else { return };
    for version in VERSIONS {
        for there in 0..2 {
            let member = Member::new(version, 1, 2, there, guest.bytes.clone());
            let set = set([member.device()]);
            let volume = set.volume(ID).unwrap();
            assert_eq!(volume.degraded(), Some(&*format!("member {} of 2 is missing", 1 - there)));
            guest.assert_bytes(&volume);
        }
    }
}

#[test]
fn a_mirror_is_read_from_its_freshest_member() {
    let Some(guest) = Guest::get() else { return };
    let old = vec![0xee; SIZE];
    for version in VERSIONS {
        for stale in 0..2 {
            let mut members = members(version, 1, vec![guest.bytes.clone(); 2]);
            members[stale].data.clone_from(&old);
            // It was thrown out; the other went on.
            members[1 - stale].events += 5;
            members[1 - stale].active = vec![1 - stale as u32];
            let set = set(members.iter().map(Member::device));
            let volume = set.volume(ID).unwrap();
            assert!(volume.degraded().unwrap().contains("is not in step"), "{volume:?}");
            guest.assert_bytes(&volume);
        }
    }
    // It is being built; or it was thrown out just now.
    for (features, active, difference) in [(2, vec![0, 1], 0), (0, vec![1], 1)] {
        let mut members = members(2, 1, vec![old.clone(), guest.bytes.clone()]);
        members[0].features = features;
        members[1].active = active;
        members[1].events += difference;
        let set = set(members.iter().map(Member::device));
        guest.assert_bytes(&set.volume(ID).unwrap());
    }
    let mut alone = Member::new(2, 1, 2, 0, old);
    alone.features = 2;
    let error = set([alone.device()]).volume(ID).unwrap().device().unwrap_err();
    assert!(error.to_string().contains("no copy can be relied on"), "{error}");
}

#[test]
fn members_of_stripes_differ_in_size_in_both_layouts() {
    let Some(guest) = Guest::get() else { return };
    // 12 MiB over members of 2, 5 and 5 MiB: zones of 3 and of 2 members.
    let chunk = 64 << 10;
    let first = 3 * 2 * MIB / chunk;
    for (layout, offset) in [(1, first), (2, 0)] {
        let places =
            |number: usize| vec![if number < first { number % 3 } else { 1 + (number - first + offset % 2) % 2 }];
        let data = dealt(&guest.bytes, chunk, 3, places);
        let mut members = members(2, 0, data);
        members.iter_mut().for_each(|member| member.layout = layout);
        let set = set(members.iter().map(Member::device));
        guest.assert_bytes(&set.volume(ID).unwrap());
        members.iter_mut().for_each(|member| member.layout = 0);
        let error = self::set(members.iter().map(Member::device)).volume(ID).unwrap().device().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    // With zones of an odd number of chunks the layouts differ.
    let bytes: Vec<u8> = (0..9 * (64 << 10)).map(|at: usize| (at >> 12) as u8).collect();
    for (layout, places) in [(1, [0, 1, 2, 2, 1, 2, 1, 2, 1]), (2, [0, 1, 2, 1, 2, 1, 2, 1, 2])] {
        let data = dealt(&bytes, 64 << 10, 3, |number| vec![places[number]]);
        let mut members = members(2, 0, data);
        members.iter_mut().for_each(|member| member.layout = layout);
        let device = set(members.iter().map(Member::device)).volume(ID).unwrap().device().unwrap();
        assert_eq!(device.size(), bytes.len() as u64);
        assert!(device.read_vec(0, bytes.len()).unwrap() == bytes, "layout {layout}");
    }
}

#[test]
fn what_is_not_read_is_listed_and_named() {
    let mut far = members(2, 10, vec![vec![0; MIB]; 2]);
    far.iter_mut().for_each(|member| member.layout = 0x201);
    let mut reshaped = members(2, 1, vec![vec![0; MIB]; 2]);
    reshaped[1].features = 4;
    reshaped[1].events += 1;
    let cases = [
        (members(2, 5, vec![vec![0; MIB]; 3]), "parity (RAID 5)", 2 * MIB),
        (members(90, 6, vec![vec![0; MIB]; 4]), "parity (RAID 6)", 2 * MIB),
        (members(1, 4, vec![vec![0; MIB]; 3]), "parity (RAID 4)", 2 * MIB),
        (members(2, -4, vec![vec![0; MIB]; 2]), "level -4", 0),
        (far, "side by side", MIB),
        (reshaped, "another form", MIB),
    ];
    for (members, words, size) in cases {
        let set = set(members.iter().map(Member::device));
        let volume = set.volume(ID).unwrap();
        let error = volume.mount().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(words), "{error}");
        assert!(size == 0 || volume.size() == size as u64, "{words}: {}", volume.size());
    }
    for level in [0, -1] {
        let members = members(2, level, vec![vec![0; MIB]; 3]);
        let set = set(members.iter().take(2).map(Member::device));
        let error = set.volume(ID).unwrap().device().unwrap_err();
        assert!(error.to_string().contains("member 2 of 3 is missing"), "{error}");
    }
}

#[test]
fn a_member_that_is_there_twice_is_an_error_and_no_guess() {
    let members = members(2, 1, vec![vec![0; MIB]; 2]);
    let set = set([members[0].device(), members[0].device(), members[1].device()]);
    let error = set.volume(ID).unwrap().device().unwrap_err();
    assert!(error.to_string().contains("is there twice"), "{error}");
}

#[test]
fn a_superblock_with_a_wrong_checksum_hides_nothing_in_silence() {
    for version in VERSIONS {
        let member = Member::new(version, 1, 2, 0, vec![0; MIB]);
        let mut disk = member.device();
        let magic = disk.windows(4).position(|bytes| bytes == 0xa92b_4efc_u32.to_le_bytes()).unwrap();
        disk[magic + 29] ^= 1;
        let set = set([disk]);
        assert_eq!(set.problems().len(), 1);
        let error = set.volumes().unwrap_err();
        assert!(error.to_string().contains("checksum is wrong"), "{error}");
    }
}

#[test]
fn partitions_of_arrays_and_arrays_of_partitions_and_of_whole_disks_are_found() {
    let Some(guest) = Guest::get() else { return };
    for version in VERSIONS {
        let Some(inner) = Partitions::gpt(&[&guest.bytes]) else { return };
        let member = |slot: u32| Member::new(version, 1, 2, slot, inner.clone()).device();
        // The partition table is seen through the superblock at the end, and counts as the array's.
        let of_disks = set([member(0), member(1)]);
        let ids: Vec<_> = of_disks.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect();
        assert_eq!(ids, [format!("{ID}p1")], "version {version}");
        let volume = of_disks.volume(&ids[0]).unwrap();
        assert_eq!((volume.partition().unwrap().disk, volume.kind()), (None, &VolumeKind::Gpt));
        guest.assert_bytes(&volume);
        let alone = set([member(1)]).volume(&ids[0]).unwrap();
        assert_eq!(alone.degraded(), Some("member 0 of 2 is missing"));
        let whole = |slot: u32| {
            let mut disk = Member::new(version, 1, 2, slot, guest.bytes.clone()).device();
            disk.resize(disk.len().next_multiple_of(MIB), 0);
            Partitions::mbr(&[&disk])
        };
        if version == 1 || version == 2 {
            let of_parts = set([whole(0).unwrap(), whole(1).unwrap()]);
            guest.assert_bytes(&of_parts.volume(ID).unwrap());
            assert_eq!(of_parts.volumes().unwrap().len(), 1);
        }
    }
}

#[test]
fn stripes_over_mirrors_are_put_together() {
    let Some(guest) = Guest::get() else { return };
    let halves = dealt(&guest.bytes, 64 << 10, 2, |number| vec![number % 2]);
    let disks = members(2, 0, halves).into_iter().enumerate().flat_map(|(number, half)| {
        let mut mirrors = members(2, 1, vec![half.device(); 2]);
        mirrors.iter_mut().for_each(|mirror| mirror.uuid[0] = 0x80 + number as u8);
        mirrors
    });
    // A member of one of the mirrors is away.
    let set = set(disks.skip(1).map(|member| member.device()));
    let ids: Vec<_> = set.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect();
    assert_eq!(ids, [ID]);
    guest.assert_is(&set.volume(ID).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_superblocks_give_volumes_or_errors_and_end(
        version in prop::sample::select(&VERSIONS[..]),
        level in -2_i32..12,
        words in prop::collection::vec((0_usize..72, any::<u32>()), 1..8),
    ) {
        let members = members(version, level, vec![vec![0; 256 << 10]; 3]);
        let disks = members.iter().map(|member| {
            let mut disk = member.device();
            let at = disk.windows(4).position(|bytes| bytes == 0xa92b_4efc_u32.to_le_bytes()).unwrap();
            for (word, value) in &words {
                disk[at + 12 + 4 * word..][..4].copy_from_slice(&value.to_le_bytes());
            }
            // The checksum is right again: what is damaged is what it says.
            let (len, place) = if version == 90 { (1024, 38) } else { (72, 54) };
            disk[at + 4 * place..][..4].fill(0);
            let bytes = disk[at..at + 4 * len].chunks_exact(4);
            let sum: u64 = bytes.map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
            let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
            disk[at + 4 * place..][..4].copy_from_slice(&sum.to_le_bytes());
            disk
        });
        touch(&set(disks));
    }
}
