//! The device list: which devices are described, under which keys, on which controllers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vsphere_vim_types::{
    Poly, VirtualCdromIsoBackingInfo, VirtualController, VirtualDevice, VirtualDeviceConfigSpec,
    VirtualDeviceConfigSpecFileOperation, VirtualDeviceConfigSpecOperation, VirtualDeviceFileBackingInfo, VirtualDisk,
    VirtualEthernetCard, VirtualMachineVideoCard, VirtualNVDIMMBackingInfo, VirtualSCSIController, VirtualTPM,
};

use super::{
    disks, network,
    note::Notes,
    options::{HostDevices, Options, Tpm, VideoCard},
    place::Places,
};
use crate::device::DeviceKey;

/// Devices that every new machine has: describing them makes its creation fail.
pub const DEFAULT_DEVICES: &[&str] = &[
    "VirtualIDEController",
    "VirtualPS2Controller",
    "VirtualPCIController",
    "VirtualSIOController",
    "VirtualKeyboard",
    "VirtualMachineVMCIDevice",
    "VirtualPointingDevice",
];

/// Devices of the host that a machine holds on to.
const HOST_DEVICES: &[&str] =
    &["VirtualPCIPassthrough", "VirtualSCSIPassthrough", "VirtualUSB", "VirtualSriovEthernetCard"];

/// The keys of the controllers that every machine has, by what hangs on them.
const PCI: i32 = 100;
const IDE: [i32; 2] = [200, 201];
const PS2: i32 = 300;
const SIO: i32 = 400;

/// What became of the devices.
pub(super) struct Devices {
    pub(super) changes: Vec<Poly<VirtualDeviceConfigSpec>>,
    pub(super) keys: BTreeMap<DeviceKey, DeviceKey>,
}

/// Describes every device that the new machine does not have anyway.
pub(super) fn convert(
    old: &[Poly<VirtualDevice>],
    options: &Options,
    places: &mut Places<'_>,
    notes: &mut Notes,
) -> Devices {
    let defaults: HashMap<i32, &Poly<VirtualDevice>> =
        old.iter().filter(|device| is_default(device)).map(|device| (device.key, device)).collect();
    let mut keys = Keys { assigned: BTreeMap::new(), used: BTreeSet::new(), spare: FIRST_SPARE };
    let mut kept = Vec::new();
    for device in old.iter().filter(|device| !is_default(device)) {
        let key = DeviceKey(device.key);
        notes.about(Some(key));
        if let Some((change, device)) = one(device, options, places, notes) {
            kept.push((key, keys.assign(key), change, device));
        }
    }
    // Only now are all new keys known.
    let mut changes = Vec::new();
    for (old_key, key, mut change, mut device) in kept {
        notes.about(Some(old_key));
        device.key = key.0;
        attach(&mut device, &keys.assigned, &defaults, notes);
        let is_controller = device.downcast_ref::<VirtualController>().is_some();
        change.device = device;
        changes.push((!is_controller, Poly::new(change)));
    }
    notes.about(None);
    // Controllers first: what hangs on them comes after.
    changes.sort_by_key(|(last, _)| *last);
    Devices { changes: changes.into_iter().map(|(_, change)| change).collect(), keys: keys.assigned }
}

fn is_default(device: &Poly<VirtualDevice>) -> bool {
    DEFAULT_DEVICES.iter().any(|name| device.is_a(name))
}

/// One device without what the server assigns; `None` when it is left out.
fn one(
    old: &Poly<VirtualDevice>,
    options: &Options,
    places: &mut Places<'_>,
    notes: &mut Notes,
) -> Option<(VirtualDeviceConfigSpec, Poly<VirtualDevice>)> {
    let key = DeviceKey(old.key);
    let name = old.type_name();
    let mut device = old.clone();
    device.device_info = None;
    if let Some(connectable) = &mut device.connectable {
        connectable.status = None;
    }
    if let Some(controller) = device.downcast_mut::<VirtualController>() {
        // The server rebuilds the list from the keys that the devices name.
        controller.device.clear();
    }
    if let Some(scsi) = device.downcast_mut::<VirtualSCSIController>() {
        scsi.scsi_ctlr_unit_number = None;
    }
    let mut change =
        VirtualDeviceConfigSpec { operation: Some(VirtualDeviceConfigSpecOperation::Add), ..Default::default() };
    if HOST_DEVICES.iter().any(|passed| old.is_a(passed)) {
        if options.host_devices == HostDevices::LeaveOut {
            notes.warn(name, "a device of the host was left out");
            return None;
        }
        notes.warn(name, "a device of the host: the new machine needs a host that has it");
    }
    if old.downcast_ref::<VirtualDisk>().is_some() {
        change.file_operation = disks::convert(&mut device, key, options, places, notes)?;
        return Some((change, device));
    }
    if let Some(video) = old.downcast_ref::<VirtualMachineVideoCard>() {
        let describe = match options.video_card {
            VideoCard::Always => true,
            VideoCard::Never => false,
            VideoCard::WhenCustom => is_custom(video),
        };
        if !describe && is_custom(video) {
            notes.warn(name, "the settings of the video card were left out");
        }
        if !describe {
            return None;
        }
    }
    if let Some(tpm) = device.downcast_mut::<VirtualTPM>() {
        if options.tpm == Tpm::LeaveOut {
            notes.warn(name, "the virtual TPM was left out: what the guest sealed with it needs recovery keys");
            return None;
        }
        tpm.endorsement_key_certificate.clear();
        tpm.endorsement_key_certificate_signing_request.clear();
        notes.warn(name, "the virtual TPM is new and empty, and needs a key provider");
    }
    if old.downcast_ref::<VirtualEthernetCard>().is_some() {
        network::adapter(&mut device, key, options, notes);
    } else {
        plain_backing(&mut device, &mut change, notes);
    }
    if old.unknown.type_name().is_some() {
        notes.warn(name, "a device that this version does not know was described as it was");
    }
    Some((change, device))
}

