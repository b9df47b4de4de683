//! Changes to a device list, ready for a reconfiguration or a creation.
//!
//! ```
//! use vsphere_vim::device::{DeviceEdit, DeviceList, DiskFiles, NewAdapter, NewDisk};
//! use vsphere_vim::{DeviceKey, config_spec::NetworkTarget};
//!
//! # fn example(devices: DeviceList) -> vsphere_vim::Result<()> {
//! let mut edit = DeviceEdit::of(devices);
//! edit.add_disk(NewDisk::new(64 << 30).thin())?;
//! edit.add_adapter(NewAdapter::new(NetworkTarget::standard("VM Network")));
//! edit.remove(DeviceKey(2001), DiskFiles::Keep)?;
//! let spec = edit.into_spec(); // vim.reconfigure(&vm, spec).await?
//! # Ok(()) }
//! ```

use vsphere_vim_types::{
    Poly, VirtualDevice, VirtualDeviceConfigSpec, VirtualDeviceConfigSpecFileOperation,
    VirtualDeviceConfigSpecOperation, VirtualDisk, VirtualMachineConfigSpec,
};

use super::{ControllerKind, DeviceKey, DeviceList, NewAdapter, NewDisk};
use crate::error::{Error, Result};

/// What happens to the files of a disk that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFiles {
    /// They stay on the datastore.
    Keep,
    /// They are deleted.
    Destroy,
}

/// A device list under change: it knows which places are taken, also by what is only about to be added.
#[derive(Clone, Debug, Default)]
#[must_use = "changes do nothing until their specification is used"]
pub struct DeviceEdit {
    list: DeviceList,
    changes: Vec<VirtualDeviceConfigSpec>,
}

impl DeviceEdit {
    /// Begins with the devices of a machine; with an empty list for a machine that is to be created.
    pub fn of(list: DeviceList) -> Self {
        Self { list, changes: Vec::new() }
    }

    /// The devices as they will be.
    pub fn devices(&self) -> &DeviceList {
        &self.list
    }

    /// Adds a disk and returns the key that stands for it until the server gives one.
    ///
    /// Without a controller of the caller's choice it goes to the first that has room, of the disk's kind of
    /// controller; where all are full or none is there, one is added.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a size of zero or beyond 2^63 bytes, for a place that is taken, and when no more
    /// controllers fit into the machine.
    pub fn add_disk(&mut self, disk: NewDisk) -> Result<DeviceKey> {
        let controller = match disk.controller {
            Some(key) => key,
            None => self.controller_with_room(disk.kind)?,
        };
        let full = || Error::invalid_input("disk", format!("controller {controller} is full or holds no disks"));
        let unit = match disk.unit {
            None => self.list.free_unit(controller).ok_or_else(full)?,
            Some(unit) if self.list.children(controller).any(|device| device.unit_number == Some(unit)) => {
                return Err(Error::invalid_input("disk", format!("unit {unit} of controller {controller} is taken")));
            }
            Some(unit) => unit,
        };
        let key = self.list.fresh_key();
        let (device, create) = disk.into_device(key, controller, unit)?;
        self.add(device, create.then_some(VirtualDeviceConfigSpecFileOperation::Create));
        Ok(key)
    }

    /// Adds a controller and returns its key for the time being.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the machine has as many as it can, and for IDE, of which none can be added.
    pub fn add_controller(&mut self, kind: ControllerKind) -> Result<DeviceKey> {
        let none = || Error::invalid_input("controller", format!("no {kind:?} controller can be added to the machine"));
        let bus = self.list.free_bus(kind).ok_or_else(none)?;
        let key = self.list.fresh_key();
        self.add(kind.new_device(key.0, bus).ok_or_else(none)?, None);
        Ok(key)
    }

    /// Adds a network adapter and returns its key for the time being.
    pub fn add_adapter(&mut self, adapter: NewAdapter) -> DeviceKey {
        let key = self.list.fresh_key();
        self.add(adapter.into_device(key), None);
        key
    }

    /// Adds any device; its own key is replaced by the one returned.
    pub fn add_device(&mut self, mut device: Poly<VirtualDevice>) -> DeviceKey {
        let key = self.list.fresh_key();
        device.key = key.0;
        self.add(device, None);
        key
    }

