//! Dynamic disks of Windows. No tool makes them here, so the databases are written by hand as the drivers of Linux know
//! them, and `ldmtool` says what it reads in them.

mod database;

use proptest::prelude::*;
use vixmntapi::{
    Error,
    device::DeviceExt,
    set::{DiskSet, Volume, VolumeKind},
};

use self::database::{CHUNK, GROUP, Group, Made, with_gpt, with_mbr};
use crate::{
    disks::{set, touch},
    guest::{Guest, SIZE},
    peers::{peer, run},
};

const MIB: usize = 1 << 20;
/// Sectors of the guest's file system.
const SECTORS: u64 = SIZE as u64 / 512;

fn volume(set: &DiskSet, name: &str) -> Volume {
    set.volume(&format!("ldm/Group0/{name}")).unwrap()
}

const WHOLE: [&str; 4] = ["Simple", "Spanned", "Striped", "Mirrored"];

/// Two disks with a volume of every kind, each with the guest's file system; where they lie goes by what is said of them.
fn group(guest: &Guest) -> (Group, [Vec<u8>; 2]) {
    let (whole, half) = (SECTORS, SECTORS / 2);
    let volumes = vec![
        Made::new("Simple", 2, &[&[(0, 100, whole)]]),
        // Its second partition has sectors that it does not need.
        Made::new("Spanned", 2, &[&[(1, 0, 5000), (0, 100 + whole, whole - 5000 + 8)]]),
        Made::new("Striped", 1, &[&[(1, 6000, half), (0, 50_000, half)]]),
        Made::new("Mirrored", 2, &[&[(0, 70_000, whole)], &[(1, 40_000, whole)]]),
        Made::new("Parity", 3, &[&[(0, 0, 8), (1, 5000, 8), (1, 5100, 8)]]),
    ];
    let mut disks = [vec![0; 50 * MIB], vec![0; 40 * MIB]];
    let mut put = |disk: usize, sector: u64, bytes: &[u8]| {
        disks[disk][sector as usize * 512..][..bytes.len()].copy_from_slice(bytes);
    };
    let bytes = &guest.bytes;
    put(0, 100, bytes);
    put(1, 0, &bytes[..5000 * 512]);
    put(0, 100 + whole, &bytes[5000 * 512..]);
    for (number, chunk) in bytes.chunks(CHUNK as usize * 512).enumerate() {
        let start = [6000, 50_000][number % 2];
        put(1 - number % 2, start + number as u64 / 2 * CHUNK, chunk);
    }
    put(0, 70_000, bytes);
    put(1, 40_000, bytes);
    (Group::new(2, volumes), disks)
}

/// Those two disks, partitioned by an MBR.
pub(crate) fn disks(guest: &Guest) -> [Vec<u8>; 2] {
    let (group, data) = group(guest);
    [0, 1].map(|disk| with_mbr(&group, disk, &data[disk]))
}

#[test]
fn volumes_of_every_kind_have_the_files() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    let mbr = [0, 1].map(|disk| with_mbr(&group, disk, &data[disk]));
    let gpt = [0, 1].map(|disk| with_gpt(&group, disk, &data[disk]));
    let [Some(first), Some(second)] = gpt else { return };
    for (label, disks) in [("mbr", mbr), ("gpt", [first, second])] {
        for order in [[0, 1], [1, 0]] {
            let set = set(order.map(|disk: usize| disks[disk].clone()));
            let ids: Vec<_> = set.volumes().unwrap().iter().map(|volume| volume.id().to_string()).collect();
            let names = ["Simple", "Spanned", "Striped", "Mirrored", "Parity"];
            assert_eq!(ids, names.map(|name| format!("ldm/Group0/{name}")), "{label}");
            for (number, name) in WHOLE.into_iter().enumerate() {
                let volume = volume(&set, name);
                assert_eq!((volume.size(), volume.degraded()), (SIZE as u64, None), "{label} {name}");
                let VolumeKind::Dynamic { guid, letter, .. } = volume.kind() else { panic!("{volume:?}") };
                assert_eq!((guid, letter.as_deref()), (&[number as u8 + 1; 16], Some("F:")));
                if order == [0, 1] && label == "mbr" {
                    guest.assert_is(&volume);
                } else {
                    guest.assert_bytes(&volume);
                }
            }
            let error = volume(&set, "Parity").mount().unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("RAID-5"), "{error}");
        }
    }
}

