//! Damage by hand in streams.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vmdk::{
    check::{CheckOptions, Problem, Severity, check},
    stream::{StreamSpec, StreamWriter},
};

use super::{Patch, deep, problems};
use crate::support::{Random, peer, run};

pub(crate) fn write(path: &Path, content: &[u8]) {
    let mut writer = StreamWriter::new(Vec::new(), &StreamSpec::new(content.len() as u64)).unwrap();
    writer.write_at(0, content).unwrap();
    fs::write(path, writer.finish().unwrap()).unwrap();
}

/// A stream with its directory at the end: grains 0 to 3, 512, and the last (short) one, 544, all random.
pub(crate) fn image(dir: &Path) -> PathBuf {
    let path = dir.join("s.vmdk");
    let mut random = Random::new(4);
    let mut content = vec![0; (34 << 20) + 512];
    content[..4 * 65536].copy_from_slice(&random.bytes(4 * 65536));
    content[32 << 20..][..65536].copy_from_slice(&random.bytes(65536));
    content[34 << 20..].copy_from_slice(&random.bytes(512));
    write(&path, &content);
    path
}

/// The same made by qemu-img: directories in front.
pub(crate) fn front_image(dir: &Path) -> PathBuf {
    let ours = image(dir);
    let options = ["-O", "vmdk", "-o", "subformat=streamOptimized", "s.vmdk", "front.vmdk"];
    run("qemu-img", dir, &[&["convert", "-f", "vmdk"], &options[..]].concat());
    fs::remove_file(ours).unwrap();
    dir.join("front.vmdk")
}

/// The footer, as if it were a header at its own place.
fn entry_of(patch: &Patch, grain: u64) -> u64 {
    let footer = patch.bytes.len() as u64 - 1024;
    let directory = u64::from(patch.word(footer + 56)) * 512;
    u64::from(patch.word(directory + grain / 512 * 4)) * 512 + grain % 512 * 4
}

/// Sector of a grain's marker.
pub(crate) fn marker_of(patch: &Patch, grain: u64) -> u64 {
    u64::from(patch.word(entry_of(patch, grain)))
}

fn found(damage: impl FnOnce(&mut Patch)) -> Vec<(Problem, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    damage(&mut patch);
    patch.save();
    problems(&deep(&path))
}

#[test]
fn the_undamaged_stream_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let report = deep(&image(dir.path()));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.usage().grains, 6);
}

#[test]
fn data_that_do_not_match_their_checksum_are_found_by_a_deep_check_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut patch = Patch::of(&path);
    let at = marker_of(&patch, 2) as usize * 512 + 5000;
    patch.bytes[at] ^= 1;
    patch.save();
    let report = deep(&path);
    assert_eq!(problems(&report), [(Problem::GrainDamaged, 1)]);
    assert_eq!(report.findings().next().unwrap().place.grain, Some(2));
    assert!(check(&path, &CheckOptions::new()).unwrap().is_clean());
}

#[test]
fn markers_that_are_wrong() {
    let kinds = found(|patch| patch.set(marker_of(patch, 2) * 512, 77 * 128));
    // The tables say grain 2, the marker grain 77, which has an empty entry; and 77 is not followed by 3.
    let expected = [(Problem::MarkerMismatch, 1), (Problem::GrainNotInTable, 1), (Problem::OutOfOrder, 1)];
    assert_eq!(kinds, expected);
    let kinds = found(|patch| patch.set(marker_of(patch, 2) * 512, 5));
    assert_eq!(kinds, [(Problem::MarkerDamaged, 2)]);
    let kinds = found(|patch| patch.set(marker_of(patch, 2) * 512 + 8, u32::MAX));
    assert_eq!(kinds, [(Problem::MarkerDamaged, 2)]);
    // Zeros are an end marker for a forward reader.
    let kinds = found(|patch| {
        let at = marker_of(patch, 2) as usize * 512;
        patch.bytes[at..at + 1024].fill(0);
    });
    assert_eq!(kinds, [(Problem::MarkerDamaged, 2)]);
}

#[test]
fn tables_that_are_wrong() {
    let kinds = found(|patch| patch.set(entry_of(patch, 2), 0));
    assert_eq!(kinds, [(Problem::GrainNotInTable, 1)]);
    let kinds = found(|patch| patch.set(entry_of(patch, 2), marker_of(patch, 3) as u32));
    assert_eq!(kinds, [(Problem::MarkerMismatch, 1), (Problem::GrainTwice, 1)]);
    let kinds = found(|patch| patch.set(entry_of(patch, 2), 0x00ff_ffff));
    assert_eq!(kinds, [(Problem::GrainOutside, 1), (Problem::GrainTwice, 1)]);
    let kinds = found(|patch| {
        let directory = patch.word(patch.bytes.len() as u64 - 1024 + 56);
        patch.set(u64::from(directory) * 512, 0x00ff_ffff);
    });
    assert_eq!(kinds, [(Problem::TableOutside, 1)]);
}

#[test]
fn a_cut_stream_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let whole = fs::read(&path).unwrap();
    for cut in [1, 512, 1024, 2048, 5000, 70_000, 200_000] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let report = deep(&path);
        assert_eq!(report.worst(), Some(Severity::CannotOpen), "{cut}: {report}");
        assert_eq!(report.count(Problem::StreamTruncated), 1, "{cut}: {report}");
    }
}

#[test]
fn header_and_footer_must_describe_one_disk() {
    let kinds = found(|patch| {
        let footer = patch.bytes.len() as u64 - 1024;
        patch.set(footer + 12, 4096);
    });
    assert_eq!(kinds, [(Problem::FooterDiffers, 1)]);
    let kinds = found(|patch| {
        let end = patch.bytes.len();
        patch.bytes[end - 512 + 8] = 9;
    });
    assert_eq!(kinds, [(Problem::EndMarkerMissing, 1), (Problem::MarkerDamaged, 1)]);
    let kinds = found(|patch| {
        let footer = patch.bytes.len() as u64 - 1024;
        patch.set(footer + 56, 0x00ff_ffff);
    });
    assert_eq!(kinds, [(Problem::DirectoryOutside, 1)]);
}

#[test]
fn streams_with_directories_in_front_are_followed_too() {
    if !peer("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = front_image(dir.path());
    let report = deep(&path);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.usage().grains, 6);
    let whole = fs::read(&path).unwrap();
    let patch = Patch::of(&path);
    let entry = patch.grain_entry(0, 3);
    let sector = patch.word(entry);
    let damaged = |change: &dyn Fn(&mut Patch)| {
        let mut patch = Patch::of(&path);
        change(&mut patch);
        patch.save();
        let kinds = problems(&deep(&path));
        fs::write(&path, &whole).unwrap();
        kinds
    };
    let kinds = damaged(&|patch| patch.set_grain(3, 0));
    assert_eq!(kinds, [(Problem::GrainNotInTable, 1)]);
    let kinds = damaged(&|patch| patch.set(entry, sector + 1));
    assert_eq!(kinds, [(Problem::TablesDiffer, 1), (Problem::MarkerDamaged, 1), (Problem::GrainTwice, 1)]);
    // Cut inside of the last grain: no footer is missed, but the grain is.
    let last = patch.word(patch.grain_entry(0, 544)) as usize * 512;
    let kinds = damaged(&|patch| patch.bytes.truncate(last + 50));
    assert_eq!(kinds, [(Problem::GrainOutside, 1), (Problem::MarkerDamaged, 1)]);
}
