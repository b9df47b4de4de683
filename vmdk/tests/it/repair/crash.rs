//! Storage that dies at any write of a repair in place: nothing that could be read is lost, and the next repair ends
//! the work.

use std::sync::Arc;

use vmdk::{
    Disk, OpenOptions, Resolver,
    check::{CheckOptions, Severity},
    repair::Repair,
};

use crate::{
    check::{Patch, damage, streams},
    support::dying::{Dying, One},
};

/// Grains that can be read; all `None` when the disk cannot be opened.
fn grains(resolver: &Arc<One>, count: u64) -> Vec<Option<Vec<u8>>> {
    let resolver = Arc::clone(resolver) as Arc<dyn Resolver>;
    let Ok(disk) = Disk::open("s.vmdk", &OpenOptions::new().resolver(resolver)) else {
        return vec![None; count as usize];
    };
    // Those with data, and some without.
    let some = (0..6).chain(510..516).chain([544, 700, 1024, 1600]).filter(|grain| *grain < count);
    some.map(|grain| {
        let mut buf = vec![0; (disk.capacity() - grain * 65536).min(65536) as usize];
        disk.read_at(grain * 65536, &mut buf).ok().map(|()| buf)
    })
    .collect()
}

/// Lets the repair of `image` die after every number of writes. With `keeps` all that could be read must be readable
/// in between, too.
fn die_everywhere(image: &[u8], count: u64, keeps: bool) {
    for budget in 0..10_000 {
        let file = Dying::after(budget, image);
        let resolver = Arc::new(One(Arc::clone(&file)));
        let options = CheckOptions::new().resolver(Arc::clone(&resolver) as Arc<dyn Resolver>);
        let before = grains(&resolver, count);
        let plan = || Repair::plan("s.vmdk", &options).unwrap();
        let died = plan().apply_in_place().is_err();
        file.revive();
        let kept =
            |after: &[Option<Vec<u8>>]| before.iter().zip(after).position(|(was, is)| was.is_some() && was != is);
        if keeps {
            assert_eq!(kept(&grains(&resolver, count)), None, "lost after {budget} writes");
        }
        let left = plan().apply_in_place().unwrap();
        assert!(left.worst() < Some(Severity::Damaged), "after {budget} writes: {left}");
        let after = grains(&resolver, count);
        assert_eq!(kept(&after), None, "lost after {budget} writes and a second repair");
        assert!(after.iter().all(Option::is_some));
        if !died {
            assert!(budget > 3, "the repair wrote nothing");
            return;
        }
    }
    panic!("the repair never ends");
}

#[test]
fn a_repair_of_tables_may_be_interrupted_at_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = damage::image(dir.path());
    let mut patch = Patch::of(&path);
    patch.set_grain(513, patch.word(patch.grain_entry(0, 1)));
    patch.set(patch.grain_entry(0, 3), 0x00ff_ff00);
    patch.set(patch.directory_entry(0, 3), 0x7fff_ffff);
    patch.set(patch.directory_entry(1, 2), 0x7fff_ffff);
    patch.bytes[72] = 1;
    die_everywhere(&patch.bytes, 1601, true);
}

#[test]
fn the_making_of_a_directory_may_be_interrupted_at_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = damage::image(dir.path());
    for field in [48, 56] {
        let mut patch = Patch::of(&path);
        patch.set(field, 0x7fff_ffff);
        die_everywhere(&patch.bytes, 1601, true);
    }
}

#[test]
fn an_interrupted_repair_of_a_stream_is_ended_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = streams::image(dir.path());
    let mut patch = Patch::of(&path);
    let directory = patch.word(patch.bytes.len() as u64 - 1024 + 56);
    patch.set(u64::from(directory) * 512, 0x00ff_ffff);
    die_everywhere(&patch.bytes, 545, false);
}
