//! Damaged streams: a reader refuses them or reads what was written, a salvage tells what is left.

use std::{fs, ops::Range};

use proptest::prelude::*;
use vmdk::{
    Cid, SECTOR,
    stream::{GrainOrder, SalvageReader, SalvageReport, Salvager, StreamReader, StreamSpec, StreamWriter},
};

use super::decoded;
use crate::support::{Random, holey, peer, run};

const GRAIN: usize = 8 << 10;
/// Three tables of 4 MiB, the last grain cut.
const LEN: usize = (9 << 20) + 1024;

/// A disk with few grains: some deflated, some stored.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; LEN];
    let mut random = Random::new(71);
    for (count, number) in [0, 1, 2, 7, 300, 511, 512, 700, 701, 1030, 1152].into_iter().enumerate() {
        let start = number * GRAIN;
        let end = (start + GRAIN).min(LEN);
        disk[start..end].copy_from_slice(&random.bytes(end - start));
        if count % 4 != 3 {
            // Without repetitions: Adler-32 misses some exchanges of them.
            disk[start..end].iter_mut().for_each(|byte| *byte &= 0x1f);
        }
    }
    disk
}

fn stream_of(disk: &[u8]) -> Vec<u8> {
    let spec = StreamSpec::new(disk.len() as u64).grain_bytes(GRAIN as u64).cid(Cid(7));
    let mut writer = StreamWriter::new(Vec::new(), &spec).unwrap();
    writer.write_at(0, disk).unwrap();
    writer.finish().unwrap()
}

/// Sectors of what comes behind the padding after the descriptor.
fn data_sectors(stream: &[u8]) -> Range<usize> {
    32..stream.len() / 512
}

/// Whatever was done to the stream: it is refused, or reads as the disk.
fn assert_refused_or_right(stream: &[u8], disk: &[u8], what: impl FnOnce() -> String) {
    let is_refused = || -> vmdk::Result<()> {
        let mut reader = StreamReader::open(stream, "damaged")?;
        let is_other = reader.capacity() != disk.len() as u64;
        let mut read = vec![0; disk.len()];
        while let Some(grain) = reader.next_grain()? {
            if !is_other {
                read[grain.offset as usize..][..grain.data.len()].copy_from_slice(grain.data);
            }
        }
        assert!(!is_other && read == disk, "{}: read without an error, and wrong", what());
        Ok(())
    };
    let _ = is_refused();
}

#[test]
fn a_changed_byte_anywhere_is_found_or_harmless() {
    let disk = disk();
    let mut stream = stream_of(&disk);
    // The header, then everything behind the descriptor.
    let sectors = std::iter::once(0).chain(data_sectors(&stream));
    for at in sectors.flat_map(|sector| sector * 512..(sector + 1) * 512) {
        // All bytes of a marker, some of the rest.
        if at % 512 >= 20 && at % 61 != 0 {
            continue;
        }
        let flip = [1, 0x80, 0x10][at % 3];
        stream[at] ^= flip;
        assert_refused_or_right(&stream, &disk, || format!("byte {at} changed by {flip:#x}"));
        stream[at] ^= flip;
    }
}

#[test]
fn a_lost_doubled_emptied_or_moved_sector_is_found() {
    let disk = disk();
    let stream = stream_of(&disk);
    for sector in data_sectors(&stream) {
        let at = sector * 512;
        let lost = [&stream[..at], &stream[at + 512..]].concat();
        assert_refused_or_right(&lost, &disk, || format!("sector {sector} lost"));
        let doubled = [&stream[..at + 512], &stream[at..]].concat();
        assert_refused_or_right(&doubled, &disk, || format!("sector {sector} doubled"));
        let mut emptied = stream.clone();
        emptied[at..at + 512].fill(0);
        assert_refused_or_right(&emptied, &disk, || format!("sector {sector} emptied"));
    }
}