#[test]
fn ldmtool_reads_our_databases_as_we_mean_them() {
    let Some(guest) = Guest::get() else { return };
    let Some(ldmtool) = peer("ldmtool") else { return };
    let (group, data) = group(guest);
    let folder = tempfile::tempdir().unwrap();
    let paths = [0, 1].map(|disk| {
        let path = folder.path().join(format!("disk{disk}"));
        std::fs::write(&path, with_mbr(&group, disk, &data[disk])).unwrap();
        path
    });
    let scanned = run(&ldmtool, &[&"scan", &paths[0], &paths[1]]);
    assert!(scanned.contains(GROUP), "{scanned}");
    let show = |what: &str, name: &str| {
        run(&ldmtool, &[&"--device", &paths[0], &"--device", &paths[1], &"show", &what, &GROUP, &name])
    };
    for (name, kind) in [
        ("Simple", "simple"),
        ("Spanned", "spanned"),
        ("Striped", "striped"),
        ("Mirrored", "mirrored"),
        ("Parity", "RAID5"),
    ] {
        let told = show("volume", name);
        assert!(told.contains(&format!("\"type\" : \"{kind}\"")), "{told}");
        assert!(told.contains(&format!("\"size\" : {SECTORS}")), "{told}");
        assert!(told.contains("\"hint\" : \"F:\""), "{told}");
        if name == "Striped" {
            assert!(told.contains(&format!("\"chunk-size\" : {CHUNK}")), "{told}");
        }
    }
    // The second partition of the spanned volume: after one volume with a component and a partition, and its first.
    let told = show("partition", "Spanned-1005");
    for (key, value) in [("start", 100 + SECTORS), ("size", SECTORS - 5000 + 8)] {
        assert!(told.contains(&format!("\"{key}\" : {value}")), "{told}");
    }
    assert!(told.contains("\"disk\" : \"Disk1\""), "{told}");
}

#[test]
fn without_a_disk_copies_are_read_and_the_rest_says_what_is_missing() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    for (there, data) in data.iter().enumerate() {
        let set = set([with_mbr(&group, there, data)]);
        let missing = format!("Disk{} is missing", 2 - there);
        let mirrored = volume(&set, "Mirrored");
        assert_eq!(mirrored.degraded(), Some(&*missing));
        guest.assert_bytes(&mirrored);
        for name in ["Spanned", "Striped"] {
            let volume = volume(&set, name);
            assert_eq!(volume.degraded(), Some(&*missing));
            let device = volume.device().unwrap();
            let ends = [device.read_vec(0, 512), device.read_vec(device.size() - 512, 512)];
            // Both begin on the second disk and end on the first.
            let [away, here] = if there == 0 {
                ends
            } else {
                let [first, last] = ends;
                [last, first]
            };
            let at = if there == 0 { SIZE - 512 } else { 0 };
            assert!(here.unwrap() == guest.bytes[at..at + 512], "{name}");
            assert!(matches!(away.unwrap_err(), Error::Read { .. }));
        }
    }
}

