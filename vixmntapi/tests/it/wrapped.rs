//! Every file system in everything that disks wrap around it: partitions of both kinds, logical volumes over one disk
//! and two, and VMDKs of ours and of qemu-img. What comes out is what went in.

mod sample;
mod wrapping;

use std::{path::Path, time::Instant};

use vixmntapi::set::{Contents, DiskSet};

use self::{
    sample::{Maker, Sample},
    wrapping::{Form, Wrapping},
};
use crate::compare::assert_same;

#[test]
fn file_systems_are_read_through_what_is_around_them() {
    let cases = sample::all(sample::Size::Quick).into_iter().enumerate().map(|(number, sample)| {
        // Each meets two wrappings, and all of them together all wrappings in both forms.
        let at = |step: usize| Wrapping::ALL[(number * 2 + step) % Wrapping::ALL.len()];
        let form = Form::ALL[(number / 3) % Form::ALL.len()];
        (sample, vec![(at(0), form), (at(1), form)])
    });
    check(cases);
}

#[test]
#[ignore = "minutes: cargo test --release -p vixmntapi --test it -- --ignored every_file_system --nocapture"]
fn every_file_system_is_read_through_everything_that_may_be_around_it() {
    let every = || Wrapping::ALL.into_iter().flat_map(|wrapping| Form::ALL.map(|form| (wrapping, form))).collect();
    check(sample::all(sample::Size::Full).into_iter().map(|sample| (sample, every())));
}

fn check(cases: impl Iterator<Item = (Maker, Vec<(Wrapping, Form)>)>) {
    let (mut kinds, mut read, mut files) = (0, 0, 0);
    for (make, wrappings) in cases {
        // What is missing for it was said.
        let Some(sample) = make() else { continue };
        kinds += 1;
        for (wrapping, form) in wrappings {
            let started = Instant::now();
            let folder = tempfile::tempdir().unwrap();
            let Some((disks, volume)) = wrapping.around(&sample.image, folder.path()) else { return };
            let disks: Option<Vec<_>> = disks.iter().map(|disk| form.of(disk)).collect();
            let Some(disks) = disks else { return };
            assert_holds(&sample, &disks, &volume);
            read += 1;
            files += sample.truth.0.len();
            let (name, entries) = (sample.name, sample.truth.0.len());
            println!("{name} {wrapping:?} {form:?}: {entries} entries, {} ms", started.elapsed().as_millis());
        }
    }
    println!("wrapped: {kinds} file systems, {read} disks or pairs of them, {files} entries, 0 differences");
}

/// Reads a volume of some disks and compares it with what went in.
fn assert_holds(sample: &Sample, disks: &[impl AsRef<Path>], volume: &str) {
    let set = disks.iter().fold(DiskSet::builder(), |set, disk| set.vmdk(disk.as_ref()).unwrap()).open().unwrap();
    let volume = set.volume(volume).unwrap_or_else(|error| panic!("{}: {error}: {set:?}", sample.name));
    let Contents::FileSystem(info) = volume.contents().unwrap() else { panic!("{}: {volume:?}", sample.name) };
    assert_eq!((info.kind, info.consistency), (sample.kind, sample.consistency), "{}", sample.name);
    let mounted = volume.mount().unwrap();
    assert_same(mounted.file_system(), &volume.device().unwrap(), &sample.truth, sample.compare);
}