/// Files of devices other than disks: by their paths, without references of the old server.
fn plain_backing(device: &mut Poly<VirtualDevice>, change: &mut VirtualDeviceConfigSpec, notes: &mut Notes) {
    let Some(backing) = &mut device.backing else { return };
    if let Some(memory) = backing.downcast_mut::<VirtualNVDIMMBackingInfo>() {
        memory.parent = None;
        memory.change_id = None;
        memory.file_name = String::new();
        change.file_operation = Some(VirtualDeviceConfigSpecFileOperation::Create);
        notes.warn("VirtualNVDIMM", "persistent memory is made anew, empty");
    }
    let is_image = backing.downcast_ref::<VirtualCdromIsoBackingInfo>().is_some();
    if let Some(file) = backing.downcast_mut::<VirtualDeviceFileBackingInfo>() {
        file.datastore = None;
        file.backing_object_id = None;
        if !file.file_name.is_empty() {
            let what = if is_image { "the image" } else { "the file" };
            notes
                .info("backing.fileName", format!("{what} {} has to exist where the new machine runs", file.file_name));
        }
    }
}

/// Whether a video card differs from the one that a new machine gets: one display, 4 or 8 MiB, no 3D.
fn is_custom(video: &VirtualMachineVideoCard) -> bool {
    const USUAL_KB: [i64; 2] = [4096, 8192];
    video.use_auto_detect == Some(true)
        || video.enable3_d_support == Some(true)
        || video.num_displays.is_some_and(|displays| displays > 1)
        || video.video_ram_size_in_kb.is_some_and(|kilobytes| !USUAL_KB.contains(&kilobytes))
        || video.use3d_renderer.as_deref().is_some_and(|renderer| renderer != "automatic")
}

/// Names the device's controller in the new machine.
fn attach(
    device: &mut Poly<VirtualDevice>,
    keys: &BTreeMap<DeviceKey, DeviceKey>,
    defaults: &HashMap<i32, &Poly<VirtualDevice>>,
    notes: &mut Notes,
) {
    let Some(old) = device.controller_key else { return };
    if let Some(key) = keys.get(&DeviceKey(old)) {
        device.controller_key = Some(key.0);
        return;
    }
    match well_known(old, defaults.get(&old).copied()) {
        // Slots of the PCI bus are the server's to give; slotInfo asks for the old one.
        Some(PCI) => {
            device.controller_key = None;
            device.unit_number = None;
        }
        Some(key) => device.controller_key = Some(key),
        None => {
            device.controller_key = None;
            device.unit_number = None;
            notes.warn("controllerKey", format!("controller {old} is not there: the server chooses another one"));
        }
    }
}

/// The key that a default controller has on every machine.
fn well_known(old: i32, controller: Option<&Poly<VirtualDevice>>) -> Option<i32> {
    let Some(controller) = controller else {
        // A description that lacks the default controllers means the usual ones.
        return [PCI, IDE[0], IDE[1], PS2, SIO].into_iter().find(|key| *key == old);
    };
    match controller.type_name() {
        "VirtualIDEController" => {
            let bus = controller.downcast_ref::<VirtualController>()?.bus_number;
            IDE.get(usize::try_from(bus).ok()?).copied()
        }
        "VirtualPCIController" => Some(PCI),
        "VirtualPS2Controller" => Some(PS2),
        "VirtualSIOController" => Some(SIO),
        _ => None,
    }
}

/// New keys: negative, so that they collide with none that the server gives, and each used once.
struct Keys {
    assigned: BTreeMap<DeviceKey, DeviceKey>,
    used: BTreeSet<i32>,
    /// Where the search for a spare key goes on.
    spare: i32,
}

impl Keys {
    /// The old key with a minus sign where that is free: 2000 becomes -2000, which people recognise.
    fn assign(&mut self, old: DeviceKey) -> DeviceKey {
        let mirrored = old.0.checked_neg().filter(|key| *key < 0 && !self.used.contains(key));
        let key = mirrored.unwrap_or_else(|| {
            while self.used.contains(&self.spare) {
                self.spare -= 1;
            }
            self.spare
        });
        self.used.insert(key);
        // Of two devices with one key, the first is what others mean by it.
        self.assigned.entry(old).or_insert(DeviceKey(key));
        DeviceKey(key)
    }
}

/// Where keys begin for devices whose own cannot be mirrored.
const FIRST_SPARE: i32 = -1_000_001;
