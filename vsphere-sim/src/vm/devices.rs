//! Devices other than disks: controllers, adapters, drives. What a specification adds is kept as it came, under a key
//! of the server's own, and shown again.

use std::collections::BTreeMap;

use vsphere_vim_types::{
    Description, Poly, VirtualController, VirtualDevice, VirtualDeviceConnectInfo, VirtualEthernetCard,
    VirtualEthernetCardNetworkBackingInfo, VirtualSCSIController,
};

use crate::Fault;
use crate::personality::Fixed;
use crate::world::World;

use super::hardware::SCSI_OWN_UNIT;
use super::{Settings, VmDisk};

/// Devices that every VM has already: one more of them is refused.
const DEFAULT: [&str; 7] = [
    "VirtualIDEController",
    "VirtualPS2Controller",
    "VirtualPCIController",
    "VirtualSIOController",
    "VirtualKeyboard",
    "VirtualMachineVMCIDevice",
    "VirtualPointingDevice",
];

/// Keys of the default controllers: IDE 0 and 1, PCI, PS2, SIO.
const DEFAULT_CONTROLLERS: [i32; 5] = [200, 201, 100, 300, 400];

/// Types of devices: what they are, the first key, how many keys there are for each bus, the label.
const FAMILIES: [(&str, i32, &str); 13] = [
    ("VirtualSCSIController", 1000, "SCSI controller"),
    ("VirtualSATAController", 15000, "SATA controller"),
    ("VirtualNVMEController", 31000, "NVME controller"),
    ("VirtualUSBXHCIController", 14000, "USB xHCI controller"),
    ("VirtualUSBController", 7000, "USB controller"),
    ("VirtualEthernetCard", 4000, "Network adapter"),
    ("VirtualCdrom", 3000, "CD/DVD drive"),
    ("VirtualFloppy", 8000, "Floppy drive"),
    ("VirtualSerialPort", 9000, "Serial port"),
    ("VirtualParallelPort", 10000, "Parallel port"),
    ("VirtualSoundCard", 5000, "Sound card"),
    ("VirtualTPM", 11000, "Virtual TPM"),
    ("VirtualPCIPassthrough", 13000, "PCI device"),
];

/// The key and the labels of the first device of all others.
const OTHER: (i32, &str) = (20000, "Device");

/// A device that a specification is about, and its place in it.
pub(super) struct Change<'a> {
    pub(super) device: &'a Poly<VirtualDevice>,
    pub(super) index: usize,
}

impl Change<'_> {
    /// `InvalidDeviceSpec` about one of the device's properties.
    pub(super) fn refuse(&self, property: &str, why: &str) -> Fault {
        self.fault("InvalidDeviceSpec", property, why)
    }

    /// Another fault of that family.
    pub(super) fn fault(&self, name: &str, property: &str, why: &str) -> Fault {
        Fault::new(name, &format!("Invalid configuration for device '{}'. {why}", self.index))
            .field("property", &format!("virtualDeviceSpec.{property}"))
            .field("deviceIndex", &self.index.to_string())
    }
}

