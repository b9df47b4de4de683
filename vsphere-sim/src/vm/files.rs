//! `layoutEx`: the files of a VM, chain by chain.

use std::collections::BTreeMap;

use vsphere_vim_types::{
    DateTime, MoRef, VirtualMachineFileLayoutEx, VirtualMachineFileLayoutExDiskLayout,
    VirtualMachineFileLayoutExDiskUnit, VirtualMachineFileLayoutExFileInfo, VirtualMachineFileLayoutExSnapshotLayout,
};

use crate::storage::NodeId;
use crate::world::World;

use super::{Vm, VmDisk};

/// `layoutEx`
pub(crate) fn layout(world: &World, vm: &Vm) -> VirtualMachineFileLayoutEx {
    let mut files = Files::default();
    let vmx = super::config::files(world, vm).vm_path_name.unwrap_or_default();
    files.add(&vmx, "config", 2048);
    for store in vm.all_stores() {
        for (_, path, bytes) in store.files() {
            files.add(&path, "diskDescriptor", 512);
            let suffix = if path == store.paths(store.current()).last().map_or("", String::as_str) {
                "-flat.vmdk"
            } else {
                "-sesparse.vmdk"
            };
            files.add(&format!("{}{suffix}", path.trim_end_matches(".vmdk")), "diskExtent", bytes);
        }
    }
    let snapshots = vm.snapshots.values().map(|snapshot| VirtualMachineFileLayoutExSnapshotLayout {
        key: MoRef::new(&snapshot.id),
        data_key: files.add(
            &format!("[{}] {}/{}-Snapshot{}.vmsn", world.datastore.name(), vm.folder, vm.folder, snapshot.number),
            "snapshotData",
            28_000,
        ),
        memory_key: -1,
        disk: snapshot
            .points
            .iter()
            .filter_map(|(key, point)| Some(files.disk(snapshot.settings.disks.get(key)?, point.node())))
            .collect(),
        ..Default::default()
    });
    let snapshot = snapshots.collect();
    let disk = vm.settings.disks.values().map(|disk| files.disk(disk, disk.store.current())).collect();
    VirtualMachineFileLayoutEx { file: files.list, disk, snapshot, timestamp: DateTime::now(), ..Default::default() }
}

#[derive(Default)]
struct Files {
    list: Vec<VirtualMachineFileLayoutExFileInfo>,
    keys: BTreeMap<String, i32>,
}

impl Files {
    fn add(&mut self, name: &str, kind: &str, size: u64) -> i32 {
        let key = self.list.len() as i32;
        self.keys.insert(name.into(), key);
        self.list.push(VirtualMachineFileLayoutExFileInfo {
            key,
            name: name.into(),
            type_: kind.into(),
            size: size as i64,
            unique_size: Some(size as i64),
            accessible: Some(true),
            ..Default::default()
        });
        key
    }

    fn disk(&self, disk: &VmDisk, node: NodeId) -> VirtualMachineFileLayoutExDiskLayout {
        let paths = disk.store.paths(node);
        // From the base upward, descriptor and extent.
        let chain = paths.iter().rev().map(|path| {
            let extent = |suffix: &str| self.keys.get(&format!("{}{suffix}", path.trim_end_matches(".vmdk"))).copied();
            let keys = [self.keys.get(path).copied(), extent("-flat.vmdk").or_else(|| extent("-sesparse.vmdk"))];
            VirtualMachineFileLayoutExDiskUnit { file_key: keys.into_iter().flatten().collect(), ..Default::default() }
        });
        VirtualMachineFileLayoutExDiskLayout { key: disk.key, chain: chain.collect(), ..Default::default() }
    }
}
