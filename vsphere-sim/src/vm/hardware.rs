//! The device list of a VM or of a snapshot.

use std::collections::BTreeMap;

use vsphere_vim_types::{
    Description, MoRef, ParaVirtualSCSIController, Poly, SharesInfo, SharesLevel, VirtualController, VirtualDevice,
    VirtualDeviceBackingInfo, VirtualDeviceConnectInfo, VirtualDeviceDeviceBackingInfo, VirtualDeviceFileBackingInfo,
    VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualDiskRawDiskMappingVer1BackingInfo, VirtualEthernetCard,
    VirtualEthernetCardNetworkBackingInfo, VirtualHardware, VirtualIDEController, VirtualKeyboard,
    VirtualLsiLogicController, VirtualMachineVMCIDevice, VirtualMachineVideoCard, VirtualPCIController,
    VirtualPS2Controller, VirtualPointingDevice, VirtualSCSIController, VirtualSCSISharing, VirtualSIOController,
    VirtualVmxnet3,
};

use crate::personality::Fixed;
use crate::world::World;

use super::devices::VIDEO_KEY;
use super::{DiskShape, Settings, Snapshot, VmDisk};

/// The key of the first SCSI controller.
pub(crate) const SCSI_KEY: i32 = 1000;
/// The unit number that the controller itself takes on its bus.
pub(super) const SCSI_OWN_UNIT: i32 = 7;

/// Hardware of the running VM, or with `snapshot` of that snapshot.
pub(crate) fn hardware(world: &World, settings: &Settings, snapshot: Option<&Snapshot>) -> VirtualHardware {
    VirtualHardware {
        num_cpu: settings.cpus,
        num_cores_per_socket: Some(1),
        auto_cores_per_socket: Some(true),
        memory_mb: settings.memory_mb,
        virtual_ich7_m_present: Some(false),
        virtual_smc_present: Some(false),
        device: devices(world, settings, snapshot),
        motherboard_layout: Some("i440bxHostBridge".into()),
        simultaneous_threads: Some(1),
        ..Default::default()
    }
}

fn devices(world: &World, settings: &Settings, snapshot: Option<&Snapshot>) -> Vec<Poly<VirtualDevice>> {
    let mut pci = vec![VIDEO_KEY, 12000];
    pci.extend(super::devices::children(settings, &[], 100).into_iter().filter(|key| *key != VIDEO_KEY));
    let mut devices: Vec<Poly<VirtualDevice>> = vec![
        Poly::new(VirtualIDEController { base: controller(200, "IDE 0", 0, None, vec![]) }),
        Poly::new(VirtualIDEController { base: controller(201, "IDE 1", 1, None, vec![]) }),
        Poly::new(VirtualPS2Controller { base: controller(300, "PS2 controller 0", 0, None, vec![600, 700]) }),
        Poly::new(VirtualPCIController { base: controller(100, "PCI controller 0", 0, None, pci) }),
        Poly::new(VirtualSIOController { base: controller(400, "SIO controller 0", 0, None, vec![]) }),
        Poly::new(VirtualKeyboard { base: device(600, "Keyboard", "Keyboard", Some(300), Some(0)) }),
        Poly::new(VirtualPointingDevice {
            base: VirtualDevice {
                backing: Some(Poly::new(VirtualDeviceDeviceBackingInfo {
                    device_name: String::new(),
                    use_auto_detect: Some(false),
                    ..Default::default()
                })),
                ..device(700, "Pointing device", "Pointing device; Device", Some(300), Some(1))
            },
        }),
        video_card(settings),
        Poly::new(VirtualMachineVMCIDevice {
            base: device(
                12000,
                "VMCI device",
                "Device on the virtual machine PCI bus that provides support for the virtual machine communication interface",
                Some(100),
                Some(17),
            ),
            ..Default::default()
        }),
    ];
    let disks: Vec<&VmDisk> = settings.disks.values().collect();
    devices.extend(settings.devices.values().filter(|device| device.key != VIDEO_KEY).cloned());
    for device in &mut devices {
        let key = device.key;
        if let Some(controller) = device.downcast_mut::<VirtualController>()
            && controller.device.is_empty()
        {
            controller.device = super::devices::children(settings, &disks, key);
        }
    }
    devices.extend(disks.iter().map(|disk| virtual_disk(world, disk, snapshot)));
    devices
}