/// Adds a device and returns its key. `keys` holds what earlier devices of the specification became.
pub(super) fn add(
    world: &World,
    settings: &mut Settings,
    change: &Change<'_>,
    keys: &mut BTreeMap<i32, i32>,
) -> Result<(), Fault> {
    let wanted = change.device;
    if DEFAULT.iter().any(|name| wanted.is_a(name)) {
        return Err(change.refuse("device", "The machine has this device already."));
    }
    let mut device = wanted.clone();
    if wanted.is_a("VirtualMachineVideoCard") {
        // There is one; a description of it sets it.
        device.key = VIDEO_KEY;
        device.controller_key = Some(DEFAULT_CONTROLLERS[2]);
        device.unit_number = Some(0);
        device.device_info = None;
        settings.devices.insert(VIDEO_KEY, device);
        keys.insert(wanted.key, VIDEO_KEY);
        return Ok(());
    }
    if let Some(controller) = wanted.downcast_ref::<VirtualController>() {
        check_bus(settings, change, controller)?;
    }
    let controller = controller_of(settings, change, keys)?;
    if let (Some(controller), Some(unit)) = (controller, wanted.unit_number)
        && taken(settings, controller, unit)
    {
        return Err(change.refuse("device.unitNumber", "The unit is taken."));
    }
    device.controller_key = controller.or(Some(DEFAULT_CONTROLLERS[2]));
    let (first, label) = family(wanted);
    device.key = free_key(settings, first, wanted);
    let number = settings.devices.values().filter(|other| family(other) == (first, label)).count();
    // Controllers are counted from 0, everything else from 1.
    let number = if wanted.downcast_ref::<VirtualController>().is_some() { number } else { number + 1 };
    let label = format!("{label} {number}");
    if device.downcast_ref::<VirtualEthernetCard>().is_some() {
        plug_in(world, settings, &mut device, change)?;
    }
    if let Some(scsi) = device.downcast_mut::<VirtualSCSIController>() {
        scsi.scsi_ctlr_unit_number = Some(SCSI_OWN_UNIT);
        scsi.hot_add_remove = Some(true);
    }
    let summary = device.type_name().to_owned();
    device.device_info = Some(Poly::new(Description { label, summary, ..Default::default() }));
    keys.insert(wanted.key, device.key);
    settings.devices.insert(device.key, device);
    Ok(())
}

/// Replaces a device by its changed self.
pub(super) fn edit(world: &World, settings: &mut Settings, change: &Change<'_>) -> Result<(), Fault> {
    let no_such = || change.refuse("device.key", "No such device.");
    let old = settings.devices.get(&change.device.key).ok_or_else(no_such)?;
    if old.type_name() != change.device.type_name() {
        return Err(change.refuse("device", "The device is of another type."));
    }
    let mut device = change.device.clone();
    device.device_info.clone_from(&old.device_info);
    if device.downcast_ref::<VirtualEthernetCard>().is_some() {
        plug_in(world, settings, &mut device, change)?;
    }
    settings.devices.insert(device.key, device);
    Ok(())
}

/// Takes a device out.
pub(super) fn remove(settings: &mut Settings, change: &Change<'_>) -> Result<(), Fault> {
    let key = change.device.key;
    let holds = settings.disks.values().any(|disk| disk.controller == key)
        || settings.devices.values().any(|device| device.controller_key == Some(key));
    if holds {
        return Err(change.refuse("device", "The controller still holds devices."));
    }
    settings.devices.remove(&key).map(drop).ok_or_else(|| change.refuse("device.key", "No such device."))
}

/// The key in this machine of the controller that a device of the specification names; `None` where it names none.
pub(super) fn controller_of(
    settings: &Settings,
    change: &Change<'_>,
    keys: &BTreeMap<i32, i32>,
) -> Result<Option<i32>, Fault> {
    let Some(named) = change.device.controller_key.filter(|key| *key != 0) else { return Ok(None) };
    let key = keys.get(&named).copied().unwrap_or(named);
    let is_controller = |device: &Poly<VirtualDevice>| {
        device.downcast_ref::<VirtualController>().is_some() || device.unknown.type_name().is_some()
    };
    if DEFAULT_CONTROLLERS.contains(&key) || settings.devices.get(&key).is_some_and(is_controller) {
        return Ok(Some(key));
    }
    Err(change.refuse("device.controllerKey", "No such controller."))
}

/// Whether a place on a controller is taken.
pub(super) fn taken(settings: &Settings, controller: i32, unit: i32) -> bool {
    settings.disks.values().any(|disk| disk.controller == controller && disk.unit == unit)
        || settings
            .devices
            .values()
            .any(|device| device.controller_key == Some(controller) && device.unit_number == Some(unit))
        || (settings.devices.get(&controller).is_some_and(|device| device.is_a("VirtualSCSIController"))
            && unit == SCSI_OWN_UNIT)
}

