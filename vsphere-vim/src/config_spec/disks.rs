//! Disks: the same kind and size, a file of their own, nothing of the old content's history.

use vsphere_vim_types::{
    Poly, VirtualDevice, VirtualDeviceBackingInfo, VirtualDeviceConfigSpecFileOperation, VirtualDeviceFileBackingInfo,
    VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualDiskLocalPMemBackingInfo,
    VirtualDiskRawDiskMappingVer1BackingInfo, VirtualDiskRawDiskVer2BackingInfo,
};

use super::{
    note::Notes,
    options::{DiskTarget, Options, Provisioning, RawMappings},
    place::{DiskPlace, Places},
};
use crate::device::{BackingKind, DeviceKey, DiskBacking, strip_delta_suffix};

/// What is done with the disk's file.
type FileOperation = Option<VirtualDeviceConfigSpecFileOperation>;

/// Describes a disk anew; `None` when it is left out.
pub(super) fn convert(
    device: &mut Poly<VirtualDevice>,
    key: DeviceKey,
    options: &Options,
    places: &mut Places<'_>,
    notes: &mut Notes,
) -> Option<FileOperation> {
    let target = options.disks.get(&key);
    if target == Some(&DiskTarget::LeaveOut) {
        notes.info("VirtualDisk", "left out, as was asked for");
        return None;
    }
    let none = Poly::default();
    let old = DiskBacking::of(device.backing.as_ref().unwrap_or(&none));
    let raw = matches!(old.kind, BackingKind::RawDiskMapping | BackingKind::RawDisk | BackingKind::PartitionedRawDisk);
    if raw && options.raw_mappings == RawMappings::LeaveOut {
        notes.warn("VirtualDisk", "a disk on a raw device was left out");
        return None;
    }
    forget_history(device.downcast_mut::<VirtualDisk>()?, notes);

    let base_name = old.parents.last().or(old.file_name.as_ref()).map(|name| strip_delta_suffix(name).into_owned());
    let (place, operation) = match target {
        Some(DiskTarget::Existing(path)) => (DiskPlace { path: path.clone(), datastore: None }, None),
        Some(DiskTarget::NewFile(path)) => (DiskPlace { path: path.clone(), datastore: None }, CREATE),
        Some(DiskTarget::On(datastore)) => {
            (places.new_disk(base_name.as_deref().unwrap_or_default(), Some(datastore), notes), CREATE)
        }
        _ => (places.new_disk(base_name.as_deref().unwrap_or_default(), None, notes), CREATE),
    };
    device.backing = Some(backing(device.backing.take(), &old, raw, &place, options, notes));
    Some(operation)
}

/// What belongs to the old disk object and not to its description.
fn forget_history(disk: &mut VirtualDisk, notes: &mut Notes) {
    disk.disk_object_id = None;
    disk.native_unmanaged_linked_clone = None;
    disk.disk_chain_broken_issue = None;
    disk.v_disk_version = None;
    if disk.v_disk_id.take().is_some() {
        notes.warn("vDiskId", "the old disk was a First Class Disk; the new one is not, until it is registered");
    }
    if !disk.iofilter.is_empty() || !disk.independent_filters.is_empty() {
        disk.iofilter.clear();
        disk.independent_filters.clear();
        notes.warn("iofilter", "I/O filters come with a storage policy, which the configuration does not hold");
    }
    if disk.vflash_cache_config_info.take().is_some() {
        notes.info("vFlashCacheConfigInfo", "left out: hosts since 7.0 have no flash read cache");
    }
    if disk.capacity_in_kb <= 0
        && let Some(bytes) = disk.capacity_in_bytes.filter(|bytes| *bytes > 0)
    {
        // Old servers read this field only.
        disk.capacity_in_kb = (bytes - 1) / 1024 + 1;
    }
}