/// The devices of a VM whose maker says nothing about them: a SCSI controller and a network adapter.
pub(crate) fn usual_devices(world: &World, disks: usize) -> BTreeMap<i32, Poly<VirtualDevice>> {
    let usual = [scsi_controller(disks), network_card(world)];
    usual.into_iter().map(|device| (device.key, device)).collect()
}

fn video_card(settings: &Settings) -> Poly<VirtualDevice> {
    let usual = device(VIDEO_KEY, "Video card ", "Video card", Some(100), Some(0));
    match settings.devices.get(&VIDEO_KEY) {
        Some(card) => {
            let mut card = card.clone();
            card.device_info = usual.device_info;
            card
        }
        None => Poly::new(VirtualMachineVideoCard {
            video_ram_size_in_kb: Some(4096),
            num_displays: Some(1),
            base: usual,
            ..Default::default()
        }),
    }
}

fn device(key: i32, label: &str, summary: &str, controller: Option<i32>, unit: Option<i32>) -> VirtualDevice {
    let description = Description { label: label.into(), summary: summary.into(), ..Default::default() };
    VirtualDevice {
        key,
        device_info: Some(Poly::new(description)),
        controller_key: controller,
        unit_number: unit,
        ..Default::default()
    }
}

fn controller(key: i32, label: &str, bus: i32, parent: Option<(i32, i32)>, children: Vec<i32>) -> VirtualController {
    let base = device(key, label, label, parent.map(|(controller, _)| controller), parent.map(|(_, unit)| unit));
    VirtualController { bus_number: bus, device: children, base }
}

/// The first SCSI controller; a VM with many disks needs the paravirtual one.
pub(super) fn scsi_controller(disks: usize) -> Poly<VirtualDevice> {
    let scsi = VirtualSCSIController {
        hot_add_remove: Some(true),
        shared_bus: VirtualSCSISharing::NoSharing,
        scsi_ctlr_unit_number: Some(SCSI_OWN_UNIT),
        base: controller(SCSI_KEY, "SCSI controller 0", 0, Some((100, 3)), vec![]),
    };
    // Sixteen units are what LSI Logic has.
    if disks > 15 {
        Poly::new(ParaVirtualSCSIController { base: scsi })
    } else {
        Poly::new(VirtualLsiLogicController { base: scsi })
    }
}

fn network_card(world: &World) -> Poly<VirtualDevice> {
    let network = world.fixed(Fixed::Network);
    let backing = VirtualEthernetCardNetworkBackingInfo {
        network: Some(network.cast()),
        base: VirtualDeviceDeviceBackingInfo {
            device_name: world.personality().name(Fixed::Network).into(),
            ..Default::default()
        },
        ..Default::default()
    };
    let connectable = VirtualDeviceConnectInfo {
        start_connected: true,
        allow_guest_control: true,
        connected: true,
        ..Default::default()
    };
    let card = VirtualEthernetCard {
        address_type: Some("assigned".into()),
        mac_address: Some("00:50:56:00:00:01".into()),
        wake_on_lan_enabled: Some(true),
        base: VirtualDevice {
            backing: Some(Poly::new(backing)),
            connectable: Some(connectable),
            ..device(4000, "Network adapter 1", "VM Network", Some(100), Some(7))
        },
        ..Default::default()
    };
    let mut device = VirtualVmxnet3::default();
    *vmxnet_card(&mut device) = card;
    Poly::new(device)
}