#[test]
fn grains_that_changed_places_are_refused_or_read_as_their_tables_say() {
    let disk = disk();
    let stream = stream_of(&disk);
    let markers: Vec<usize> = grain_sectors(&stream).into_iter().map(|(sector, _)| sector * 512).collect();
    // Grains 0 and 1 of the disk exchange their markers' places, and keep their data.
    let mut changed = stream.clone();
    let (first, second) = (markers[0], markers[1]);
    for byte in 0..8 {
        changed.swap(first + byte, second + byte);
    }
    assert!(decoded(changed.as_slice()).is_err());
    // In any order it would be accepted, were it not for the tables.
    let mut reader = StreamReader::open_ordered(changed.as_slice(), "changed", GrainOrder::Any).unwrap();
    let error = loop {
        match reader.next_grain() {
            Ok(grain) => assert!(grain.is_some(), "the end was reached"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("misplaced"), "{error}");
}

#[test]
fn the_tables_in_front_of_qemu_imgs_streams_are_compared() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = holey(3 << 20, 72);
    fs::write(dir.path().join("raw"), &disk).unwrap();
    let option = "subformat=streamOptimized";
    run("qemu-img", dir.path(), &["convert", "-f", "raw", "-O", "vmdk", "-o", option, "raw", "stream.vmdk"]);
    let stream = fs::read(dir.path().join("stream.vmdk")).unwrap();
    assert!(decoded(stream.as_slice()).unwrap().0 == disk);
    let grains = grain_sectors(&stream);
    assert!(grains.len() > 10);
    let (fifth, sixth) = (grains[5].0 * 512, grains[6].0 * 512);
    // A grain less, and a sector of zeros where a marker was: without the tables, both look whole.
    let lost = [&stream[..fifth], &stream[sixth..]].concat();
    assert!(decoded(lost.as_slice()).unwrap_err().to_string().contains("missing"));
    let mut emptied = stream.clone();
    emptied[fifth..fifth + 512].fill(0);
    assert!(decoded(emptied.as_slice()).is_err());
    let (last, _) = *grains.last().unwrap();
    assert!(decoded(&stream[..last * 512]).is_err(), "the last grain is missing");
}

/// Sectors of grain markers, and the grains' places on the disk.
fn grain_sectors(stream: &[u8]) -> Vec<(usize, u64)> {
    let mut reader = StreamReader::open(stream, "test").unwrap();
    let mut sectors = Vec::new();
    while let Some(grain) = reader.next_grain().unwrap() {
        sectors.push(grain.offset);
    }
    let marker = |offset: u64| {
        let sector = (0..stream.len() / 512).find(|sector| {
            let bytes = &stream[sector * 512..];
            bytes[..8] == (offset / SECTOR).to_le_bytes() && bytes[8..12] != [0; 4] && bytes[12] & 0xf == 8
        });
        (sector.unwrap(), offset)
    };
    sectors.into_iter().map(marker).collect()
}

struct Salvaged {
    grains: Vec<(u64, Vec<u8>)>,
    report: SalvageReport,
}

fn salvaged(stream: &[u8], salvager: Salvager) -> Salvaged {
    let mut reader = SalvageReader::new(stream, "damaged", salvager);
    let mut grains = Vec::new();
    while let Some(grain) = reader.next_grain().unwrap() {
        grains.push((grain.offset, grain.data.to_vec()));
    }
    Salvaged { grains, report: reader.report().clone() }
}

impl Salvaged {
    /// All that was given out is right, and what was not is known to be lost, or not known.
    fn assert_honest(&self, disk: &[u8], what: &str) {
        let mut read = vec![0; disk.len()];
        for (offset, data) in &self.grains {
            read[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
        }
        assert_eq!(self.report.grains, self.grains.len() as u64);
        let missing = |range: &Range<u64>| range.start as usize..(range.end as usize).min(disk.len());
        for range in self.report.lost.iter().chain(&self.report.unknown).map(missing) {
            read[range.clone()].copy_from_slice(&disk[range]);
        }
        assert!(read == disk, "{what}: something is wrong that is said to be right");
    }

    /// What is said to be lost was there.
    fn assert_lost(&self, disk: &[u8], what: &str) {
        let missing = |range: &Range<u64>| range.start as usize..(range.end as usize).min(disk.len());
        for range in self.report.lost.iter().map(missing) {
            for grain in disk[range].chunks(GRAIN) {
                assert!(grain.iter().any(|byte| *byte != 0), "{what}: a hole is said to be lost");
            }
        }
    }
}

#[test]
fn a_whole_stream_is_salvaged_whole() {
    let disk = disk();
    let all = salvaged(&stream_of(&disk), Salvager::new());
    all.assert_honest(&disk, "whole");
    assert!(all.report.is_whole(), "{:?}", all.report);
    assert_eq!((all.report.grains, all.report.capacity), (11, Some(LEN as u64)));
    assert!(all.report.unknown.is_empty() && all.report.lost.is_empty());
}

#[test]
fn a_stream_cut_anywhere_gives_all_grains_before_the_cut() {
    let disk = disk();
    let stream = stream_of(&disk);
    let markers = grain_sectors(&stream);
    for sector in 1..stream.len() / 512 {
        let cut = salvaged(&stream[..sector * 512], Salvager::new());
        cut.assert_honest(&disk, &format!("cut at sector {sector}"));
        assert!(!cut.report.is_whole());
        // Whole are the grains whose successor had begun; the one at the cut may be.
        let begun = markers.iter().filter(|(marker, _)| *marker < sector).count() as u64;
        assert!((begun.saturating_sub(1)..=begun).contains(&cut.report.grains), "{sector}: {:?}", cut.report);
    }
}

#[test]
fn a_damaged_sector_costs_one_grain() {
    let disk = disk();
    let stream = stream_of(&disk);
    let total = grain_sectors(&stream).len() as u64;
    let mut random = Random::new(73);
    for sector in data_sectors(&stream) {
        for kind in 0..3 {
            let mut damaged = stream.clone();
            let place = sector * 512..(sector + 1) * 512;
            match kind {
                0 => damaged[place].fill(0),
                1 => damaged[place].copy_from_slice(&random.bytes(512)),
                _ => drop(damaged.drain(place)),
            }
            let what = format!("sector {sector}, damage {kind}");
            let found = salvaged(&damaged, Salvager::new());
            assert!(found.report.grains >= total - 1, "{what}: {:?}", found.report);
            assert!(!found.report.is_whole() || found.report.grains == total, "{what}: {:?}", found.report);
            if kind != 2 {
                found.assert_honest(&disk, &what);
                found.assert_lost(&disk, &what);
            }
        }
    }
}

#[test]
fn a_table_tells_lost_grains_from_holes() {
    let disk = disk();
    let mut stream = stream_of(&disk);
    // Grain 2 is lost; 1 and 7 are not, and neither is their table.
    let (marker, _) = grain_sectors(&stream)[2];
    stream[marker * 512..(marker + 1) * 512].fill(0xa5);
    let found = salvaged(&stream, Salvager::new());
    let grain = GRAIN as u64;
    assert_eq!(found.report.lost, std::slice::from_ref(&(2 * grain..3 * grain)));
    assert_eq!(found.report.unknown, []);
    found.assert_lost(&disk, "one grain");
    assert_eq!((found.report.damages, found.report.is_ended), (1, true));
}

#[test]
fn a_grain_with_anothers_address_is_named() {
    let disk = disk();
    let mut stream = stream_of(&disk);
    // Grain 7 says that it is grain 5, which is a hole.
    let (marker, offset) = grain_sectors(&stream)[3];
    assert_eq!(offset, 7 * GRAIN as u64);
    stream[marker * 512..marker * 512 + 8].copy_from_slice(&(5 * 16_u64).to_le_bytes());
    let found = salvaged(&stream, Salvager::new());
    let [misplaced] = found.report.misplaced[..] else { panic!("{:?}", found.report) };
    assert_eq!((misplaced.given, misplaced.named), (5 * GRAIN as u64, 7 * GRAIN as u64));
    assert!(!found.report.is_whole());
}

#[test]
fn a_stream_without_its_beginning_is_salvaged() {
    let disk = holey(40 << 16, 74);
    let spec = StreamSpec::new(disk.len() as u64);
    let mut writer = StreamWriter::new(Vec::new(), &spec).unwrap();
    writer.write_at(0, &disk).unwrap();
    let mut stream = writer.finish().unwrap();
    stream[..70_000].fill(0xff);
    let found = salvaged(&stream, Salvager::new().capacity(disk.len() as u64));
    assert!(found.report.header_is_damaged && found.report.is_ended);
    found.assert_honest(&disk, "no header");
    let whole = salvaged(&stream, Salvager::new());
    assert_eq!(whole.report.grains, found.report.grains);
    assert_eq!(whole.report.capacity, None);
    // Nothing at all is no stream either.
    assert!(salvaged(&[], Salvager::new()).report.header_is_damaged);
}

#[test]
fn what_only_looks_like_grains_costs_bounded_work() {
    let mut stream = stream_of(&disk());
    // Every sector claims to be a grain of 16 KiB, of which the last byte is missing.
    let mut fake = [0; 512];
    fake[8..12].copy_from_slice(&16_000_u32.to_le_bytes());
    fake[12..15].copy_from_slice(&[0x78, 0x01, 0x07]);
    stream.truncate(32 * 512);
    for _ in 0..20_000 {
        stream.extend_from_slice(&fake);
    }
    let found = salvaged(&stream, Salvager::new());
    assert_eq!((found.report.grains, found.report.is_exhausted), (0, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_salvage_of_anything_ends_and_tells_no_lies(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..3000_usize, any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let disk = disk();
        let mut stream = stream_of(&disk);
        for (at, len, fill) in damage {
            // Behind the marker of a sector: markers that lie are looked at above.
            let at = at.index(stream.len() / 512) * 512 + 12;
            let end = (at + len).min(stream.len());
            stream[at..end].fill(fill);
        }
        stream.truncate(cut.index(stream.len() * 2));
        let found = salvaged(&stream, Salvager::new().capacity(LEN as u64));
        if found.report.is_ordered && found.report.misplaced.is_empty() && !found.report.header_is_damaged {
            found.assert_honest(&disk, "random damage");
        }
    }
}