/// How many places a controller has, and the key of the disk at its first.
pub(super) fn places(settings: &Settings, controller: i32) -> Option<(i32, i32)> {
    let bus = |device: &Poly<VirtualDevice>| device.downcast_ref::<VirtualController>().map_or(0, |it| it.bus_number);
    if let Some(at) = DEFAULT_CONTROLLERS[..2].iter().position(|ide| *ide == controller) {
        return Some((2, 3000 + 2 * at as i32));
    }
    let device = settings.devices.get(&controller)?;
    let bus = bus(device).clamp(0, 3);
    match device.type_name() {
        "ParaVirtualSCSIController" => Some((64, 2000 + 16 * bus)),
        _ if device.is_a("VirtualSCSIController") => Some((16, 2000 + 16 * bus)),
        _ if device.is_a("VirtualSATAController") => Some((30, 16000 + 30 * bus)),
        "VirtualNVMEController" => Some((15, 32000 + 15 * bus)),
        _ => None,
    }
}

/// Everything on a controller, by key.
pub(super) fn children(settings: &Settings, disks: &[&VmDisk], controller: i32) -> Vec<i32> {
    let devices = settings.devices.values().filter(|device| device.controller_key == Some(controller));
    let disks = disks.iter().filter(|disk| disk.controller == controller).map(|disk| disk.key);
    devices.map(|device| device.key).chain(disks).collect()
}

fn family(device: &Poly<VirtualDevice>) -> (i32, &'static str) {
    let own = FAMILIES.iter().find(|(name, ..)| device.is_a(name));
    own.map_or(OTHER, |(_, first, label)| (*first, label))
}

fn free_key(settings: &Settings, first: i32, device: &Poly<VirtualDevice>) -> i32 {
    let bus = device.downcast_ref::<VirtualController>().map_or(0, |controller| controller.bus_number.clamp(0, 3));
    let is_free = |key: &i32| !settings.devices.contains_key(key) && !settings.disks.contains_key(key);
    (first + bus..).find(is_free).unwrap_or(first)
}

/// Two controllers of one family cannot have one bus number, and there are four.
fn check_bus(settings: &Settings, change: &Change<'_>, controller: &VirtualController) -> Result<(), Fault> {
    let (first, _) = family(change.device);
    let same = |device: &&Poly<VirtualDevice>| {
        let other = device.downcast_ref::<VirtualController>();
        family(device).0 == first && other.is_some_and(|other| other.bus_number == controller.bus_number)
    };
    if first == OTHER.0 {
        return Ok(());
    }
    if !(0..4).contains(&controller.bus_number) || settings.devices.values().any(|device| same(&device)) {
        return Err(change.refuse("device.busNumber", "The bus number is taken or there is no such bus."));
    }
    Ok(())
}

/// An adapter goes into a network that exists, and gets an address if it has none.
fn plug_in(
    world: &World,
    settings: &Settings,
    device: &mut Poly<VirtualDevice>,
    change: &Change<'_>,
) -> Result<(), Fault> {
    let name = world.personality().name(Fixed::Network);
    let invalid = || change.fault("InvalidDeviceBacking", "device.backing", "No such network.");
    let backing = device.backing.as_mut().ok_or_else(invalid)?;
    let network = backing.downcast_mut::<VirtualEthernetCardNetworkBackingInfo>().ok_or_else(invalid)?;
    if network.device_name != name {
        return Err(invalid());
    }
    network.network = Some(world.fixed(Fixed::Network).cast());
    let addresses: Vec<String> = settings
        .devices
        .values()
        .filter_map(|other| other.downcast_ref::<VirtualEthernetCard>()?.mac_address.clone())
        .collect();
    if let Some(card) = device.downcast_mut::<VirtualEthernetCard>()
        && card.mac_address.is_none()
    {
        let [a, b, c] = crate::ids::random_bytes();
        let mut address = format!("00:50:56:{:02x}:{b:02x}:{c:02x}", 0x80 | (a & 0x3f));
        while addresses.contains(&address) {
            let [b, c] = crate::ids::random_bytes();
            address = format!("00:50:56:80:{b:02x}:{c:02x}");
        }
        card.mac_address = Some(address);
        card.address_type = Some("assigned".into());
    }
    let connected = VirtualDeviceConnectInfo {
        start_connected: true,
        allow_guest_control: true,
        connected: true,
        ..Default::default()
    };
    device.connectable.get_or_insert(connected);
    Ok(())
}

/// The key of the video card that every VM has.
pub(super) const VIDEO_KEY: i32 = 500;
