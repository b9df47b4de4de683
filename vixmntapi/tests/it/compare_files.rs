//! Comparing two files, and listings with digests.
#![allow(clippy::single_range_in_vec_init)] // Ranges are what is compared.

use std::{ops::Range, os::unix::ffi::OsStrExt, sync::Arc};

use proptest::prelude::*;
use vixmntapi::{
    Error, Result,
    catalogue::Catalogue,
    compare::{Differences, files},
    find::{Find, Pattern},
    fs::{Content, Extent, ExtentKind, FileKind, FileSystem, NodeId},
};

use crate::{
    images,
    made_up::MadeUp,
    peers::peer,
    tree::{Manifest, Names, Tree, noise},
};

fn node(number: u64) -> NodeId {
    NodeId { tree: 0, number }
}

fn differences(one: &Arc<dyn FileSystem>, other: &Arc<dyn FileSystem>) -> Vec<Range<u64>> {
    files((one, node(2)), (other, node(2))).unwrap().map(Result::unwrap).collect()
}

fn sparse(size: u64, pieces: &[(u64, &[u8])]) -> Arc<dyn FileSystem> {
    MadeUp::new(&[(b"a", 2)]).sparse(2, size, pieces).shared()
}

#[test]
fn ranges_that_differ_are_told_by_blocks_and_holes_are_not_read() {
    let far = 7 << 60;
    let one = sparse(8 << 60, &[(0, b"same"), (5000, b"one"), (20_000, b"\0\0"), (far, b"x")]);
    let other = sparse(8 << 60, &[(0, b"same"), (5000, b"two"), (9000, b"more"), (far + 1, b"y")]);
    assert_eq!(differences(&one, &other), [4096..12_288, far..far + 4096]);
    assert!(differences(&one, &one).is_empty());
    assert!(files((&one, node(2)), (&one, node(2))).unwrap().is_equal().unwrap());
    assert!(!files((&one, node(2)), (&other, node(2))).unwrap().is_equal().unwrap());
}

#[test]
fn what_only_the_longer_file_has_differs() {
    let (short, long) = (sparse(5000, &[(0, b"a")]), sparse(10_000, &[(0, b"a")]));
    assert_eq!(differences(&short, &long), [5000..10_000]);
    assert_eq!(differences(&long, &short), [5000..10_000]);
    assert_eq!(differences(&sparse(0, &[]), &long), [0..10_000]);
    assert_eq!(differences(&sparse(5000, &[(0, b"a"), (4999, b"b")]), &long), [4096..10_000]);
}

#[test]
fn a_map_that_contradicts_itself_is_an_error_and_not_a_hole() {
    struct Bad(Vec<Extent>);
    impl Content for Bad {
        fn size(&self) -> u64 {
            100
        }
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> Result<usize> {
            buffer.fill(1);
            Ok(buffer.len())
        }
        fn extents(&self, _: Range<u64>) -> Result<Vec<Extent>> {
            Ok(self.0.clone())
        }
    }
    for map in [vec![], vec![0..50], vec![0..50, 60..100], vec![0..100, 50..100], vec![10..100]] {
        let extents = map.iter().map(|range| Extent::new(range.clone(), ExtentKind::Encoded)).collect();
        let bad = Arc::new(Bad(extents));
        let said = Differences::new(bad.clone(), bad.clone()).next().unwrap().unwrap_err();
        assert!(matches!(said, Error::Damaged { .. }), "{map:?}: {said:?}");
        let bad: Arc<dyn Content> = bad;
        assert!(vixmntapi::catalogue::digest(&bad).is_err(), "{map:?}");
    }
}

proptest! {
    #[test]
    fn ranges_hold_exactly_the_blocks_that_differ(
        size in 0..40_000_usize,
        longer in 0..9000_usize,
        pieces in prop::collection::vec((0..40_000_u64, 1..200_usize), 0..8),
        changes in prop::collection::vec(0..40_000_usize, 0..8),
    ) {
        let mut pieces: Vec<_> = pieces.into_iter().map(|(at, len)| (at, noise(len))).collect();
        pieces.sort();
        pieces.dedup_by(|next, last| next.0 < last.0 + last.1.len() as u64);
        let mut bytes = vec![0; size + longer];
        for (at, piece) in &pieces {
            for (byte, new) in bytes.iter_mut().skip(*at as usize).zip(piece) {
                *byte = *new;
            }
        }
        let views: Vec<_> = pieces.iter().map(|(at, piece)| (*at, &**piece)).collect();
        let one = sparse(size as u64, &views);
        let mut changed = bytes.clone();
        for at in changes {
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 0x40;
            }
        }
        let other = MadeUp::new(&[(b"a", 2)]).file(2, &changed).shared();
        let mut expected: Vec<Range<u64>> = Vec::new();
        for start in (0..size + longer).step_by(4096) {
            let end = (start + 4096).min(size + longer);
            let equal = end <= size && bytes[start..end] == changed[start..end];
            let cut = if end <= size || start >= size || bytes[start..size] != changed[start..size] { start } else { size };
            match expected.last_mut() {
                _ if equal => {}
                Some(last) if last.end == cut as u64 => last.end = end as u64,
                _ => expected.push(cut as u64..end as u64),
            }
        }
        prop_assert_eq!(differences(&one, &other), expected.clone());
        prop_assert_eq!(differences(&other, &one), expected);
    }
}

#[test]
fn a_catalogue_lists_all_that_is_known_and_the_digests_of_others() {
    let Some(_) = peer("mke2fs") else { return };
    let tree = Tree::new().sizes().sparse(30 << 20).names(Names::Bytes).links();
    let (files, _image) = images::ext4(&tree);
    let manifest = Manifest::of(tree.path()).0;
    let records: Vec<_> = Catalogue::new(&files).digests_up_to(64 << 20).map(Result::unwrap).collect();
    let records: Vec<_> = records.into_iter().filter(|record| record.path != *"lost+found").collect();
    assert_eq!(records.len(), manifest.len());
    for record in records {
        let node = &manifest[record.path.as_bytes()];
        assert_eq!((record.metadata.kind, record.metadata.links.min(3)), (node.kind, node.links.min(3)));
        assert_eq!(record.target.map(|target| target.as_bytes().to_vec()), node.target);
        if node.kind == FileKind::File {
            // mke2fs keeps no nanoseconds.
            let modified = record.metadata.times.modified.seconds;
            assert_eq!((record.metadata.size, modified), (node.size, node.modified.seconds));
            let bytes = std::fs::read(tree.path().join(std::ffi::OsStr::from_bytes(record.path.as_bytes()))).unwrap();
            assert_eq!(record.digest, Some(blake3::hash(&bytes).into()), "{}", record.path);
        }
    }
    let small = Catalogue::of(&files, Find::new(&files, Pattern::new("sizes/*.bin").unwrap())).digests_up_to(1000);
    let (fine, large): (Vec<_>, Vec<_>) = small.partition(Result::is_ok);
    assert!(fine.len() > 10 && large.len() > 10);
    assert!(large.iter().all(|error| matches!(error, Err(Error::At { .. }))));
    assert!(Catalogue::new(&files).all(|record| record.unwrap().digest.is_none()));
}
