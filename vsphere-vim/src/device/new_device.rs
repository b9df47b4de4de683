//! Disks and network adapters to be added.

use vsphere_vim_types::{
    MoRef, Poly, VirtualDevice, VirtualDeviceConnectInfo, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualE1000,
    VirtualE1000e, VirtualEthernetCard, VirtualVmxnet3, mo,
};

use super::{ControllerKind, DeviceKey, DiskMode};
use crate::{
    config_spec::NetworkTarget,
    error::{Error, Result},
};

/// A disk to be added by [`DeviceEdit::add_disk`](super::DeviceEdit::add_disk).
#[derive(Clone, Debug)]
#[must_use]
pub struct NewDisk {
    capacity: Option<u64>,
    file_name: String,
    datastore: Option<MoRef<mo::Datastore>>,
    thin: bool,
    eager: bool,
    mode: DiskMode,
    pub(super) kind: Option<ControllerKind>,
    pub(super) controller: Option<DeviceKey>,
    pub(super) unit: Option<i32>,
}

impl NewDisk {
    /// A new disk of that many bytes, thick and zeroed on first write, beside the machine, under a name that the
    /// server chooses.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity: Some(capacity),
            file_name: String::new(),
            datastore: None,
            thin: false,
            eager: false,
            mode: DiskMode::Persistent,
            kind: None,
            controller: None,
            unit: None,
        }
    }

    /// The disk in a file that exists: `[datastore] folder/name.vmdk`.
    pub fn existing(path: impl Into<String>) -> Self {
        Self { capacity: None, file_name: path.into(), ..Self::new(0) }
    }

    /// Blocks are allocated on first write.
    pub fn thin(self) -> Self {
        Self { thin: true, eager: false, ..self }
    }

    /// Blocks are allocated and zeroed at once.
    pub fn eager_zeroed(self) -> Self {
        Self { thin: false, eager: true, ..self }
    }

    /// On that datastore, under a name that the server chooses.
    pub fn on_datastore(self, name: &str, datastore: MoRef<mo::Datastore>) -> Self {
        Self { file_name: format!("[{name}]"), datastore: Some(datastore), ..self }
    }

    /// In a file of that path, whose folder exists.
    pub fn in_file(self, path: impl Into<String>) -> Self {
        Self { file_name: path.into(), ..self }
    }

    /// How it takes writes, and whether snapshots hold it.
    pub fn mode(self, mode: DiskMode) -> Self {
        Self { mode, ..self }
    }

    /// On a controller of that kind.
    pub fn on_kind(self, kind: ControllerKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// On that controller.
    pub fn on(self, controller: DeviceKey) -> Self {
        Self { controller: Some(controller), ..self }
    }

    /// At that place of its controller.
    pub fn unit(self, unit: i32) -> Self {
        Self { unit: Some(unit), ..self }
    }

    /// The device, and whether its file has to be created.
    pub(super) fn into_device(
        self,
        key: DeviceKey,
        controller: DeviceKey,
        unit: i32,
    ) -> Result<(Poly<VirtualDevice>, bool)> {
        let bytes = match self.capacity {
            Some(0) => return Err(Error::invalid_input("disk", "a disk of no bytes")),
            Some(bytes) => Some(
                i64::try_from(bytes)
                    .map_err(|_| Error::invalid_input("disk", "beyond what the API can express (2^63 bytes)"))?,
            ),
            None => None,
        };
        let mut backing = VirtualDiskFlatVer2BackingInfo { disk_mode: self.mode.to_string(), ..Default::default() };
        backing.file_name = self.file_name;
        backing.datastore = self.datastore;
        if bytes.is_some() {
            backing.thin_provisioned = Some(self.thin);
            backing.eagerly_scrub = self.eager.then_some(true);
        }
        let mut disk = VirtualDisk {
            // Old servers read kilobytes only.
            capacity_in_kb: bytes.map_or(0, |bytes| (bytes - 1) / 1024 + 1),
            capacity_in_bytes: bytes,
            ..Default::default()
        };
        disk.key = key.0;
        disk.controller_key = Some(controller.0);
        disk.unit_number = Some(unit);
        disk.backing = Some(Poly::new(backing));
        Ok((Poly::new(disk), bytes.is_some()))
    }
}

/// A kind of network adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterKind {
    /// Paravirtual, for guests with VMware Tools or a driver of their own.
    #[default]
    #[doc(alias = "VirtualVmxnet3")]
    Vmxnet3,
    /// Intel 82545EM.
    #[doc(alias = "VirtualE1000")]
    E1000,
    /// Intel 82574L.
    #[doc(alias = "VirtualE1000e")]
    E1000e,
}

/// A network adapter to be added by [`DeviceEdit::add_adapter`](super::DeviceEdit::add_adapter).
#[derive(Clone, Debug)]
#[must_use]
pub struct NewAdapter {
    network: NetworkTarget,
    kind: AdapterKind,
    mac: Option<String>,
    connected: bool,
}

impl NewAdapter {
    /// An adapter on that network, with an address that the server gives, plugged in at power-on.
    pub fn new(network: NetworkTarget) -> Self {
        Self { network, kind: AdapterKind::default(), mac: None, connected: true }
    }

    /// Of that kind.
    pub fn kind(self, kind: AdapterKind) -> Self {
        Self { kind, ..self }
    }

    /// With that address.
    pub fn mac_address(self, mac: impl Into<String>) -> Self {
        Self { mac: Some(mac.into()), ..self }
    }

    /// Whether it is plugged in at power-on.
    pub fn start_connected(self, connected: bool) -> Self {
        Self { connected, ..self }
    }

    pub(super) fn into_device(self, key: DeviceKey) -> Poly<VirtualDevice> {
        let mut card = VirtualEthernetCard {
            address_type: Some(if self.mac.is_some() { "manual" } else { "generated" }.to_owned()),
            mac_address: self.mac,
            wake_on_lan_enabled: Some(true),
            ..Default::default()
        };
        card.key = key.0;
        card.backing = Some(self.network.backing());
        card.connectable = Some(VirtualDeviceConnectInfo {
            start_connected: self.connected,
            allow_guest_control: true,
            connected: self.connected,
            ..Default::default()
        });
        match self.kind {
            AdapterKind::E1000 => Poly::new(VirtualE1000 { base: card }),
            AdapterKind::E1000e => Poly::new(VirtualE1000e { base: card }),
            AdapterKind::Vmxnet3 => {
                let mut adapter = VirtualVmxnet3::default();
                adapter.base.base = card;
                Poly::new(adapter)
            }
        }
    }
}