#[test]
fn a_mirror_is_read_from_the_copy_that_is_in_step() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    let starts = [70_000, 40_000];
    for old in 0..2 {
        for by_state in [true, false] {
            let mut data = data.clone();
            data[old][starts[old] * 512..][..SIZE].fill(0xee);
            let (mut now, mut before) = (group.clone(), group.clone());
            if by_state {
                now.volumes[3].copies[old].state = "DETACHED";
                before = now.clone();
            } else {
                before.sequence -= 1;
            }
            let groups = if old == 0 { [before, now] } else { [now, before] };
            let set = set([0, 1].map(|disk| with_mbr(&groups[disk], disk, &data[disk])));
            let volume = volume(&set, "Mirrored");
            let words = if by_state { "is DETACHED" } else { "was away while the group was changed" };
            assert!(volume.degraded().unwrap().contains(words), "{volume:?}");
            guest.assert_bytes(&volume);
        }
    }
}

#[test]
fn damaged_heads_and_databases_are_read_from_their_copies() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    let whole = [0, 1].map(|disk| with_mbr(&group, disk, &data[disk]));
    let config = |disk: &[u8]| disk.len() - MIB;
    // The head; the first tables of contents; both.
    for damage in 0..3 {
        let mut disks = whole.clone();
        for disk in &mut disks {
            let config = config(disk);
            if damage != 1 {
                disk[6 * 512] ^= 1;
            }
            if damage != 0 {
                disk[config + 512..config + 3 * 512].fill(0);
            }
        }
        guest.assert_bytes(&volume(&set(disks), "Striped"));
    }
    // A change was under way on one disk.
    let mut torn = group.clone();
    (torn.is_committed, torn.sequence) = (false, 101);
    let disks = [with_mbr(&torn, 0, &data[0]), whole[1].clone()];
    guest.assert_bytes(&volume(&set(disks), "Striped"));
}

#[test]
fn what_nobody_understands_hides_no_volumes_in_silence() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    let mut torn = group.clone();
    torn.is_committed = false;
    let mut miscounted = group.clone();
    miscounted.miscounted = 1;
    let mut headless = with_mbr(&group, 0, &data[0]);
    let end = headless.len();
    for head in [6 * 512, end - 512] {
        headless[head] ^= 1;
    }
    let mut emptied = with_mbr(&group, 0, &data[0]);
    emptied[end - MIB..end - 512].fill(0);
    // What may be no dynamic disk at all keeps its partition.
    for (disk, words, left) in [
        (with_mbr(&torn, 0, &data[0]), "was under way", 0),
        (with_mbr(&miscounted, 0, &data[0]), "volumes, components, partitions and disks, not", 0),
        (headless, "it is none", 1),
        (emptied, "no table of contents", 1),
    ] {
        let set = set([disk]);
        assert_eq!((set.problems().len(), set.volumes_until_damage().len()), (1, left));
        let error = set.volumes().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_disk_that_is_there_twice_is_an_error_and_no_guess() {
    let Some(guest) = Guest::get() else { return };
    let (group, data) = group(guest);
    let disk = with_mbr(&group, 0, &data[0]);
    let error = volume(&set([disk.clone(), disk]), "Simple").device().unwrap_err();
    assert!(error.to_string().contains("is there twice"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_databases_give_volumes_or_errors_and_end(
        bytes in prop::collection::vec((0_usize..4000, any::<u8>()), 1..10),
        head in prop::collection::vec((0_usize..512, any::<u8>()), 0..2),
    ) {
        let volumes = vec![
            Made::new("a", 2, &[&[(0, 0, 64), (1, 0, 64)], &[(0, 64, 128)]]),
            Made::new("b", 1, &[&[(0, 256, 128), (1, 256, 128)]]),
        ];
        let mut group = Group::new(2, volumes);
        group.volumes.iter_mut().for_each(|volume| volume.size = 128);
        let disks = [0, 1].map(|disk| {
            let mut image = with_mbr(&group, disk, &vec![0; MIB / 2]);
            let config = image.len() - MIB;
            for (at, value) in &bytes {
                image[config + 17 * 512 + at] = *value;
            }
            for (at, value) in &head {
                image[6 * 512 + at] = *value;
            }
            image
        });
        touch(&set(disks));
    }
}