/// A backing of the same kind where the server can make one, else a flat one.
fn backing(
    backing: Option<Poly<VirtualDeviceBackingInfo>>,
    old: &DiskBacking,
    raw: bool,
    place: &DiskPlace,
    options: &Options,
    notes: &mut Notes,
) -> Poly<VirtualDeviceBackingInfo> {
    if let BackingKind::Other(name) = &old.kind
        && let Some(unknown) = backing
    {
        notes.warn("backing", format!("{name} is unknown to this version and was described as it was"));
        return unknown;
    }
    if raw && options.raw_mappings == RawMappings::Keep {
        notes.warn("backing", "the disk is mapped to the old device again: nothing else may use it");
        return raw_backing(backing.unwrap_or_default(), place);
    }
    match old.kind {
        BackingKind::FlatVer2 => {}
        BackingKind::LocalPMem => {
            if let Some(mut kept) = backing.clone()
                && let Some(memory) = kept.downcast_mut::<VirtualDiskLocalPMemBackingInfo>()
            {
                memory.uuid = None;
                memory.volume_uuid = None;
                memory.content_id = None;
                put(&mut memory.base, place);
                return kept;
            }
        }
        _ if raw => {
            let physical = old.compatibility.as_deref() == Some("physicalMode");
            let what = if physical { ", and its content was in no snapshot" } else { "" };
            notes.warn("backing", format!("the raw device becomes a virtual disk of the same size{what}"));
        }
        // Delta formats and formats of hosted products: a host makes new disks flat.
        _ => notes.info("backing", "becomes a flat disk, the kind that hosts create"),
    }
    if old.encrypted {
        notes.warn("backing.keyId", "the disk was encrypted; the new one is not");
    }
    flat(backing, old, place, options)
}

fn flat(
    backing: Option<Poly<VirtualDeviceBackingInfo>>,
    old: &DiskBacking,
    place: &DiskPlace,
    options: &Options,
) -> Poly<VirtualDeviceBackingInfo> {
    let own = backing.as_ref().and_then(|backing| backing.downcast_ref::<VirtualDiskFlatVer2BackingInfo>());
    let mut flat = own.cloned().unwrap_or_else(|| VirtualDiskFlatVer2BackingInfo {
        disk_mode: old.mode.as_ref().map_or_else(|| "persistent".to_owned(), ToString::to_string),
        thin_provisioned: old.thin,
        sharing: old.sharing.clone(),
        ..Default::default()
    });
    // Above a snapshot there is a delta; how the disk itself is allocated stands at the end of the chain.
    if let Some(base) = std::iter::successors(own, |backing| backing.parent.as_deref()).last() {
        flat.thin_provisioned = base.thin_provisioned;
        flat.eagerly_scrub = base.eagerly_scrub;
    }
    flat.uuid = None;
    flat.content_id = None;
    flat.change_id = None;
    flat.parent = None;
    flat.delta_disk_format = None;
    flat.delta_disk_format_variant = None;
    flat.delta_grain_size = None;
    flat.key_id = None;
    match options.provisioning {
        Provisioning::Keep => {}
        Provisioning::Thin => (flat.thin_provisioned, flat.eagerly_scrub) = (Some(true), None),
        Provisioning::Thick => (flat.thin_provisioned, flat.eagerly_scrub) = (Some(false), Some(false)),
        Provisioning::EagerZeroed => (flat.thin_provisioned, flat.eagerly_scrub) = (Some(false), Some(true)),
    }
    put(&mut flat.base, place);
    Poly::new(flat)
}

/// The same raw device, without what names the old mapping.
fn raw_backing(mut backing: Poly<VirtualDeviceBackingInfo>, place: &DiskPlace) -> Poly<VirtualDeviceBackingInfo> {
    if let Some(mapping) = backing.downcast_mut::<VirtualDiskRawDiskMappingVer1BackingInfo>() {
        mapping.uuid = None;
        mapping.content_id = None;
        mapping.change_id = None;
        mapping.parent = None;
        mapping.delta_disk_format = None;
        mapping.delta_grain_size = None;
        put(&mut mapping.base, place);
    } else if let Some(disk) = backing.downcast_mut::<VirtualDiskRawDiskVer2BackingInfo>() {
        disk.uuid = None;
        disk.change_id = None;
        disk.descriptor_file_name.clone_from(&place.path);
    }
    backing
}

fn put(file: &mut VirtualDeviceFileBackingInfo, place: &DiskPlace) {
    file.file_name.clone_from(&place.path);
    file.datastore = place.datastore.clone();
    file.backing_object_id = None;
}

const CREATE: FileOperation = Some(VirtualDeviceConfigSpecFileOperation::Create);
