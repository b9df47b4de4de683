//! Random chains of disks, some links of qemu-img and some of ours, each written by qemu-io or by us.

use proptest::prelude::*;
use vmdk::{CopyOptions, CreateKind, CreateSpec, Disk, OpenOptions, convert};

use super::{
    assert_sound, cases,
    changes::{Change, apply, capacity, changes},
    libvmdk,
    ours::{self, Ours},
    qemu::{Made, Qemu},
};
use crate::support::assert_is;

/// One link: what it is, how much larger than its parent (in sectors), what is written to it and by whom.
#[derive(Debug, Clone)]
struct Link {
    maker: Maker,
    growth: u64,
    changes: Vec<Change>,
    writes: Writes,
}

#[derive(Debug, Clone)]
enum Maker {
    Qemu(Made),
    Ours(Ours),
    /// A base, `streamOptimized`, made with its content by whoever writes.
    Stream,
}

#[derive(Debug, Clone, Copy)]
enum Writes {
    Qemu,
    Ours,
}

impl Link {
    fn base() -> impl Strategy<Value = Self> {
        let maker = prop_oneof![
            2 => Made::any().prop_map(Maker::Qemu),
            2 => Ours::any().prop_map(Maker::Ours),
            1 => Just(Maker::Stream),
        ];
        (maker, capacity(), changes(0..8), writes()).prop_map(|(maker, capacity, changes, writes)| Self {
            maker,
            growth: capacity / 512,
            changes,
            writes,
        })
    }

    fn child() -> impl Strategy<Value = Self> {
        let maker = prop_oneof![Made::any_child().prop_map(Maker::Qemu), Ours::any_child().prop_map(Maker::Ours)];
        let growth = prop_oneof![2 => Just(0), 1 => 1_u64..3000];
        (maker, growth, changes(0..6), writes()).prop_map(|(maker, growth, changes, writes)| Self {
            maker,
            growth,
            changes,
            writes,
        })
    }

    /// Makes it over `parent`, writes to it, and does the same to `content`.
    fn make(&self, qemu: &Qemu, name: &str, parent: Option<&str>, content: &mut Vec<u8>) {
        let capacity = content.len() as u64 + self.growth * 512;
        match (&self.maker, parent) {
            (Maker::Qemu(made), None) => qemu.create(name, capacity, &made.options()),
            (Maker::Qemu(made), Some(parent)) => qemu.create_child(name, parent, capacity, &made.options()),
            (Maker::Ours(made), None) => made.create(qemu, name, capacity),
            (Maker::Ours(made), Some(parent)) => made.create_child(qemu, name, parent, capacity),
            (Maker::Stream, _) => {
                content.resize(capacity as usize, 0);
                apply(&self.changes, content);
                return match self.writes {
                    Writes::Qemu => qemu.convert(content, name, "subformat=streamOptimized"),
                    Writes::Ours => ours::export(qemu, name, content, 1),
                };
            }
        }
        content.resize(capacity as usize, 0);
        match self.writes {
            Writes::Qemu => qemu.change(name, capacity, &self.changes),
            Writes::Ours => ours::write(qemu, name, &self.changes),
        }
        apply(&self.changes, content);
    }

    fn is_flat(&self) -> bool {
        match &self.maker {
            Maker::Qemu(made) => made.is_flat(),
            Maker::Ours(made) => !made.is_sparse(),
            Maker::Stream => false,
        }
    }

    fn has_zeroed_grains(&self) -> bool {
        match &self.maker {
            Maker::Qemu(made) => made.has_zeroed_grains(),
            Maker::Ours(made) => made.has_zeroed_grains(),
            Maker::Stream => false,
        }
    }
}

fn writes() -> impl Strategy<Value = Writes> {
    prop_oneof![Just(Writes::Qemu), Just(Writes::Ours)]
}

proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn links_are_read_as_one_whoever_made_and_wrote_them(
        base in Link::base(),
        children in prop::collection::vec(Link::child(), 1..5),
    ) {
        let Some(qemu) = Qemu::new() else { return Ok(()) };
        let (mut content, mut names) = (Vec::new(), Vec::<String>::new());
        let links = || std::iter::once(&base).chain(&children);
        for (number, link) in links().enumerate() {
            let name = format!("l{number}.vmdk");
            link.make(&qemu, &name, names.last().map(String::as_str), &mut content);
            names.push(name);
        }
        let top = names.last().unwrap();
        let disk = Disk::open(qemu.dir().join(top), &OpenOptions::new()).unwrap();
        prop_assert_eq!(disk.links().len(), names.len());
        assert_is(&disk, &content);
        assert_sound(qemu.dir(), top);
        qemu.assert_is("vmdk", top, &content);
        qemu.check(top);
        if !base.is_flat() {
            qemu.assert_maps(top, &disk);
        }
        // libvmdk reads no zeroed grains, and nothing where the parent is shorter.
        if !links().any(Link::has_zeroed_grains) && children.iter().all(|child| child.growth == 0) {
            let names: Vec<_> = names.iter().rev().map(String::as_str).collect();
            libvmdk::assert_is(qemu.dir(), &names, &content);
        }

        let flat = CreateSpec::new(disk.capacity(), CreateKind::MonolithicSparse);
        convert(&disk, qemu.dir().join("one.vmdk"), &flat, &CopyOptions::new()).unwrap().close().unwrap();
        qemu.assert_is("vmdk", "one.vmdk", &content);
    }
}