    /// Removes a device. `files` is about disks.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is no such device, or when it is a controller that still holds some.
    pub fn remove(&mut self, key: DeviceKey, files: DiskFiles) -> Result<()> {
        if self.list.children(key).next().is_some() {
            return Err(Error::invalid_input("device", format!("controller {key} still holds devices")));
        }
        let device = self.list.take(key).ok_or_else(|| no_such(key))?;
        // What was only about to be added is not there to be removed.
        let before = self.changes.len();
        self.changes.retain(|change| change.device.key != key.0);
        if key.0 < 0 && self.changes.len() < before {
            return Ok(());
        }
        let is_disk = device.downcast_ref::<VirtualDisk>().is_some();
        let destroy = is_disk && files == DiskFiles::Destroy;
        self.changes.push(VirtualDeviceConfigSpec {
            operation: Some(VirtualDeviceConfigSpecOperation::Remove),
            file_operation: destroy.then_some(VirtualDeviceConfigSpecFileOperation::Destroy),
            device,
            ..Default::default()
        });
        Ok(())
    }

    /// Changes a device: `edit` gets it as a `T`, such as [`VirtualDisk`] to make it larger.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is no such device or when it is no `T`.
    pub fn modify<T: vsphere_vim_types::DataObject>(
        &mut self,
        key: DeviceKey,
        edit: impl FnOnce(&mut T),
    ) -> Result<()> {
        let mut device = self.list.get(key).cloned().ok_or_else(|| no_such(key))?;
        let other = || Error::invalid_input("device", format!("device {key} is of another type"));
        edit(device.downcast_mut::<T>().ok_or_else(other)?);
        // The key names the device: an edit does not change it.
        device.key = key.0;
        drop(self.list.take(key));
        self.list.push(device.clone());
        match self.changes.iter_mut().find(|change| change.device.key == key.0) {
            Some(change) => change.device = device,
            None => self.changes.push(VirtualDeviceConfigSpec {
                operation: Some(VirtualDeviceConfigSpecOperation::Edit),
                device,
                ..Default::default()
            }),
        }
        Ok(())
    }

    /// The changes, in the order in which they were made.
    pub fn into_changes(self) -> Vec<Poly<VirtualDeviceConfigSpec>> {
        self.changes.into_iter().map(Poly::new).collect()
    }

    /// The changes as a specification that changes nothing else.
    pub fn into_spec(self) -> VirtualMachineConfigSpec {
        VirtualMachineConfigSpec { device_change: self.into_changes(), ..Default::default() }
    }

    fn add(&mut self, device: Poly<VirtualDevice>, file_operation: Option<VirtualDeviceConfigSpecFileOperation>) {
        self.list.push(device.clone());
        self.changes.push(VirtualDeviceConfigSpec {
            operation: Some(VirtualDeviceConfigSpecOperation::Add),
            file_operation,
            device,
            ..Default::default()
        });
    }

    fn controller_with_room(&mut self, kind: Option<ControllerKind>) -> Result<DeviceKey> {
        let fits = |other: ControllerKind| match kind {
            Some(kind) => other == kind,
            // Disks on IDE are for guests that know nothing else: only on demand.
            None => other != ControllerKind::Ide,
        };
        let present = self.list.controllers().filter(|(other, _)| fits(*other));
        let free =
            present.map(|(_, controller)| DeviceKey(controller.key)).find(|key| self.list.free_unit(*key).is_some());
        match free {
            Some(key) => Ok(key),
            // One more of the kind that the machine has already: its guest has a driver for it.
            None => {
                let first = self.list.controllers().map(|(kind, _)| kind).find(|kind| fits(*kind));
                self.add_controller(kind.or(first).unwrap_or(ControllerKind::ParaVirtual))
            }
        }
    }
}

fn no_such(key: DeviceKey) -> Error {
    Error::invalid_input("device", format!("there is no device {key}"))
}

#[cfg(test)]
mod tests {
    use vsphere_vim_types::{VirtualController, VirtualDiskFlatVer2BackingInfo};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn units(edit: &DeviceEdit) -> Vec<(i32, i32)> {
        let bus = |key| {
            let controller = edit.devices().get(DeviceKey(key)).unwrap();
            controller.downcast_ref::<VirtualController>().unwrap().bus_number
        };
        let disks = edit.devices().of_type::<VirtualDisk>();
        disks.map(|disk| (bus(disk.controller_key.unwrap()), disk.unit_number.unwrap())).collect()
    }

    #[test]
    fn disks_fill_a_controller_around_its_own_unit_and_then_the_next() {
        let mut edit = DeviceEdit::default();
        for _ in 0..17 {
            edit.add_disk(NewDisk::new(MIB)).unwrap();
        }
        let expected: Vec<_> =
            (0..16).filter(|unit| *unit != 7).map(|unit| (0, unit)).chain([(1, 0), (1, 1)]).collect();
        assert_eq!(units(&edit), expected);
        let keys: std::collections::BTreeSet<_> = edit.devices().iter().map(|device| device.key).collect();
        assert_eq!(keys.len(), 19, "17 disks and 2 controllers under keys of their own");
        assert!(keys.iter().all(|key| *key < 0));
    }

