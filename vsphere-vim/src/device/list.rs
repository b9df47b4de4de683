//! The devices of a machine as a list that can be asked.

use vsphere_vim_types::{
    DataObject, MoRef, Poly, PropertyPath, VirtualController, VirtualDevice, VirtualEthernetCard, mo,
};

use super::{ControllerKind, DeviceKey, VirtualDiskInfo};
use crate::{client::Vim, error::Result};

/// The devices of a machine or snapshot, in the server's order.
#[doc(alias = "config.hardware.device")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceList {
    devices: Vec<Poly<VirtualDevice>>,
}

impl DeviceList {
    /// A list of these devices.
    pub fn new(devices: Vec<Poly<VirtualDevice>>) -> Self {
        Self { devices }
    }

    /// All devices.
    pub fn iter(&self) -> impl Iterator<Item = &Poly<VirtualDevice>> {
        self.devices.iter()
    }

    /// The device with that key.
    pub fn get(&self, key: DeviceKey) -> Option<&Poly<VirtualDevice>> {
        self.devices.iter().find(|device| device.key == key.0)
    }

    /// The devices of a type or of one of its subtypes: `list.of_type::<VirtualCdrom>()`.
    pub fn of_type<T: DataObject>(&self) -> impl Iterator<Item = &T> {
        self.devices.iter().filter_map(|device| device.downcast_ref())
    }

    /// The disks as plain values.
    pub fn disks(&self) -> Vec<VirtualDiskInfo> {
        VirtualDiskInfo::all_of(&self.devices)
    }

    /// The network adapters.
    pub fn network_adapters(&self) -> impl Iterator<Item = &VirtualEthernetCard> {
        self.of_type()
    }

    /// The controllers for disks, with their kinds.
    pub fn controllers(&self) -> impl Iterator<Item = (ControllerKind, &VirtualController)> {
        self.devices.iter().filter_map(|device| Some((ControllerKind::of(device)?, device.downcast_ref()?)))
    }

    /// The devices on a controller.
    pub fn children(&self, controller: DeviceKey) -> impl Iterator<Item = &Poly<VirtualDevice>> {
        self.devices.iter().filter(move |device| device.controller_key == Some(controller.0))
    }

    /// The lowest unit number that is free on a controller; `None` when it is full or no controller for disks.
    pub fn free_unit(&self, controller: DeviceKey) -> Option<i32> {
        let kind = ControllerKind::of(self.get(controller)?)?;
        let own = kind.is_scsi().then_some(SCSI_OWN_UNIT);
        let taken = |unit: i32| self.children(controller).any(|device| device.unit_number == Some(unit));
        (0..kind.units()).find(|unit| Some(*unit) != own && !taken(*unit))
    }

    /// The lowest bus number that is free for a controller of that kind; `None` when the machine has as many as it can.
    pub fn free_bus(&self, kind: ControllerKind) -> Option<i32> {
        let taken = |bus: i32| {
            self.controllers().any(|(other, controller)| kind.shares_buses_with(other) && controller.bus_number == bus)
        };
        (0..kind.most()).find(|bus| !taken(*bus))
    }

    /// A negative key that no device of the list has.
    pub fn fresh_key(&self) -> DeviceKey {
        let lowest = self.devices.iter().map(|device| device.key).min().unwrap_or(0);
        DeviceKey(lowest.min(FIRST_KEY + 1).saturating_sub(1))
    }

    pub(super) fn push(&mut self, device: Poly<VirtualDevice>) {
        self.devices.push(device);
    }

    pub(super) fn take(&mut self, key: DeviceKey) -> Option<Poly<VirtualDevice>> {
        let at = self.devices.iter().position(|device| device.key == key.0)?;
        Some(self.devices.remove(at))
    }
}

impl Vim {
    /// The devices of a machine as they are now.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn devices(&self, vm: &MoRef<mo::VirtualMachine>) -> Result<DeviceList> {
        const PATH: PropertyPath<mo::VirtualMachine, Vec<Poly<VirtualDevice>>> =
            PropertyPath::new("config.hardware.device");
        Ok(DeviceList::new(self.get(vm, PATH).await?))
    }
}

/// The unit number that a SCSI controller takes on its own bus.
const SCSI_OWN_UNIT: i32 = 7;

/// Where fresh keys begin: far from small numbers that people write by hand.
const FIRST_KEY: i32 = -101;
