//! Random chains of disks.

use proptest::{prelude::*, sample::select};
use vmdk::{Disk, OpenOptions};

use super::{
    cases,
    changes::{Change, apply, capacity, changes},
    libvmdk,
    qemu::{Made, Qemu},
};
use crate::support::assert_is;

/// A link over another: what it is, how much larger (in sectors), and what is written to it.
#[derive(Debug, Clone)]
struct Child {
    made: Made,
    growth: u64,
    changes: Vec<Change>,
}

fn child() -> impl Strategy<Value = Child> {
    let growth = prop_oneof![2 => Just(0), 1 => 1_u64..3000];
    (Made::any_child(), growth, changes(0..6)).prop_map(|(made, growth, changes)| Child { made, growth, changes })
}

/// A base: of qemu-img, written by qemu-io, or compressed.
fn base() -> impl Strategy<Value = Made> {
    let stream = select(&["streamOptimized"][..]).prop_map(|subformat| Made {
        subformat,
        zeroed_grain: false,
        adapter: "lsilogic",
    });
    // No random access to compressed disks yet.
    prop_oneof![1 => Made::any(), 0 => stream]
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn what_qemu_makes_of_links_is_read_as_one(
        base in base(),
        capacity in capacity(),
        first in changes(0..8),
        children in prop::collection::vec(child(), 1..5),
        ours in changes(1..6),
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let mut content = vec![0; capacity as usize];
        apply(&first, &mut content);
        qemu.convert(&content, "l0.vmdk", &base.options());
        let mut names = vec!["l0.vmdk".to_owned()];
        for (number, child) in children.iter().enumerate() {
            let name = format!("l{}.vmdk", number + 1);
            content.resize(content.len() + child.growth as usize * 512, 0);
            qemu.create_child(&name, &names[number], content.len() as u64, &child.made.options());
            if !child.changes.is_empty() {
                qemu.change(&name, content.len() as u64, &child.changes);
                apply(&child.changes, &mut content);
            }
            names.push(name);
        }
        let (top, path) = (names.last().unwrap(), qemu.dir().join(names.last().unwrap()));
        let disk = Disk::open(&path, &OpenOptions::new()).unwrap();
        prop_assert_eq!(disk.links().len(), names.len());
        assert_is(&disk, &content);
        if !base.is_flat() {
            qemu.assert_maps(top, &disk);
        }

        // And what we write to the last link is what the peers find there.
        let disk = Disk::open(&path, &OpenOptions::new().writable()).unwrap();
        ours.iter().for_each(|change| change.write(&disk));
        apply(&ours, &mut content);
        assert_is(&disk, &content);
        disk.close().unwrap();
        qemu.assert_is("vmdk", top, &content);
        qemu.check(top);
        if children.iter().all(|child| child.growth == 0 && !child.made.zeroed_grain) {
            let links: Vec<_> = names.iter().rev().map(String::as_str).collect();
            libvmdk::assert_is(qemu.dir(), &links, &content);
        }
    }
}
