//! Disks that we make, in all the ways that there are.

use std::{fs, sync::Arc};

use proptest::{prelude::*, sample::select};
use vmdk::{
    AdapterType, ChildSpec, CreateKind, CreateSpec, Disk, Handle, MemSource, OpenOptions, create, create_child,
    stream::{self, StreamSpec},
};

use super::{changes::Change, qemu::Qemu};

/// How a disk of ours is made.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    pub(super) kind: CreateKind,
    adapter: AdapterType,
    grain_bytes: u64,
    zeroed_grains: bool,
}

impl Ours {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let kinds = [
            CreateKind::MonolithicSparse,
            CreateKind::TwoGbMaxExtentSparse,
            CreateKind::Flat,
            CreateKind::Vmfs,
            CreateKind::TwoGbMaxExtentFlat,
        ];
        Self::of(&kinds)
    }

    /// One that can have a parent.
    pub(super) fn any_child() -> impl Strategy<Value = Self> {
        Self::of(&[CreateKind::MonolithicSparse, CreateKind::TwoGbMaxExtentSparse])
    }

    fn of(kinds: &[CreateKind]) -> impl Strategy<Value = Self> + use<> {
        let adapters = [AdapterType::Ide, AdapterType::LsiLogic, AdapterType::BusLogic];
        let grain_bytes = prop_oneof![3 => Just(65536), 1 => select(&[8192, 262_144][..])];
        (select(kinds.to_vec()), select(adapters.to_vec()), grain_bytes, any::<bool>())
            .prop_map(|(kind, adapter, grain_bytes, zeroed_grains)| Self { kind, adapter, grain_bytes, zeroed_grains })
    }

    pub(super) fn create(&self, qemu: &Qemu, name: &str, capacity: u64) {
        let spec = CreateSpec::new(capacity, self.kind).adapter_type(self.adapter.clone());
        let spec = spec.grain_bytes(self.grain_bytes).zeroed_grains(self.zeroed_grains);
        create(qemu.dir().join(name), &spec).unwrap().close().unwrap();
    }

    pub(super) fn create_child(&self, qemu: &Qemu, name: &str, parent: &str, capacity: u64) {
        let spec = ChildSpec::new().capacity(capacity).kind(self.kind);
        let spec = spec.grain_bytes(self.grain_bytes).zeroed_grains(self.zeroed_grains);
        create_child(qemu.dir().join(parent), qemu.dir().join(name), &spec).unwrap().close().unwrap();
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.kind.is_sparse()
    }

    /// Whether there may be grains that are zero without being stored.
    pub(super) fn has_zeroed_grains(&self) -> bool {
        self.zeroed_grains && self.is_sparse()
    }
}

/// Makes the changes through a newly opened disk and closes it.
pub(super) fn write(qemu: &Qemu, name: &str, changes: &[Change]) {
    let disk = Disk::open(qemu.dir().join(name), &OpenOptions::new().writable()).unwrap();
    changes.iter().for_each(|change| change.write(&disk));
    disk.close().unwrap();
}

/// Makes a `streamOptimized` disk of the content, with this level of deflate.
pub(super) fn export(qemu: &Qemu, name: &str, content: &[u8], level: u32) {
    let image = Disk::from_source("memory", Handle::ReadOnly(Arc::new(MemSource::new(content.to_vec())))).unwrap();
    // libvmdk looks for the data in the file that the extent line names, even if it is the same.
    let spec = StreamSpec::new(content.len() as u64).level(level).name(name);
    fs::write(qemu.dir().join(name), stream::export(&image, Vec::new(), &spec).unwrap()).unwrap();
}
