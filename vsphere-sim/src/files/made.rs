//! Files that the server makes of its VMs: configuration, disk descriptors, extents.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use vmdk::descriptor::{ExtentLine, ExtentType, NewDescriptor};
use vmdk::{Cid, CreateType};

use super::delta::{Delta, DeltaFormat};
use crate::storage::{DiskStore, NodeId};
use crate::vm::{Power, Vm};
use crate::world::{FileOptions, State, World};

/// A file of a VM.
pub(crate) struct Made {
    content: Content,
    modified: SystemTime,
    capacity: Option<u64>,
    /// Whether the VM runs, which keeps its extents open.
    pub(crate) running: bool,
    /// Whether it is of a snapshot: descriptor or extent.
    pub(crate) is_delta: bool,
}

/// What it holds.
pub(crate) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of a disk's lowest layer.
    Flat(Arc<DiskStore>, NodeId),
    /// A layer above it.
    Delta(Arc<DiskStore>, NodeId, DeltaFormat),
}

impl Made {
    pub(crate) fn size(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Flat(store, node) => store.capacity_of(*node).unwrap_or(0),
            Content::Delta(store, node, format) => Delta::new(store.clone(), *node, *format).len(),
        }
    }

    pub(crate) fn content(self) -> Content {
        self.content
    }

    pub(crate) fn is_extent(&self) -> bool {
        !matches!(self.content, Content::Bytes(_))
    }

    pub(crate) fn modified(&self) -> SystemTime {
        self.modified
    }

    /// The disk's size, for a descriptor.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.capacity
    }
}

/// Every file of every VM, with its path in the datastore.
pub(crate) fn all(world: &World, state: &State) -> Vec<(String, Made)> {
    let mut files = Vec::new();
    let options = &world.settings.files;
    // A VM that was unregistered has left its files behind.
    for vm in state.vms.values().chain(state.shelved.values()) {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(vm.modified.unix_seconds().max(0).cast_unsigned());
        let running = vm.power != Power::Off;
        let prefix = format!("[{}] ", world.datastore.name());
        let within = |path: &str| path.strip_prefix(&prefix).unwrap_or(path).to_owned();
        let mut add = |path: &str, content, capacity, is_delta| {
            files.push((within(path), Made { content, modified, capacity, running, is_delta }));
        };
        let vmx = crate::vm::config::files(world, vm).vm_path_name.unwrap_or_default();
        add(&vmx, Content::Bytes(vmx_text(vm).into_bytes()), None, false);
        if let (Some(content), Some(name)) = (&vm.settings.nvram, vm.settings.extra.get("nvram")) {
            add(&format!("{prefix}{}/{name}", vm.folder), Content::Bytes(content.to_vec()), None, false);
        }
        for snapshot in vm.snapshots.values() {
            if let Some((name, bytes)) = &snapshot.manifest {
                add(&format!("{prefix}{}/{name}", vm.folder), Content::Bytes(bytes.clone()), None, false);
            }
        }
        for store in vm.all_stores() {
            for (node, path, _) in store.files() {
                let stem = path.trim_end_matches(".vmdk");
                let parent = store.paths(node).get(1).cloned();
                let (suffix, content) = match parent {
                    None => ("-flat.vmdk", Content::Flat(store.clone(), node)),
                    Some(_) => (options.deltas.suffix(), Content::Delta(store.clone(), node, options.deltas)),
                };
                let is_delta = parent.is_some();
                let extent = format!("{stem}{suffix}");
                let text = descriptor(options, &store, node, &extent, parent.as_deref());
                add(&path, Content::Bytes(text), store.capacity_of(node).ok(), is_delta);
                add(&extent, content, None, is_delta);
            }
        }
    }
    files
}

/// A descriptor as ESXi writes it. Content ids follow from the disk and the layer, so that chains fit together.
fn descriptor(options: &FileOptions, store: &DiskStore, node: NodeId, extent: &str, parent: Option<&str>) -> Vec<u8> {
    let name = |path: &str| path.rsplit(['/', ' ']).next().unwrap_or_default().to_owned();
    let sectors = store.capacity_of(node).unwrap_or(0) / 512;
    let id = |path: &str| {
        let digits: String = crate::ids::uuid_of(path).chars().filter(char::is_ascii_hexdigit).take(7).collect();
        Cid(u32::from_str_radix(&digits, 16).unwrap_or(1))
    };
    let own = store.paths(node).into_iter().next().unwrap_or_default();
    let (kind, line) = match (parent, options.deltas) {
        _ if options.object_storage => {
            let object = format!("vsan://{}", crate::ids::uuid_of(extent));
            (CreateType::Vmfs, ExtentLine::new(ExtentType::Vmfs, sectors, object))
        }
        (None, _) => (CreateType::Vmfs, ExtentLine::new(ExtentType::Vmfs, sectors, name(extent))),
        (Some(_), DeltaFormat::SeSparse) => {
            (CreateType::SeSparse, ExtentLine::new(ExtentType::SeSparse, sectors, name(extent)))
        }
        (Some(_), DeltaFormat::Cowd) => {
            (CreateType::VmfsSparse, ExtentLine::new(ExtentType::VmfsSparse, sectors, name(extent)))
        }
    };
    let mut new = NewDescriptor::new(kind, vec![line]).cid(id(&own)).thin(parent.is_none());
    if let Some(parent) = parent {
        new = new.parent(id(parent), name(parent));
    }
    let built = new.build().and_then(|mut descriptor| {
        if let Some(uuid) = store.metadata("uuid").filter(|_| parent.is_none()) {
            descriptor.ddb_set("uuid", &uuid)?;
        }
        Ok(descriptor.to_bytes())
    });
    built.unwrap_or_default()
}

/// The configuration file.
fn vmx_text(vm: &Vm) -> String {
    let settings = &vm.settings;
    let quoted = |text: &str| text.replace('|', "|7C").replace('"', "|22").replace('\n', "|0A");
    let mut lines = vec![
        (".encoding".to_owned(), "UTF-8".to_owned()),
        ("config.version".to_owned(), "8".to_owned()),
        ("virtualHW.version".to_owned(), vm.hardware_version.to_string()),
        ("displayName".to_owned(), settings.name.clone()),
        ("annotation".to_owned(), settings.annotation.clone()),
        ("guestOS".to_owned(), settings.guest_id.clone()),
        ("memSize".to_owned(), settings.memory_mb.to_string()),
        ("numvcpus".to_owned(), settings.cpus.to_string()),
        ("uuid.bios".to_owned(), vm.bios_uuid.clone()),
        ("vc.uuid".to_owned(), vm.instance_uuid.clone()),
        ("ctkEnabled".to_owned(), settings.tracking.to_string().to_uppercase()),
    ];
    for disk in settings.disks.values() {
        let path = disk.store.paths(disk.store.current()).into_iter().next().unwrap_or_default();
        let bus = match disk.controller {
            ide @ 200..=201 => format!("ide{}", ide - 200),
            scsi @ 1000..=1003 => format!("scsi{}", scsi - 1000),
            sata @ 15000..=15003 => format!("sata{}", sata - 15000),
            other => format!("nvme{}", other - 31000),
        };
        lines.push((format!("{bus}:{}.fileName", disk.unit), path.rsplit('/').next().unwrap_or_default().to_owned()));
    }
    lines.extend(settings.extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    lines.iter().map(|(key, value)| format!("{key} = \"{}\"\n", quoted(value))).collect()
}