    #[test]
    fn a_machine_takes_four_controllers_of_a_family_and_no_more() {
        let mut edit = DeviceEdit::default();
        for kind in [
            ControllerKind::ParaVirtual,
            ControllerKind::LsiLogic,
            ControllerKind::LsiLogicSas,
            ControllerKind::BusLogic,
        ] {
            edit.add_controller(kind).unwrap();
        }
        assert!(edit.add_controller(ControllerKind::ParaVirtual).is_err());
        assert!(edit.add_controller(ControllerKind::Ide).is_err());
        edit.add_controller(ControllerKind::Nvme).unwrap();
        let buses: Vec<_> = edit.devices().controllers().map(|(_, controller)| controller.bus_number).collect();
        assert_eq!(buses, [0, 1, 2, 3, 0]);
        let mut disks = 0;
        while edit.add_disk(NewDisk::new(MIB).on_kind(ControllerKind::ParaVirtual)).is_ok() {
            disks += 1;
        }
        assert_eq!(disks, 15, "one controller of that kind, and no room for another");
    }

    #[test]
    fn what_is_added_and_removed_again_leaves_no_change() {
        let mut edit = DeviceEdit::default();
        let controller = edit.add_controller(ControllerKind::Sata).unwrap();
        let disk = edit.add_disk(NewDisk::new(MIB).on(controller)).unwrap();
        assert!(edit.remove(controller, DiskFiles::Keep).is_err(), "it still holds the disk");
        edit.modify(disk, |disk: &mut VirtualDisk| disk.capacity_in_kb = 2048).unwrap();
        assert_eq!(edit.clone().into_changes().len(), 2, "the addition itself was modified");
        assert!(edit.modify(disk, |_: &mut VirtualController| {}).is_err());
        edit.remove(disk, DiskFiles::Destroy).unwrap();
        edit.remove(controller, DiskFiles::Keep).unwrap();
        assert!(edit.into_spec().device_change.is_empty());
    }

    #[test]
    fn existing_devices_are_edited_and_removed_by_key() {
        let mut disk = VirtualDisk { capacity_in_kb: 1024, ..Default::default() };
        disk.key = 2000;
        let mut edit = DeviceEdit::of(DeviceList::new(vec![Poly::new(disk)]));
        edit.modify(DeviceKey(2000), |disk: &mut VirtualDisk| disk.capacity_in_kb = 4096).unwrap();
        let change = &edit.clone().into_changes()[0];
        assert_eq!((&change.operation, &change.file_operation), (&Some(VirtualDeviceConfigSpecOperation::Edit), &None));
        edit.remove(DeviceKey(2000), DiskFiles::Destroy).unwrap();
        let changes = edit.clone().into_changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].operation, Some(VirtualDeviceConfigSpecOperation::Remove));
        assert_eq!(changes[0].file_operation, Some(VirtualDeviceConfigSpecFileOperation::Destroy));
        assert!(edit.remove(DeviceKey(2000), DiskFiles::Keep).is_err());
    }

    #[test]
    fn an_existing_file_is_attached_and_a_new_one_created() {
        let mut edit = DeviceEdit::default();
        edit.add_disk(NewDisk::existing("[ds1] a/a.vmdk")).unwrap();
        edit.add_disk(NewDisk::new(3 * MIB).eager_zeroed().in_file("[ds1] a/b.vmdk")).unwrap();
        assert!(edit.add_disk(NewDisk::new(0)).is_err());
        assert!(edit.add_disk(NewDisk::new(u64::MAX)).is_err());
        let changes = edit.into_changes();
        let backing = |at: usize| {
            let backing = changes[at].device.backing.as_ref().unwrap();
            backing.downcast_ref::<VirtualDiskFlatVer2BackingInfo>().unwrap().clone()
        };
        assert_eq!((changes[1].file_operation.clone(), backing(1).file_name.as_str()), (None, "[ds1] a/a.vmdk"));
        assert_eq!(changes[2].file_operation, Some(VirtualDeviceConfigSpecFileOperation::Create));
        assert_eq!((backing(2).thin_provisioned, backing(2).eagerly_scrub), (Some(false), Some(true)));
        assert_eq!(changes[2].device.downcast_ref::<VirtualDisk>().unwrap().capacity_in_kb, 3072);
    }
}