/// The network card part of an adapter, some levels down.
fn vmxnet_card(device: &mut VirtualVmxnet3) -> &mut VirtualEthernetCard {
    &mut device.base.base
}

fn virtual_disk(world: &World, disk: &VmDisk, snapshot: Option<&Snapshot>) -> Poly<VirtualDevice> {
    let point = snapshot.and_then(|snapshot| snapshot.points.get(&disk.key));
    let node = point.map_or_else(|| disk.store.current(), |point| point.node());
    let change_id = match (snapshot, point) {
        (Some(_), point) => point.and_then(|point| point.change_id()),
        (None, _) => disk.store.change_id(),
    };
    let capacity = disk.store.capacity_of(node).unwrap_or_else(|_| disk.store.capacity());
    let backing = backing_chain(world, disk, &disk.store.paths(node), change_id);
    let summary = format!("{} KB", grouped(capacity / 1024));
    Poly::new(VirtualDisk {
        // Bytes that do not fill a KiB are only in capacityInBytes, as on the real thing.
        capacity_in_kb: (capacity / 1024) as i64,
        capacity_in_bytes: Some(capacity as i64),
        shares: Some(SharesInfo { shares: 1000, level: SharesLevel::Normal, ..Default::default() }),
        disk_object_id: Some(format!("1-{}", disk.key)),
        native_unmanaged_linked_clone: Some(false),
        guest_read_only: Some(false),
        base: VirtualDevice {
            backing: backing.map(|backing| shaped(*backing, disk)),
            ..device(disk.key, &disk.label, &summary, Some(disk.controller), Some(disk.unit))
        },
        ..Default::default()
    })
}

/// The backing as its kind has it.
fn shaped(flat: VirtualDiskFlatVer2BackingInfo, disk: &VmDisk) -> Poly<VirtualDeviceBackingInfo> {
    match disk.backing {
        DiskShape::Flat => Poly::new(flat),
        DiskShape::MultiWriter => {
            Poly::new(VirtualDiskFlatVer2BackingInfo { sharing: Some("sharingMultiWriter".into()), ..flat })
        }
        DiskShape::RawDeviceMapping(mode) => Poly::new(VirtualDiskRawDiskMappingVer1BackingInfo {
            lun_uuid: Some(format!("020001{}", flat.uuid.clone().unwrap_or_default().replace('-', ""))),
            device_name: Some(format!("vml.{:08}", disk.key)),
            compatibility_mode: Some(mode.into()),
            disk_mode: Some(flat.disk_mode),
            uuid: flat.uuid,
            content_id: flat.content_id,
            change_id: flat.change_id,
            base: flat.base,
            ..Default::default()
        }),
    }
}

fn backing_chain(
    world: &World,
    disk: &VmDisk,
    paths: &[String],
    change_id: Option<String>,
) -> Option<Box<VirtualDiskFlatVer2BackingInfo>> {
    let mut below = None;
    for (depth, path) in paths.iter().enumerate().rev() {
        let datastore = MoRef::new(world.fixed(Fixed::Datastore).value());
        below = Some(Box::new(VirtualDiskFlatVer2BackingInfo {
            disk_mode: disk.mode.as_str().into(),
            split: Some(false),
            write_through: Some(false),
            thin_provisioned: Some(disk.thin),
            uuid: Some(disk.store.uuid().into()),
            content_id: Some(format!("{:032x}", paths.len() - depth)),
            // Only the file in question has a change id; its parents' ids are not told.
            change_id: change_id.clone().filter(|_| depth == 0),
            parent: below,
            digest_enabled: Some(false),
            sharing: Some("sharingNone".into()),
            base: VirtualDeviceFileBackingInfo {
                file_name: path.clone(),
                datastore: Some(datastore),
                ..Default::default()
            },
            ..Default::default()
        }));
    }
    below
}

/// `1,048,576`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
