//! The conversion as its caller sees it.

use std::collections::BTreeMap;

use vsphere_vim_types::{VirtualMachineConfigInfo, VirtualMachineConfigSpec};

use super::{
    devices, fields,
    network::{self, NetworkRule, NetworkSource, NetworkTarget},
    note::{ConversionNote, Notes, Severity},
    options::{
        BootOrder, DiskNames, DiskTarget, HostDevices, Identity, MacAddresses, Options, Provisioning, RawMappings, Tpm,
        VideoCard,
    },
    place::{DatastoreTarget, Places},
};
use crate::device::DeviceKey;

/// A configuration that is to become the description of a new machine; see the [module](super) for what is carried.
///
/// Without further choices the new machine is the old one again, on the old datastore.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigConversion<'a> {
    info: &'a VirtualMachineConfigInfo,
    options: Options,
}

/// The description of a new machine, and what is to be known about it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConvertedConfig {
    /// What [`Vim::create_vm`](crate::Vim::create_vm) takes.
    pub spec: VirtualMachineConfigSpec,
    /// What was changed or left out, and why.
    pub notes: Vec<ConversionNote>,
    /// The negative key that stands in the description for each device, by its key in the old machine.
    pub keys: BTreeMap<DeviceKey, DeviceKey>,
}

impl ConvertedConfig {
    /// The notes that say that the new machine differs from the old one, or needs something special.
    pub fn warnings(&self) -> impl Iterator<Item = &ConversionNote> {
        self.notes.iter().filter(|note| note.severity == Severity::Warning)
    }
}

impl<'a> ConfigConversion<'a> {
    /// Begins with a configuration, of a machine or of a snapshot, of today or of an old backup.
    pub fn of(info: &'a VirtualMachineConfigInfo) -> Self {
        Self { info, options: Options::default() }
    }

    /// The new machine's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Another machine of that name beside the old one: new uuids and new MAC addresses.
    pub fn as_copy(self, name: impl Into<String>) -> Self {
        self.name(name).identity(Identity::Renew).mac_addresses(MacAddresses::Renew)
    }

    /// Whether it is the old machine again. Yes, by default.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.options.identity = identity;
        self
    }

    /// The datastore of the machine and of all disks that [`disk`](Self::disk) says nothing about: a name, or a name
    /// with a reference. By default, each goes back to where it was.
    pub fn datastore(mut self, datastore: impl Into<DatastoreTarget>) -> Self {
        self.options.datastore = Some(datastore.into());
        self
    }

    /// The path of the machine's configuration file, `[datastore] folder/name.vmx`, instead of one that the server
    /// chooses. Creating the machine fails when the file exists.
    pub fn vm_path(mut self, path: impl Into<String>) -> Self {
        self.options.vm_path = Some(path.into());
        self
    }

    /// Where one disk goes.
    pub fn disk(mut self, disk: DeviceKey, target: DiskTarget) -> Self {
        self.options.disks.insert(disk, target);
        self
    }

    /// What the files of disks are called.
    pub fn disk_names(mut self, names: DiskNames) -> Self {
        self.options.disk_names = names;
        self
    }

    /// How blocks are allocated.
    pub fn provisioning(mut self, provisioning: Provisioning) -> Self {
        self.options.provisioning = provisioning;
        self
    }

    /// What becomes of raw device mappings and of raw disks.
    pub fn raw_mappings(mut self, mappings: RawMappings) -> Self {
        self.options.raw_mappings = mappings;
        self
    }

    /// Adapters that match `from` are plugged into `to`. Of several rules that match, the first counts.
    pub fn network(mut self, from: NetworkSource, to: NetworkTarget) -> Self {
        self.options.networks.push(NetworkRule { from, to });
        self
    }

    /// Network adapters start unplugged: for a trial beside the old machine.
    pub fn start_disconnected(mut self, disconnected: bool) -> Self {
        self.options.start_disconnected = disconnected;
        self
    }

    /// Adapters that no [network rule](Self::network) is about start disconnected: what they were plugged into may not
    /// exist here, or may be another network of the same name.
    pub fn disconnect_unmapped(mut self, disconnect: bool) -> Self {
        self.options.disconnect_unmapped = disconnect;
        self
    }

    /// The adapters that no [network rule](Self::network) is about, by their keys in the old machine.
    pub fn unmapped_adapters(&self) -> Vec<DeviceKey> {
        network::unmapped(&self.info.hardware.device, &self.options)
    }

    /// What becomes of MAC addresses.
    pub fn mac_addresses(mut self, addresses: MacAddresses) -> Self {
        self.options.macs = addresses;
        self
    }

    /// What becomes of the video card.
    pub fn video_card(mut self, video_card: VideoCard) -> Self {
        self.options.video_card = video_card;
        self
    }

    /// What becomes of a virtual TPM.
    pub fn tpm(mut self, tpm: Tpm) -> Self {
        self.options.tpm = tpm;
        self
    }

    /// What becomes of devices of the host.
    pub fn host_devices(mut self, devices: HostDevices) -> Self {
        self.options.host_devices = devices;
        self
    }

    /// What becomes of the boot order.
    pub fn boot_order(mut self, order: BootOrder) -> Self {
        self.options.boot_order = order;
        self
    }

    /// Leaves the vApp options (OVF properties, products, licences) out: ESXi hosts without vCenter have none.
    pub fn without_vapp_options(mut self) -> Self {
        self.options.without_vapp = true;
        self
    }

    /// Whether fields of the configuration that this version does not know are written into the description too.
    /// Not by default: the two types differ, and a server refuses what it does not expect. Fields of devices that
    /// are unknown are always carried.
    pub fn unknown_fields(mut self, carry: bool) -> Self {
        self.options.unknown_fields = carry;
        self
    }

    /// Converts. Whatever the configuration holds, there is a result; [`ConvertedConfig::notes`] says what it lacks.
    pub fn convert(&self) -> ConvertedConfig {
        let mut notes = Notes::default();
        let (mut places, files) = Places::of(self.info, &self.options, &mut notes);
        let devices = devices::convert(&self.info.hardware.device, &self.options, &mut places, &mut notes);
        let spec = fields::carry(self.info, &self.options, files, devices.changes, &devices.keys, &mut notes);
        ConvertedConfig { spec, notes: notes.list, keys: devices.keys }
    }
}
