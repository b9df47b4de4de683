//! Storage that stops taking writes at any moment: what was there before stays readable.

use std::sync::Arc;

use vmdk::{CreateKind, CreateSpec, Disk, Error, OpenOptions, create, layout::SparseHeader};

use crate::support::{
    Random, content,
    dying::{Dying, One},
};

#[test]
fn a_sparse_disk_survives_the_end_of_its_storage_at_every_write() {
    const CAPACITY: usize = 40 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.vmdk");
    let disk = create(&path, &CreateSpec::new(CAPACITY as u64, CreateKind::MonolithicSparse)).unwrap();
    let mut old = vec![0; CAPACITY];
    let mut random = Random::new(3);
    for at in [0_usize, 5 << 20, 33 << 20] {
        old[at..at + 100_000].copy_from_slice(&random.bytes(100_000));
        disk.write_at(at as u64, &old[at..at + 100_000]).unwrap();
    }
    disk.close().unwrap();
    let image = std::fs::read(&path).unwrap();

    // Overlaps stored and absent grains, and both tables.
    let changes = [(50_000_usize, 300_000_usize), ((32 << 20) - 100_000, 1_300_000), (CAPACITY - 777, 777)];
    let mut completed_runs = 0;
    for budget in 0.. {
        let file = Dying::after(budget, &image);
        let options = OpenOptions::new().writable().resolver(Arc::new(One(Arc::clone(&file))));
        let disk = Disk::open("s.vmdk", &options).unwrap();
        let mut expected = old.clone();
        let mut doubtful = 0..0;
        for (at, len) in changes {
            match disk.write_at(at as u64, &vec![0xcc; len]) {
                Ok(()) => expected[at..at + len].fill(0xcc),
                Err(error) => {
                    assert!(matches!(error, Error::Io { .. }) && error.hint().is_some(), "{error}");
                    doubtful = at..at + len;
                    break;
                }
            }
        }
        drop(disk);
        let died = !doubtful.is_empty();
        file.revive();
        let header = SparseHeader::parse(file.file.to_vec()[..512].try_into().unwrap(), "test").unwrap();
        assert!(!died || budget < 2 || header.unclean_shutdown, "the flag says clean after {budget} writes");
        let disk = Disk::open("s.vmdk", &options).unwrap();
        let found = content(&disk);
        for (index, (&is, &was)) in found.iter().zip(&expected).enumerate() {
            assert!(is == was || (is == 0xcc && doubtful.contains(&index)), "byte {index} after {budget} writes");
        }
        // And the disk can be written on.
        disk.write_at(20 << 20, &[0xdd; 70_000]).unwrap();
        assert!(content(&disk)[20 << 20..].starts_with(&[0xdd; 70_000]));
        if !died {
            completed_runs = budget;
            break;
        }
    }
    assert!(completed_runs > 10, "{completed_runs}");
}
